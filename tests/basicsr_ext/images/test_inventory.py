"""One walker of folders: links, loops, brackets, hidden files and lists of names."""

import os
import tempfile

import pytest
from PIL import Image

from basicsr_ext import repairs
from basicsr_ext.common.errors import InputError
from basicsr_ext.images.inventory import images_below, images_of, listed_files, listed_names
from basicsr_ext.images.packing.crops import Cutting
from basicsr_ext.images.packing.pack import prepare
from basicsr_ext.restoring.files import find_jobs
from i2sb_plugin.data.image_source import ImageSource
from i2sb_plugin.degradations.masks import MaskFolder


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path, format="PNG")
    return path


@pytest.fixture
def folder(tmp_path):
    """Images by every kind of name, and what is none."""
    root = tmp_path / "in"
    for name in ("b.png", "a [1].png", "B.JPG", "sub/c.jpe", ".hidden.png", ".cache/d.png", "e.psd"):
        image(root / name)
    image(tmp_path / "elsewhere/real.png")
    (root / "notes.txt").write_text("")
    (root / "link.png").symlink_to("b.png")
    (root / "far").symlink_to(tmp_path / "elsewhere")
    (root / "broken.png").symlink_to("nowhere.png")
    (root / "sub/loop").symlink_to(root)
    (root / "again").symlink_to("sub")
    (root / "itself").symlink_to("itself")
    return root


NAMES = ["B.JPG", "a [1].png", "b.png", "far/real.png", "link.png", "sub/c.jpe"]


def test_links_are_followed_once_and_keep_their_names(folder):
    there = images_below(folder)
    assert [str(name) for _, name in there.files] == NAMES
    reasons = dict(there.left_out)
    assert set(reasons) == {"again", "broken.png", "e.psd", "itself", "sub/loop"}
    assert "broken link" in reasons["broken.png"] and "already" in reasons["sub/loop"]
    assert str(there).startswith("6 pictures; left out: ")
    assert "1 broken link (broken.png)" in str(there)


def test_pictures_of_kinds_that_are_not_read_are_said_and_other_files_are_not(tmp_path):
    for name in ("a.CR2", "b.pfm", "c.apng", "d", "e.mp4", "f.txt", "g.db"):
        image(tmp_path / name)
    assert images_below(tmp_path).left_out == [
        (name, "of a kind that is not read") for name in ("a.CR2", "b.pfm", "c.apng", "d", "e.mp4")
    ]


def test_all_who_read_folders_find_the_same(folder, tmp_path, capsys):
    assert ImageSource(str(folder), "dataroot_gt").names == NAMES
    said = []
    jobs = find_jobs([str(folder)], tmp_path / "out", say=said.append)
    assert [str(job.name) for job in jobs] == NAMES
    assert said[0].startswith("6 pictures; left out: ") and "broken.png" in said[0]
    prepare(folder, tmp_path / "packed", "folder", Cutting(), workers=1)
    packed = sorted(str(p.relative_to(tmp_path / "packed")) for p in (tmp_path / "packed").rglob("*.png"))
    assert packed == sorted(os.path.splitext(name)[0] + ".png" for name in NAMES)
    assert "broken.png" in capsys.readouterr().out
    assert MaskFolder(str(folder)).paths == [folder / name for name in NAMES]
    repairs.apply()
    from basicsr.data.data_util import paired_paths_from_folder
    from basicsr.data.single_image_dataset import SingleImageDataset

    pairs = paired_paths_from_folder([str(folder), str(folder)], ["lq", "gt"], "{}")
    single = SingleImageDataset({"dataroot_lq": str(folder), "io_backend": {"type": "disk"}}).paths
    assert [pair["lq_path"] for pair in pairs] == single == [str(folder / name) for name in NAMES]
    assert single.left_out == pairs.left_out[:1] and single.left_out[0].startswith("dataroot_lq: 6 pictures; left out")


@pytest.mark.parametrize("name", ["a.mp4", "a.CR2", "a.apng", "a.hif", "a"])
def test_pictures_of_a_kind_that_is_not_read_are_counted(folder, name):
    (folder / name).touch()
    assert (name, "of a kind that is not read") in images_below(folder).left_out


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_forbidden_folder_is_named(folder):
    (folder / "sub").chmod(0)
    try:
        assert "Permission denied" in dict(images_below(folder).left_out)["sub"]
    finally:
        (folder / "sub").chmod(0o755)


@pytest.fixture
def nobody():
    """The rights of nobody, where the tests have those of the superuser."""
    if os.name == "nt" or os.geteuid() != 0:
        pytest.skip("needs the superuser, who can become another")
    yield lambda: os.seteuid(65534)
    os.seteuid(0)


