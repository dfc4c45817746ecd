"""Every kind of bad file is named, in every data set and at every door; no path in an option runs anything."""

import copy
import re

import lmdb
import pytest
from PIL import Image

from basicsr_ext import repairs
from basicsr_ext.common import plugins
from basicsr_ext.preflight.data import check_dataset
from basicsr_ext.preflight.every_image import data_faults
from studies.reliability.inputs.fuzz_images import bomb
from studies.reliability.inputs.pickles import Attack, torch_file
from studies.reliability.inputs.zoo_files import pil
from tests.support.cli_runs import bridge_options, options, run, write

repairs.apply()
plugins.load_entry_points()


def spoilt(content: bytes) -> bytes:
    """Overwrite the image data of a PNG."""
    middle = len(content) // 2
    return content[:middle] + bytes(200) + content[middle + 200 :]


PHOTO = Image.effect_noise((50, 37), 60).convert("RGB")
GOOD, PIXEL = pil(PHOTO, "PNG"), pil(PHOTO.resize((1, 1)), "PNG")
SOUND = {
    "good.png": GOOD,
    "palette.png": pil(PHOTO.quantize(60), "PNG"),
    "print.jpg": pil(PHOTO.convert("CMYK"), "JPEG"),
}
BAD = {  # name -> content, what the message says
    "corrupt.png": (spoilt(GOOD), "damaged"),
    "truncated.png": (GOOD[: len(GOOD) // 2], "cut short|truncated"),
    "cut.jpg": (pil(PHOTO, "JPEG")[:700], "cut short|truncated"),
    "empty.png": (b"", "is empty"),
    "text.png": (b"no image at all", "not an image|cannot be read as an image"),
    "bomb.png": (bomb(60_000, 60_000), "60000x60000 .* more than 178,956,970 pixels"),
    "animated.png": (pil(PHOTO, "PNG", save_all=True, append_images=[PHOTO.rotate(180)]), r"an animation \(APNG\)"),
    "cmyk.tif": (pil(PHOTO.convert("CMYK"), "TIFF"), "CMYK"),
}


def block_of(kind: str, root: str, **more: object) -> dict:
    common = {
        "name": "x",
        "type": kind,
        "phase": "val",
        "scale": 1,
        "dataroot_gt": root,
        "io_backend": {"type": "disk"},
    }
    if kind == "PairedDegradationDataset":
        return common | {"degradation": {"type": "noise_gauss"}} | more
    return common | {"dataroot_lq": root} | more


KINDS = pytest.mark.parametrize("kind", ["PairedImageDataset", "PairedFolderDataset", "PairedDegradationDataset"])


@KINDS
def test_each_bad_file_is_named_once_and_the_others_are_read(kind, tmp_path):
    sound = {**SOUND, "pixel.png": PIXEL}
    for name, content in [*sound.items(), *((name, content) for name, (content, _) in BAD.items())]:
        (tmp_path / name).write_bytes(content)
    count, faults = data_faults("datasets.val", block_of(kind, str(tmp_path)), 0)
    assert count == len(sound) + len(BAD)
    assert len(faults) == len(BAD)
    for name, (_, words) in BAD.items():
        (fault,) = [fault for fault in faults if str(tmp_path / name) in fault]
        assert re.search(words, fault), fault


@KINDS
def test_a_pixel_is_too_small_for_a_crop_and_named_before_the_start(kind, tmp_path):
    (tmp_path / "pixel.png").write_bytes(PIXEL)
    block = block_of(kind, str(tmp_path), phase="train", gt_size=16, use_hflip=False, use_rot=False)
    faults = []
    check_dataset("datasets.train", block, faults, [])
    assert len(faults) == 1
    assert re.search(r"pixel\.png.*1x1|pixel\.png.*smaller|smaller.*pixel\.png", faults[0]), faults


def database(folder, keys, listed):
    """An LMDB of BasicSR's layout that lists more images than it holds."""
    with lmdb.open(str(folder), map_size=1 << 22) as environment, environment.begin(write=True) as writer:
        for key in keys:
            writer.put(key.encode(), GOOD)
    (folder / "meta_info.txt").write_text("".join(f"{key}.png (37,50,3) 1\n" for key in listed))
    return str(folder)


@KINDS
def test_a_key_that_an_lmdb_lacks_is_named(kind, tmp_path):
    root = database(tmp_path / "gt.lmdb", ["a", "b"], ["a", "b", "gone"])
    count, faults = data_faults("datasets.val", block_of(kind, root, io_backend={"type": "lmdb"}), 0)
    assert count == 3
    assert len(faults) == 1
    assert root in faults[0] and "gone" in faults[0] and "again" in faults[0]


@KINDS
def test_an_lmdb_with_half_its_pages_is_named(kind, tmp_path):
    root = database(tmp_path / "gt.lmdb", [str(k) for k in range(30)], [str(k) for k in range(30)])
    content = (tmp_path / "gt.lmdb" / "data.mdb").read_bytes()
    (tmp_path / "gt.lmdb" / "data.mdb").write_bytes(content[: len(content) // 2])
    faults = []
    check_dataset("datasets.val", block_of(kind, root, io_backend={"type": "lmdb"}), faults, [])
    assert faults
    assert f"{root} is truncated" in faults[0] and "copy or write it again" in faults[0]


@KINDS
@pytest.mark.parametrize("listed", ["good.png (37,50,3)\nfolder/gone.png (37,50,3)\n", None])
def test_a_list_with_a_wrong_path_or_at_one_is_named(kind, listed, tmp_path):
    (tmp_path / "gt").mkdir()
    (tmp_path / "gt" / "good.png").write_bytes(GOOD)
    listing = tmp_path / "list.txt"
    if listed is not None:
        listing.write_text(listed)
    faults = []
    check_dataset("datasets.val", block_of(kind, str(tmp_path / "gt"), meta_info_file=str(listing)), faults, [])
    assert len(faults) == 1
    assert ("gone.png" if listed else str(listing)) in faults[0]


# ---- paths in options


def leaves(tree, path=()):
    """Every place of a value in nested options."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from leaves(value, (*path, key))


def changed(opt, path, value):
    opt = copy.deepcopy(opt)
    block = opt
    for key in path[:-1]:
        block = block[key]
    block[path[-1]] = value
    return opt


EXTRAS = {
    ("path", "experiments_root"), ("path", "results_root"), ("path", "pretrain_network_g"), ("path", "resume_state"),
    ("datasets", "train", "meta_info_file"), ("datasets", "val", "meta_info_file"), ("network_g", "load_path"),
    ("train", "perceptual_opt"), ("logger", "wandb"), ("datasets", "val", "degradation", "masks"),
}  # fmt: skip


@pytest.mark.parametrize("make", [pytest.param(options, marks=pytest.mark.slow), bridge_options])
def test_no_path_in_an_option_runs_code(make, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    opt = make(tmp_path)
    mark = tmp_path / "it-ran"
    program = tmp_path / f"program_of_{make.__name__}.py"  # a module is imported once in a process
    program.write_text(f"#!/usr/bin/env python\nimport os\nos.mkdir({str(mark)!r})\ndef register(): pass\n")
    program.chmod(0o755)
    (tmp_path / "weights.pth").write_bytes(torch_file({"params": Attack(mark)}))
    values = [str(program), str(tmp_path / "weights.pth"), f"$(mkdir {mark})"]
    places = [path for path in leaves(opt) if path != ("plugins",)]
    places += [path for path in EXTRAS if isinstance(_block(opt, path[:-1]), dict)]
    codes = set()
    for number, path in enumerate(places):
        leads_to_a_file = re.search("root|path|pretrain|resume|meta_info|masks", ".".join(map(str, path)))
        for value in values if leads_to_a_file else values[number % len(values) :][:1]:
            codes.add(run(capsys, "check", "-opt", write(tmp_path, changed(opt, path, value)))[0])
            assert not mark.exists(), (path, value)
    assert codes == {0, 2}
    run(capsys, "check", "-opt", write(tmp_path, {**opt, "plugins": [str(program)]}))
    assert mark.exists()


def _block(opt, path):
    for key in path:
        opt = opt.get(key, {}) if isinstance(opt, dict) else None
    return opt or None
