import os
import unicodedata

import cv2
import lmdb
import numpy as np
import pytest
import tifffile
import torch

from basicsr_ext import repairs
from basicsr_ext.common.errors import InputError
from tests.support.basicsr_runs import write_images

repairs.apply()

from basicsr.data import data_util, degradations  # noqa: E402
from basicsr.data.single_image_dataset import SingleImageDataset  # noqa: E402
from basicsr.utils import FileClient, imfrombytes, imwrite, tensor2img  # noqa: E402

from basicsr_ext.repairs import images  # noqa: E402


@pytest.fixture
def warnings_said(monkeypatch):
    said = []
    monkeypatch.setattr(images, "_said", [False] * 3)
    monkeypatch.setattr(images, "get_root_logger", lambda: type("Log", (), {"warning": staticmethod(said.append)}))
    return said


def smooth(channels=3, dtype=np.uint8, size=64):
    ramp = np.linspace(0, np.iinfo(dtype).max, size * size * channels).reshape(size, size, channels)
    return ramp.astype(dtype)


def textured():
    return cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), (5, 5), 2)


def encoded(kind, image):
    return cv2.imencode(kind, image)[1].tobytes()


def read(path, **options):
    return imfrombytes(FileClient("disk").get(str(path)), **options)


@pytest.mark.parametrize("kind", [".png", ".jpg", ".bmp", ".webp"])
def test_whole_images_are_read_as_before(tmp_path, kind):
    path = tmp_path / f"a{kind}"
    path.write_bytes(encoded(kind, smooth()))
    for options in ({"float32": True}, {"flag": "grayscale"}, {"flag": "unchanged"}):
        expected = imfrombytes.unrepaired(path.read_bytes(), **options)
        found = read(path, **options)
        if options.get("flag") == "grayscale":  # made from the colours, which libpng and libjpeg round otherwise
            assert np.abs(found.astype(int) - expected).max() <= 2
        else:
            assert np.array_equal(found, expected) and found.dtype == expected.dtype
        assert np.array_equal(imfrombytes(path.read_bytes(), **options), found)


@pytest.mark.parametrize("kind", [".png", ".jpg"])
@pytest.mark.parametrize("share", [0.4, 0.9, 0.995])
def test_a_truncated_image_is_refused_by_name(tmp_path, kind, share):
    path = tmp_path / f"cut{kind}"
    whole = encoded(kind, textured())
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match=rf"cut\{kind}: is cut short"):
        read(path, float32=True)


def test_the_unrepaired_reader_does_not_name_a_damaged_file(tmp_path):
    (tmp_path / "a.png").write_bytes(b"this is a text")
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'astype'"):
        imfrombytes.unrepaired(FileClient("disk").get(str(tmp_path / "a.png")), float32=True)


@pytest.mark.parametrize("content", [b"this is a text", b"\x00" * 100, b"GIF89a"])
def test_what_is_no_image_is_refused_by_name(tmp_path, content):
    path = tmp_path / "notes.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"notes\.png: .*replace it"):
        read(path)


def test_an_empty_file_is_refused_by_name(tmp_path):
    (tmp_path / "e.png").touch()
    with pytest.raises(InputError, match=r"e\.png: the file is empty"):
        read(tmp_path / "e.png")


def test_a_thumbnail_and_a_tail_do_not_hide_or_fake_the_end_of_a_jpeg():
    whole = encoded(".jpg", smooth())
    thumbnail = b"\xff\xe1" + (2 + len(whole)).to_bytes(2, "big") + whole
    with_thumbnail = whole[:2] + thumbnail + whole[2:]
    assert np.array_equal(imfrombytes(with_thumbnail + b"tail of a camera"), imfrombytes(whole))
    for cut in (with_thumbnail[:-2], whole[:20]):
        with pytest.raises(InputError, match="image: "):
            imfrombytes(cut)


def test_lmdb_errors_name_the_data_base_and_the_key(tmp_path):
    path = tmp_path / "data.lmdb"
    with lmdb.open(str(path)) as env, env.begin(write=True) as txn:
        txn.put(b"good", encoded(".png", smooth()))
        txn.put(b"bad", b"text")
    client = FileClient("lmdb", db_paths=[str(path)], client_keys=["gt"])
    assert imfrombytes(client.get("good", "gt")).shape == (64, 64, 3)
    with pytest.raises(InputError, match=r"data\.lmdb key bad: "):
        imfrombytes(client.get("bad", "gt"))
    with pytest.raises(InputError, match=r"data\.lmdb key \u00e9 cannot be read: .*ascii"):
        client.get("\u00e9", "gt")
    with pytest.raises(InputError, match=r"no such image: .*data\.lmdb key none"):
        client.get("none", "gt")


