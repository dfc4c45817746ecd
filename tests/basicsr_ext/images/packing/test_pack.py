"""``basicsr prepare``: crops as BasicSR cuts them, readable by its data sets and ours, complete or not at all."""

import json
import os
import signal
import subprocess
import sys

import basicsr_ext  # noqa: F401  (makes basicsr importable)

# isort: split
import cv2
import lmdb
import numpy as np
import pytest
import torch
from basicsr.data.paired_image_dataset import PairedImageDataset

from basicsr_ext import repairs
from basicsr_ext.cli import main
from basicsr_ext.commands import prepare
from basicsr_ext.common.errors import InputError
from basicsr_ext.images.inventory import listed_names
from basicsr_ext.images.packing import pack
from basicsr_ext.images.packing.crops import Cutting, starts
from i2sb_plugin.data.paired_folder_dataset import PairedFolderDataset
from tests.support.cli_runs import run

CUT = ["--crop", "16", "--step", "12", "--threshold", "2"]


def images(folder, sizes=((40, 32), (32, 52), (16, 16)), channels=3, kind=np.uint8):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k, (height, width) in enumerate(sizes):
        pixels = rng.integers(0, np.iinfo(kind).max, (height, width, channels), endpoint=True).astype(kind)
        assert cv2.imwrite(str(folder / f"{k}.png"), pixels)
    return folder


def records(path):
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return dict(transaction.cursor())


def squares(folder):
    """Every crop that is expected, by its key."""
    found = {}
    for path in sorted(folder.iterdir()):
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        corners = [(t, x) for t in basicsr_starts(pixels.shape[0]) for x in basicsr_starts(pixels.shape[1])]
        found |= {f"{path.stem}_s{k:03d}": pixels[t : t + 16, x : x + 16] for k, (t, x) in enumerate(corners, 1)}
    return found


def basicsr_starts(length, crop=16, step=12, threshold=2):
    """The places of BasicSR's extract_subimages."""
    space = np.arange(0, length - crop + 1, step)
    return np.append(space, length - crop) if length - (space[-1] + crop) > threshold else space


@pytest.mark.parametrize("length", range(16, 60))
def test_squares_lie_where_basicsr_puts_them(length):
    assert starts(length, Cutting(crop=16, step=12, threshold=2)) == list(basicsr_starts(length))


@pytest.mark.parametrize("kind", ["lmdb", "raw", "folder"])
def test_crops_are_the_squares_of_the_images(tmp_path, capsys, kind):
    source = images(tmp_path / "images")
    out = tmp_path / ("crops" if kind == "folder" else "crops.lmdb")
    code, said, _ = run(capsys, "prepare", "-i", str(source), "-o", str(out), "--to", kind, *CUT, "--workers", "1")
    wanted = squares(source)
    assert code == 0 and said == f"{out}: {len(wanted)} crops of 3 images\n" and len(wanted) == 22
    if kind == "folder":
        stored = {path.stem: path.read_bytes() for path in out.iterdir() if path.suffix == ".png"}
        meta = (tmp_path / "crops_meta_info.txt").read_text().splitlines()
        assert meta == [f"{key}.png (16,16,3)" for key in wanted]
        assert {p.name for p in out.iterdir() if not p.name.startswith(".")} == {f"{key}.png" for key in wanted}
    else:
        stored = {key.decode(): value for key, value in records(out).items()}
        end = {"lmdb": "png (16,16,3) 1", "raw": "ppm (16,16,3) 0"}[kind]
        assert (out / "meta_info.txt").read_text().splitlines() == [f"{key}.{end}" for key in wanted]
    assert stored.keys() == wanted.keys()
    for key, value in stored.items():
        assert np.array_equal(cv2.imdecode(np.frombuffer(value, np.uint8), cv2.IMREAD_UNCHANGED), wanted[key])
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({"images", out.name} | (
        {"crops_meta_info.txt"} if kind == "folder" else set()))  # fmt: skip