def test_what_nobody_may_read_is_named_and_never_a_traceback(folder, tmp_path, nobody):
    for place in (tmp_path, *tmp_path.parents):
        if str(place) in (tempfile.gettempdir(), "/"):
            break
        place.chmod(0o755)
    (folder / "sub").chmod(0)
    nobody()
    for inputs in (str(folder), f"{folder}/*/*", str(folder / "sub")):
        assert "that cannot be read: Permission denied" in str(images_of([inputs], folder / "sub/out"))
    with pytest.raises(InputError, match=r"-i .*sub/c\.jpe: cannot be read \(Permission denied\)"):
        images_of([str(folder / "sub/c.jpe")])
    assert find_jobs([str(folder)], folder / "sub/out.png/deep")
    with pytest.raises(InputError, match="-i .*sub/c"):
        prepare(folder / "sub/c", folder / "sub/out", "folder", Cutting())


@pytest.mark.parametrize(("pattern", "names"), [
    ("Images [2024]/*.png", ["a.png", "img [1].png"]),
    ("Images [2024]/img [1].png", ["img [1].png"]),
    ("Images [2024]/**", ["a.png", "img [1].png", "sub/q.png"]),
    ("Images [[]2024]/a*.png", ["Images [2024]/a.png"]),
    ("Images [2024]/*/q.png", ["sub/q.png"]),
    ("Images ?/*.png", ["Images 2/a.png"]),
    ("Images [0-9]/*.png", ["Images 2/a.png"]),
])  # fmt: skip
def test_brackets_are_literal_where_such_a_path_exists(tmp_path, pattern, names):
    for name in ("Images [2024]/a.png", "Images [2024]/img [1].png", "Images [2024]/sub/q.png", "Images 2/a.png",
                 "Images [2024]/.hidden.png"):  # fmt: skip
        image(tmp_path / name)
    found = images_of([str(tmp_path / pattern)])
    assert [str(name) for _, name in found.files] == names


def test_each_input_counts_once_by_its_own_name(tmp_path):
    image(tmp_path / "in/a.png")
    (tmp_path / "in/b.png").symlink_to("a.png")
    inputs = [str(tmp_path / "in/a.png"), str(tmp_path / "in"), str(tmp_path / "in/../in/a.png"), f"{tmp_path}/in/*"]
    assert [path.name for path, _ in images_of(inputs).files] == ["a.png", "b.png"]


def test_results_below_the_input_are_left_out_but_not_an_input_below_the_results(tmp_path):
    image(tmp_path / "in/a.png")
    image(tmp_path / "in/out/a.png")
    there = images_of([str(tmp_path / "in")], tmp_path / "in/out")
    assert [str(name) for _, name in there.files] == ["a.png"] and there.left_out == [("out", "folder of the results")]
    assert len(images_of([str(tmp_path / "in")], tmp_path).files) == 2


@pytest.mark.parametrize("text", ["", "none.png", "broken.png", "pipe"])
def test_what_is_no_input_is_named(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    image(tmp_path / "a.png")
    (tmp_path / "broken.png").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=f"-i {text or repr(text)}: "):
        images_of([text])


@pytest.mark.parametrize(("line", "name"), [
    ("my photo.png", "my photo.png"), ("my photo.png (64,64,3)", "my photo.png"), ("b.png (64, 64, 3)", "b.png"),
    ("c (1).png", "c (1).png"), ("c (1).png (64,64,3) 1", "c (1).png"), ("b.png\tfoo", "b.png"), ("key 1", "key"),
    ("#hash.png (64,64,3)", "#hash.png"), ("  b.png  ", "b.png"), ("my photo.png (64,64)", "my photo.png"),
    ("c (1,2,3).png", "c (1,2,3).png"), ("c (1,2,3).png (64,64,3)", "c (1,2,3).png"), ("my key (64,64,3)", "my key"),
    ("my photo.png 64 64 3", "my photo.png"), ("c (1,2,3).PNG (64x64)", "c (1,2,3).PNG"), ("\ufeffb.png", "b.png"),
])  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_names_of_a_list(tmp_path, line, name, encoding, end):
    path = tmp_path / "list.txt"
    path.write_bytes((line + end + end + "z.png" + end).encode(encoding))
    assert listed_names(path, "meta_info_file") == [name, "z.png"]


@pytest.mark.parametrize("line", ["./b.png", "{root}/b.png", "../in/b.png", "sub/..//b.png"])
def test_a_listed_path_is_the_name_below_the_folder(folder, tmp_path, line):
    (tmp_path / "list.txt").write_text(line.format(root=folder) + "\nnone.png\n")
    assert listed_files(folder, tmp_path / "list.txt", "meta_info_file") == ["b.png", "none.png"]


def test_a_list_in_another_encoding_is_named(tmp_path):
    (tmp_path / "list.txt").write_text("b.png\n", encoding="utf-16")
    with pytest.raises(InputError, match=r"meta_info_file: .*list\.txt cannot be read.*UTF-8"):
        listed_names(tmp_path / "list.txt", "meta_info_file")