class Keyed(torch.utils.data.Dataset):
    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 2

    def __getitem__(self, index):
        client = FileClient("lmdb", db_paths=[self.path], client_keys=["gt"])
        return float(imfrombytes(client.get(str(index), "gt")).mean())


def test_an_lmdb_is_read_by_two_data_sets_and_by_forked_workers(tmp_path):
    path = str(tmp_path / "data.lmdb")
    with lmdb.open(path) as env, env.begin(write=True) as txn:
        for k in range(2):
            txn.put(str(k).encode(), encoded(".png", np.full((4, 4, 3), k, np.uint8)))
    held = FileClient("lmdb", db_paths=[path], client_keys=["gt"])
    assert [Keyed(path)[0], Keyed(path)[1]] == [0.0, 1.0]
    workers = torch.utils.data.DataLoader(Keyed(path), num_workers=1, multiprocessing_context="fork")
    assert [float(v) for v in workers] == [0.0, 1.0]
    with pytest.raises(lmdb.Error, match="already open"):
        type(held.client).__init__.unrepaired(object.__new__(type(held.client)), [path], ["gt"])


def test_an_lmdb_that_is_cut_short_is_refused_however_often_it_is_opened(tmp_path):
    path = tmp_path / "data.lmdb"
    with lmdb.open(str(path)) as env, env.begin(write=True) as txn:
        for k in range(30):
            txn.put(str(k).encode(), encoded(".png", smooth()))
    content = (path / "data.mdb").read_bytes()
    (path / "data.mdb").write_bytes(content[: len(content) // 2])
    errors = []  # which keep what the frames hold
    for _ in range(3):
        with pytest.raises(InputError, match=r"data\.lmdb is truncated") as error:
            FileClient("lmdb", db_paths=[str(path)], client_keys=["gt"])
        errors.append(error)


def test_what_is_no_lmdb_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"cannot open the LMDB .*none\.lmdb"):
        FileClient("lmdb", db_paths=[str(tmp_path / "none.lmdb")], client_keys=["gt"])
    with pytest.raises(InputError, match=r"io_backend: 1 LMDB folders"):
        FileClient("lmdb", db_paths=[str(tmp_path)], client_keys=["gt", "lq"])


def test_lost_depth_and_alpha_are_said_once(tmp_path, warnings_said):
    deep, alpha = smooth(3, np.uint16), smooth(4)
    for name, image in (("deep1", deep), ("deep2", deep), ("alpha", alpha), ("plain", smooth())):
        (tmp_path / f"{name}.png").write_bytes(encoded(".png", image))
        assert read(tmp_path / f"{name}.png").shape == (64, 64, 3)
    assert len(warnings_said) == 2
    assert "deep1.png has 16 bits" in warnings_said[0] and "alpha.png has an alpha channel" in warnings_said[1]


def test_unchanged_reading_keeps_depth_and_says_nothing(tmp_path, warnings_said):
    (tmp_path / "d.png").write_bytes(encoded(".png", smooth(4, np.uint16)))
    image = read(tmp_path / "d.png", flag="unchanged")
    assert image.dtype == np.uint16 and image.shape[2] == 4 and warnings_said == []


def test_showing_an_image_leaves_its_tensor_alone(warnings_said):
    image = torch.full((3, 4, 4), 1.5)
    shown = tensor2img(image)
    assert shown.max() == 255 and image.eq(1.5).all() and warnings_said == []
    tensor2img.unrepaired(image)
    assert image.eq(1.0).all()


def test_values_that_are_no_numbers_are_said(warnings_said):
    tensor2img([torch.full((3, 4, 4), torch.nan)])
    assert "NaN" in warnings_said[0]


def test_a_fractional_jpeg_quality_is_rounded():
    image = smooth().astype(np.float32) / 255
    exact = degradations.add_jpg_compression(image, 80)
    assert np.array_equal(degradations.add_jpg_compression(image, 79.6), exact)
    assert np.array_equal(degradations.add_jpg_compression(image, np.float64(80.4)), exact)


def test_a_data_set_of_basicsr_names_the_damaged_file(tmp_path):
    from basicsr.data import build_dataset

    folder = write_images(tmp_path / "images", 2, 16)
    (folder / "001.png").write_bytes(b"no image")
    opt = {"type": "PairedImageDataset", "name": "x", "phase": "val", "scale": 1, "io_backend": {"type": "disk"}}
    dataset = build_dataset({**opt, "dataroot_gt": str(folder), "dataroot_lq": str(folder)})
    assert dataset[0]["gt"].shape == (3, 16, 16)
    with pytest.raises(InputError, match=r"images/001\.png: "):
        dataset[1]


def test_a_data_set_of_basicsr_finds_listed_names_with_spaces_behind_a_byte_order_mark(tmp_path):
    from basicsr.data import build_dataset

    folder = write_images(tmp_path / "images", 2, 16)
    (folder / "000.png").rename(folder / "my photo.png")
    (tmp_path / "list.txt").write_bytes("\ufeffmy photo.png (16,16,3)\r\n001.png\r\n".encode())
    opt = {"type": "PairedImageDataset", "name": "x", "phase": "val", "scale": 1, "io_backend": {"type": "disk"}}
    opt |= {"dataroot_gt": str(folder), "dataroot_lq": str(folder), "meta_info_file": str(tmp_path / "list.txt")}
    dataset = build_dataset(opt)
    assert [dataset[k]["lq_path"] for k in range(2)] == [str(folder / "my photo.png"), str(folder / "001.png")]


def test_listed_pairs_keep_their_sub_folders_and_any_form_of_letters(tmp_path):
    for side, names in (("gt", ("\u00e9", "sub/a", "sub/b")), ("lq", ("\u00e9x2", "sub/ax2", "bx2"))):
        for name in names:
            (tmp_path / side / "sub").mkdir(parents=True, exist_ok=True)
            (tmp_path / side / f"{name}.png").touch()
    (tmp_path / "list.txt").write_text("e\u0301.png\nsub/a.png\n./sub/b.png\n", encoding="utf-8")
    folders = [str(tmp_path / side) for side in ("lq", "gt")]
    pairs = data_util.paired_paths_from_meta_info_file(folders, ["lq", "gt"], str(tmp_path / "list.txt"), "{}x2")
    names = [[os.path.relpath(pair[f"{side}_path"], tmp_path) for side in ("lq", "gt")] for pair in pairs]
    wanted = [["\u00e9x2", "\u00e9"], ["sub/ax2", "sub/a"], ["bx2", "sub/b"]]
    assert names == [[f"lq/{lq}.png", f"gt/{gt}.png"] for lq, gt in wanted]


def test_keys_of_an_lmdb_are_read_from_any_list_of_them(tmp_path):
    for side, text in (("lq", "\ufeffa.png (8,8,3) 1\r\nb.c.png (8,8,3) 1\r\n"), ("gt", "b.c.png\na (8,8,3) 1\n")):
        (tmp_path / f"{side}.lmdb").mkdir()
        (tmp_path / f"{side}.lmdb/meta_info.txt").write_text(text, encoding="utf-8")
    folders = [str(tmp_path / f"{side}.lmdb") for side in ("lq", "gt")]
    pairs = data_util.paired_paths_from_lmdb(folders, ["lq", "gt"])
    assert pairs == [{"lq_path": key, "gt_path": key} for key in ("a", "b.c")]
    opt = {"dataroot_lq": folders[0], "io_backend": {"type": "lmdb"}}
    assert SingleImageDataset(opt).paths == ["a", "b.c"]
    (tmp_path / "gt.lmdb/meta_info.txt").write_text("a.png\nd.png\n")
    with pytest.raises(InputError, match=r"same keys, but only one has b\.c, d"):
        data_util.paired_paths_from_lmdb(folders, ["lq", "gt"])
    (tmp_path / "lq.lmdb/meta_info.txt").unlink()
    with pytest.raises(InputError, match=r"dataroot_lq: .*lq\.lmdb has no meta_info\.txt"):
        SingleImageDataset(opt)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line", ["my photo.png\r\n\r\n", "my photo.png (32,32,3)\n", "  my photo.png\n"])
def test_single_images_of_a_list_are_found(tmp_path, encoding, line):
    folder = write_images(tmp_path / "lq", 2, 32)
    (folder / "000.png").rename(folder / "my photo.png")
    (tmp_path / "list.txt").write_bytes(line.encode(encoding))
    opt = {"dataroot_lq": str(folder), "io_backend": {"type": "disk"}, "meta_info_file": str(tmp_path / "list.txt")}
    dataset = SingleImageDataset(opt)
    assert dataset.opt is opt and dataset.paths == [str(folder / "my photo.png")]
    assert dataset[0]["lq"].shape == (3, 32, 32)
    opt = {**opt, "io_backend": {"type": "disk"}, "meta_info_file": None}
    assert len(SingleImageDataset(opt)) == 2, "no list: all there are"


def test_pairs_of_folders_are_found_below_and_without_what_is_no_image(tmp_path):
    for side in ("lq", "gt"):
        write_images(tmp_path / side / "sub", 2, 32)
        (tmp_path / side / "notes.txt").write_text("")
    (tmp_path / "lq/sub/000.png").rename(tmp_path / "lq/sub/000x2.png")
    (tmp_path / "lq/sub/001.png").rename(tmp_path / "lq/sub/001x2.png")
    roots = [str(tmp_path / "lq"), str(tmp_path / "gt")]
    pairs = data_util.paired_paths_from_folder(roots, ["lq", "gt"], "{}x2")
    assert [pair["lq_path"].removeprefix(roots[0]) for pair in pairs] == ["/sub/000x2.png", "/sub/001x2.png"]
    (tmp_path / "gt/sub/001.png").rename(tmp_path / "gt/001.png")
    with pytest.raises(InputError, match=r"1 in dataroot_lq .*: sub/001x2\.png; 1 in dataroot_gt .*: 001\.png"):
        data_util.paired_paths_from_folder(roots, ["lq", "gt"], "{}x2")


def test_pairs_of_folders_are_found_whatever_the_form_of_their_letters(tmp_path):
    roots = [str(tmp_path / "lq"), str(tmp_path / "gt")]
    for root, form in zip(roots, ("NFD", "NFC")):
        write_images(tmp_path / root, 1, 16)
        (tmp_path / root / "000.png").rename(tmp_path / root / unicodedata.normalize(form, "caf\u00e9.png"))
    (pair,) = data_util.paired_paths_from_folder(roots, ["lq", "gt"], "{}")
    assert all(os.path.isfile(path) for path in pair.values())


def test_an_image_written_outside_of_a_validation_is_refused_by_name(tmp_path):
    (tmp_path / "full.png").mkdir()
    with pytest.raises(InputError, match=r"cannot save .*full\.png: Is a directory"):
        imwrite(smooth(), str(tmp_path / "full.png"))
    assert imwrite(smooth(), str(tmp_path / "new/a.png")) and (tmp_path / "new/a.png").is_file()


def test_frames_and_images_to_be_packed_are_read_as_all_others(tmp_path):
    from basicsr.data.data_util import read_img_seq
    from basicsr.utils.lmdb_util import make_lmdb_from_imgs
    from PIL import Image

    pixels = smooth(4, np.uint16)[:, :32]
    folder, exif = tmp_path / "frames", Image.Exif()
    folder.mkdir()
    exif[0x0112] = 6
    Image.fromarray(textured()[:, :40]).save(folder / "a.png", exif=exif)
    tifffile.imwrite(folder / "b.tif", pixels, photometric="rgb", extrasamples=["unassalpha"])
    for name, wanted in (("a.png", np.rot90(textured()[:, :40], -1)), ("b.tif", pixels[:, :, :3] >> 8)):
        frames, names = read_img_seq([str(folder / name)], require_mod_crop=True, scale=8, return_imgname=True)
        assert names == [name[0]] and np.array_equal((frames[0] * 255).round().permute(1, 2, 0).numpy(), wanted)
    make_lmdb_from_imgs(
        str(folder), str(tmp_path / "x.lmdb"), ["a.png", "b.tif"], ["a", "b"], multiprocessing_read=True, n_thread=1
    )
    with lmdb.open(str(tmp_path / "x.lmdb"), lock=False) as stored, stored.begin() as packed:
        content = {key: cv2.imdecode(np.frombuffer(packed.get(key), np.uint8), -1) for key in (b"a", b"b")}
    assert np.array_equal(content[b"a"][:, :, ::-1], np.rot90(textured()[:, :40], -1))
    assert np.array_equal(content[b"b"][:, :, [2, 1, 0, 3]], pixels)
    (folder / "c.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"frames/c\.png: cannot be read as an image"):
        read_img_seq(str(folder))