@pytest.mark.parametrize("kind", ["lmdb", "raw"])
def test_basicsr_and_our_data_set_read_the_same_pairs(tmp_path, kind):
    repairs.apply()
    source = images(tmp_path / "gt")
    (tmp_path / "lq").mkdir()
    for path in source.iterdir():
        small = cv2.resize(cv2.imread(str(path)), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(tmp_path / "lq" / f"{path.stem}x2.png"), small)
    roots = {part: str(tmp_path / f"{part}.lmdb") for part in ("gt", "lq")}
    for part, (side, step, rest) in {"gt": (16, 12, 2), "lq": (8, 6, 1)}.items():
        pack.prepare(tmp_path / part, roots[part], kind, Cutting(side, step, rest, raw=kind == "raw"),
                        "x2" if part == "lq" else "", workers=1)  # fmt: skip
    block = {"name": "pairs", "phase": "val", "scale": 2, "dataroot_gt": roots["gt"], "dataroot_lq": roots["lq"]}
    theirs = PairedImageDataset({**block, "type": "PairedImageDataset", "io_backend": {"type": "lmdb"}})
    ours = PairedFolderDataset({**block, "type": "PairedFolderDataset", "io_backend": {"type": "lmdb"}})
    assert len(theirs) == len(ours) == 22
    for one, other in zip(theirs, ours):
        assert one["gt_path"] == other["gt_path"]
        assert torch.equal(one["gt"], other["gt"]) and torch.equal(one["lq"], other["lq"])


def test_grey_images_of_16_bits_stay_so_and_whole_images_keep_their_name(tmp_path):
    source = images(tmp_path / "images", ((20, 30),), 1, np.uint16)
    out = tmp_path / "whole.lmdb"
    assert main(["prepare", "-i", str(source), "-o", str(out)]) == 0
    assert (out / "meta_info.txt").read_text() == "0.png (20,30,1) 1\n"
    stored = cv2.imdecode(np.frombuffer(records(out)[b"0"], np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(stored, cv2.imread(str(source / "0.png"), cv2.IMREAD_UNCHANGED))


def content(out):
    """Every file; of an LMDB every record, since its free pages hold what they held."""
    files = {path.name: path.read_bytes() for path in out.iterdir() if not path.name.endswith(".mdb")}
    return files | (records(out) if (out / "data.mdb").exists() else {})


KILLED = """
import os, signal, sys
from basicsr_ext.commands import prepare
from basicsr_ext.images.inventory import listed_names
from basicsr_ext.images.packing import pack
cut, pack._COMMIT = pack.cut_file, 2
def dying(path, *rest):
    if path.endswith(os.sep + "6.png"):
        os.kill(os.getpid(), signal.SIGKILL)
    return cut(path, *rest)
pack.cut_file = dying
prepare.run(sys.argv[1:])
"""


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
@pytest.mark.parametrize("kind", ["lmdb", "raw", "folder"])
def test_a_killed_run_goes_on_where_it_stopped_to_the_same_bytes(tmp_path, monkeypatch, kind):
    source = images(tmp_path / "images", ((40, 40),) * 9)
    monkeypatch.setattr(pack, "_COMMIT", 2)
    end = "" if kind == "folder" else ".lmdb"
    words = ["-i", str(source), "--to", kind, *CUT, "--workers", "1", "-o"]
    prepare.run([*words, str(tmp_path / f"unbroken{end}")])
    stopped = tmp_path / f"stopped{end}"
    child = subprocess.run([sys.executable, "-c", KILLED, *words, str(stopped)], capture_output=True, timeout=120)
    assert child.returncode == -signal.SIGKILL and not stopped.exists()
    part = tmp_path / f"stopped{end}.part"
    assert len(part.joinpath(".progress.jsonl").read_text().splitlines()) == 6
    cut, seen = pack.cut_file, []
    monkeypatch.setattr(
        pack, "cut_file", lambda path, *rest: (seen.append(os.path.basename(path)), cut(path, *rest))[1]
    )
    prepare.run([*words, str(stopped)])
    assert seen == ["6.png", "7.png", "8.png"], "the first six were done"
    assert content(stopped) == content(tmp_path / f"unbroken{end}") and not part.exists()


def test_any_number_of_processes_gives_the_same_bytes(tmp_path):
    source = images(tmp_path / "images", ((40, 40),) * 5)
    for workers in (1, 2):
        out = tmp_path / f"{workers}.lmdb"
        command = [
            sys.executable,
            "-m",
            "basicsr_ext",
            "prepare",
            "-i",
            source,
            "-o",
            out,
            *CUT,
            "--workers",
            str(workers),
        ]
        assert subprocess.run(command, capture_output=True, timeout=120).returncode == 0
    assert content(tmp_path / "1.lmdb") == content(tmp_path / "2.lmdb")


def test_a_complete_output_is_left_alone_and_one_of_other_settings_is_refused(tmp_path, capsys):
    source, out = images(tmp_path / "images"), tmp_path / "crops.lmdb"
    words = ["prepare", "-i", str(source), "-o", str(out), "--crop", "16", "--workers", "1"]
    assert main(words) == 0
    before = content(out)
    code, said, _ = run(capsys, *words)
    assert code == 0 and said.endswith("crops.lmdb is complete: 15 crops\n") and content(out) == before
    code, _, error = run(capsys, *words, "--step", "8")
    assert code == 2 and "was made otherwise: step was 16 and is 8; remove it, or choose another output" in error
    images(tmp_path / "more" / "images", ((16, 16),))
    code, _, error = run(capsys, *words, "-i", str(tmp_path / "more" / "images"))
    assert code == 2 and "was made otherwise: the images are others" in error
    assert content(out) == before


@pytest.mark.parametrize(("words", "message"), [
    (["-i", "missing"], "-i is missing, which does not exist; give a folder of images"),
    (["-i", "empty"], "-i empty: no pictures there"),
    (["--crop", "33"], "is 32x52 (height x width), smaller than --crop 33; give --crop 32 or less"),
    (["--crop", "0"], "--crop is 0; give a whole number from 1"),
    (["--crop", "8", "--step", "0"], "--step is 0; give a whole number from 1"),
    (["--step", "8"], "--step is 8 without --crop"),
    (["--threshold", "-1"], "--threshold is -1; give a whole number from 0"),
    (["--compression", "10"], "--compression is 10; give a whole number from 0 to 9"),
    (["-o", "crops"], "-o is crops; for --to lmdb give a name that ends in .lmdb"),
    (["-o", "there.lmdb"], "-o there.lmdb is there already and was not made by this command"),
    (["-i", "broken"], "a.png: is cut short"),
    (["-i", "text"], "a.png: cannot be read as an image"),
    (["-i", "dots"], "BasicSR finds no key with a dot"),
    (["-i", "double"], "would both become a; rename one"),
    (["-i", "deep", "--to", "raw"], "has 1 channel(s) of uint16, but raw crops are grey or RGB with 8 bits"),
])  # fmt: skip
def test_bad_input_is_named(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    source = images(tmp_path / "images", ((32, 52),))
    whole = (source / "0.png").read_bytes()
    (tmp_path / "there.lmdb").mkdir()
    images(tmp_path / "deep", ((20, 30),), 1, np.uint16)
    for folder, files in {"empty": {}, "broken": {"a.png": whole[:-12]}, "text": {"a.png": b"text"},
                          "dots": {"a.b.png": whole}, "double": {"a.png": whole, "a.jpg": whole}}.items():  # fmt: skip
        (tmp_path / folder).mkdir()
        for name, data in files.items():
            (tmp_path / folder / name).write_bytes(data)
    code, _, error = run(capsys, "prepare", "-i", "images", "-o", "out.lmdb", "--workers", "1", *words)
    assert code == 2 and message in error and "Traceback" not in error
    assert not (tmp_path / "out.lmdb").exists()


def test_small_images_are_left_out_on_request(tmp_path):
    source, out = images(tmp_path / "images"), tmp_path / "crops.lmdb"
    assert pack.prepare(source, out, "lmdb", Cutting(32, 32, skip_small=True), workers=1) == 4
    with pytest.raises(InputError, match="--crop 64"):
        pack.prepare(source, tmp_path / "no.lmdb", "lmdb", Cutting(64, 64, skip_small=True), workers=1)
    with pytest.raises(InputError, match="--crop 64"):  # and leaves no list behind
        pack.prepare(source, tmp_path / "no", "folder", Cutting(64, 64, skip_small=True), workers=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crops.lmdb", "images"]


def test_what_headers_tell_is_refused_all_at_once_before_anything_is_written(tmp_path, capsys):
    source = images(tmp_path / "images", ((40, 40), (8, 40), (40, 9)))
    (source / "3.png").write_bytes(b"text")
    words = ["prepare", "-i", str(source), "-o", str(tmp_path / "out"), "--to", "folder", "--workers", "1", "--crop"]
    code, _, said = run(capsys, *words, "16")
    assert code == 2 and "3 of 4 images:" in said and "1.png: is 8x40" in said and "2.png: is 40x9" in said
    assert "3.png: cannot be read" in said and os.listdir(tmp_path) == ["images"]
    (source / "3.png").unlink()
    assert run(capsys, *words, "16", "--skip_small")[0] == 0, "the cure that is named works"


def test_images_that_changed_without_another_size_are_said(tmp_path, capsys):
    source, out = images(tmp_path / "images"), tmp_path / "crops"
    words = ["prepare", "-i", str(source), "-o", str(out), "--to", "folder", "--workers", "1"]
    assert run(capsys, *words)[0] == 0 and "newer" not in run(capsys, *words)[1]
    later = os.path.getmtime(out / ".prepare.json") + 1
    os.utime(source / "1.png", (later, later))
    assert f"note: 1 image(s) are newer than their crops in {out} (1.png)" in run(capsys, *words)[1]


@pytest.mark.parametrize("kind", ["lmdb", "folder"])
def test_a_run_that_ends_just_before_its_end_comes_to_it(tmp_path, monkeypatch, kind):
    source, out = images(tmp_path / "images"), tmp_path / ("crops.lmdb" if kind == "lmdb" else "crops")
    replace, arguments = os.replace, (source, out, kind, Cutting())

    def killed(place, target):
        if str(target) == str(out):
            raise KeyboardInterrupt
        replace(place, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        pack.prepare(*arguments, workers=1)
    monkeypatch.setattr(os, "replace", replace)
    assert pack.prepare(*arguments, workers=1) == 3 and not out.with_name(f"{out.name}.part").exists()


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
from basicsr_ext.cli import main
from basicsr_ext.commands import prepare
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name == "nt", reason="needs resource limits")
@pytest.mark.parametrize("kind", ["lmdb", "folder"])
def test_a_full_disk_is_named_and_the_same_command_goes_on(tmp_path, kind):
    source = images(tmp_path / "images", ((160, 160),) * 8)
    out = tmp_path / ("crops.lmdb" if kind == "lmdb" else "crops")
    words = ["prepare", "-i", str(source), "-o", str(out), "--to", kind, "--workers", "1"]
    child = subprocess.run([sys.executable, "-c", FULL, *words], capture_output=True, text=True, timeout=120)
    assert child.returncode == 2, child.stderr
    assert f"{out}.part" in child.stderr and "Traceback" not in child.stderr
    assert "free some space" in child.stderr and "give the same command again" in child.stderr
    assert not out.exists()
    assert main(words) == 0
    assert json.loads((out / ".prepare.json").read_text())["crops"] == 8


def test_an_image_whose_crops_cannot_be_saved_is_listed_alone(tmp_path, monkeypatch, capsys):
    source = images(tmp_path / "images", ((20, 20),) * 2)
    (source / "0.png").rename(source / f"{'y' * 251}.png")
    monkeypatch.chdir(tmp_path)
    words = ["prepare", "-i", "images", "-o", "crops", "--to", "folder", "--crop", "16", "--workers", "1"]
    for _ in range(2):  # the second time it is there already
        assert main(words) == 1
        said = capsys.readouterr().err
        assert "not packed: images/yyy" in said and "File name too long" in said and "shorten its name" in said
    assert sorted(path.name for path in (tmp_path / "crops").glob("*.png")) == [f"1_s00{k}.png" for k in (1, 2, 3, 4)]
    assert main([*words[:-4], "--workers", "1", "-o", "whole"]) == 0, "a whole name fits"


def test_the_output_may_lie_below_the_input_and_names_be_any_bytes(tmp_path, monkeypatch, capsys):
    source = images(tmp_path / "images", ((20, 20),))
    (source / "0.png").rename(source / os.fsdecode(b"caf\xe9.png"))
    monkeypatch.chdir(tmp_path)
    words = ["prepare", "-i", "images", "-o", "images/crops", "--to", "folder", "--workers", "1"]
    assert main(words) == main(words) == 0
    assert "1 pictures; left out: 1 folder of the results (crops)" in capsys.readouterr().out
    assert listed_names(source / "crops_meta_info.txt", "list") == [os.fsdecode(b"caf\xe9.png")]


@pytest.mark.parametrize("place", ["out.part/mine.txt", "out.part", "out_meta_info.txt", "out"])
def test_what_others_made_is_never_replaced(tmp_path, place):
    mine = tmp_path / place
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(InputError, match=r"out\S* is there already"):
        pack.prepare(images(tmp_path / "in"), tmp_path / "out", "folder", Cutting())
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("output", [".", "..", "link"])
def test_an_output_that_is_there_is_refused_before_anything_is_read(tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(InputError, match=rf"-o (is )?{output}"):
        pack.prepare(images(tmp_path / "in"), output, "folder", Cutting())


@pytest.mark.parametrize(("name", "suffix"), [("x4", "x4"), ("a\nb", ""), (" a", "")])
def test_a_name_that_no_list_can_hold_is_refused(tmp_path, name, suffix):
    source = images(tmp_path / "in", sizes=((8, 8),))
    (source / "0.png").rename(source / f"{name}.png")
    with pytest.raises(InputError, match="rename it"):
        pack.prepare(source, tmp_path / "out.lmdb", "lmdb", Cutting(), suffix)
