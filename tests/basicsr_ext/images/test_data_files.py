"""Data that are no pictures: read as they are stored, refused by name, written as they came."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import tifffile
import torch

from basicsr_ext.common.errors import InputError
from basicsr_ext.common.option_blocks import parse_block, read_block
from basicsr_ext.images.content import FileContent
from basicsr_ext.images.data_files import data_shape, encode_data
from basicsr_ext.images.decode import decode_pixels, read_pixels, to_tensor
from basicsr_ext.images.headers import image_header
from basicsr_ext.images.inventory import DATA_EXTENSIONS, images_below
from basicsr_ext.images.pictures import network_planes, read_picture, with_planes, write_picture
from basicsr_ext.images.values import Values

KINDS = ("uint8", "uint16", "int16", "int32", "float16", "float32", "float64")


def values(**given):
    if not {"range", "mean", "percentiles"} & given.keys():
        given["mean"], given["std"] = 0.0, 1.0
    return read_block(Values, given, "data")


def numbers(kind="float32", channels=2, height=7, width=5, seed=0):
    found = np.random.default_rng(seed).normal(0, 50, (height, width, channels))
    if np.dtype(kind).kind == "u":
        found = np.abs(found)
    return found.astype(kind)


def npy(array, **how):
    buffer = io.BytesIO()
    np.save(buffer, array, **how)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("extension", ["npy", "npz", "tif"])
@pytest.mark.parametrize("channels, axes", [(1, "HWC"), (2, "HWC"), (5, "CHW"), (3, "CHW")])
def test_what_is_written_is_read_again_to_the_last_bit(tmp_path, kind, extension, channels, axes):
    what, stored, path = values(dtype=kind, axes=axes), numbers(kind, channels), tmp_path / f"a.{extension}"
    path.write_bytes(encode_data(stored, extension, what))
    picture = read_picture(path, what)
    write_picture(tmp_path / f"b.{extension}", picture)
    again = decode_pixels((tmp_path / f"b.{extension}").read_bytes(), "b", what)
    assert again.dtype == np.dtype(kind) and np.array_equal(again, stored)
    assert image_header(path, what)[:3] == stored.shape
    if extension == "npy":
        shape = stored.shape if axes == "HWC" else (channels, 7, 5)
        assert np.load(path).shape == (shape if channels > 1 else (7, 5))


def test_other_layouts_are_read_as_they_are_meant(tmp_path):
    stored = numbers(channels=3)
    for given in (np.asfortranarray(stored), stored.astype(">f4"), stored[::-1, ::-1].copy()[::-1, ::-1]):
        assert np.array_equal(decode_pixels(npy(given), "a.npy", values()), stored)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.moveaxis(stored, 2, 0))  # a page for each channel, as it writes by itself
    assert np.array_equal(decode_pixels(buffer.getvalue(), "a.tif", values()), stored)
    for more in ({"planarconfig": "separate"}, {"compression": "lzw", "byteorder": ">"}):
        buffer = io.BytesIO()
        given = np.moveaxis(stored, 2, 0) if "planarconfig" in more else stored[:, :, 0]
        tifffile.imwrite(buffer, given, photometric="minisblack", **more)
        wanted = stored if "planarconfig" in more else stored[:, :, :1]
        assert np.array_equal(decode_pixels(buffer.getvalue(), "a.tif", values()), wanted)
    several = io.BytesIO()
    np.savez(several, noise=stored, image=stored + 1)
    assert np.array_equal(decode_pixels(several.getvalue(), "a.npz", values(key="image")), stored + 1)


class Evil:
    def __reduce__(self):
        return os.abort, ()  # whoever unpickles it ends at once


def _objects():
    return npy(np.array([[Evil()]], object), allow_pickle=True)


def _archive(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _bad():
    plain = numbers(channels=1)[:, :, 0]
    nan, infinite = plain.copy(), plain.copy()
    nan[3, 2], infinite[0, 0] = np.nan, -np.inf
    truncated, empty_zip = npy(plain)[:-9], io.BytesIO()
    zipfile.ZipFile(empty_zip, "w").writestr("readme.txt", "none")
    volume, palette = io.BytesIO(), io.BytesIO()
    tifffile.imwrite(volume, numbers(channels=1)[:, :, 0], photometric="minisblack")
    tifffile.imwrite(palette, plain.astype(np.uint8), photometric="palette", colormap=np.zeros((3, 256), np.uint16))
    two = io.BytesIO()
    with tifffile.TiffWriter(two) as writer:
        writer.write(plain)
        writer.write(plain[:4])
    return {
        "nan": (npy(nan), {}, r"holds 1 number\(s\) that are NaN or infinite, the first at \[3, 2, 0\]"),
        "infinity": (npy(infinite), {}, "NaN or infinite"),
        "one axis": (npy(plain[0]), {}, r"has 1 axes, \(5,\); give height x width"),
        "four axes": (npy(plain[None, None]), {}, r"has 4 axes.*data.axes: HWC; cut a volume into its slices"),
        "no pixels": (npy(plain[:0]), {}, "has no pixels"),
        "objects": (_objects(), {}, "holds pickled objects, which are refused: unpickling can run code"),
        "a bare pickle": (pickle.dumps(plain), {}, r"holds .* bytes.*\.npy, \.npz, \.tif, \.tiff are read"),
        "objects in npz": (_archive(a=np.array([Evil()], object)), {}, "holds pickled objects"),
        "complex": (npy(plain.astype(np.complex64)), {}, "complex64.*real and the imaginary part as two channels"),
        "text": (npy(np.array(["a"])), {}, "no numbers"),
        "bool": (npy(plain > 0), {}, "holds bool, no numbers"),
        "double": (
            npy(plain.astype(np.float64)),
            {},
            "holds float64, but data.dtype is float32; set data.dtype: float64",
        ),
        "short": (npy(plain.astype(np.int16)), {"dtype": "uint16"}, "holds int16, but data.dtype is uint16"),
        "several": (_archive(a=plain, b=plain), {}, "holds 2 arrays; set data.key to one of a, b"),
        "no such key": (_archive(a=plain), {"key": "c"}, "has no array 'c'; set data.key to one of a"),
        "no arrays": (empty_zip.getvalue(), {}, "zip archive without arrays"),
        "truncated": (truncated, {}, "is cut short"),
        "truncated zip": (_archive(a=plain)[:-30], {}, "is damaged"),
        "outside": (npy(plain), {"range": (0.0, 1.0)}, r"but data.range is \[0.0, 1.0\]; widen the range"),
        "palette": (palette.getvalue(), {"dtype": "uint8"}, "holds a palette"),
        "pages": (two.getvalue(), {}, "holds 2 pages of several channels or sizes"),
        "float tiff": (volume.getvalue(), {"dtype": "int16"}, "holds float32, but data.dtype is int16"),
        "broken tiff": (volume.getvalue()[:40], {}, "is damaged|is cut short"),
        "empty": (b"", {}, "the file is empty"),
        "huge": (npy(plain).replace(b"(7, 5)", b"(70000000, 5)"[:6]), {}, "is damaged|cut short|axes"),
    }


@pytest.mark.parametrize("name", _bad())
def test_what_cannot_be_used_is_refused_by_name(tmp_path, name):
    content, given, said = _bad()[name]
    path = tmp_path / "bad.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as refused:
        read_picture(path, values(**given))
    assert str(refused.value).startswith(str(path))
    if name not in ("nan", "infinity", "outside"):  # which headers do not tell
        with pytest.raises(InputError, match=said), path.open("rb") as file:
            data_shape(FileContent(file), str(path), values(**given)) if content else image_header(
                path, values(**given)
            )


@pytest.mark.parametrize("size", range(0, 160, 7))
def test_no_cut_file_is_read(tmp_path, size):
    for content in (npy(numbers()), _archive(a=numbers()), encode_data(numbers(), "tif", values())):
        with pytest.raises(InputError, match=r"^x: "):
            decode_pixels(content[:size], "x", values())


def test_pictures_and_data_are_not_taken_for_each_other(tmp_path):
    from PIL import Image

    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", numbers())
    np.savez(tmp_path / "c.npz", numbers())
    with pytest.raises(InputError, match=r"a\.png: is a PNG, a picture; data: asks for numbers"):
        read_picture(tmp_path / "a.png", values())
    for name in ("b.npy", "c.npz"):
        with pytest.raises(InputError, match=rf"{name}: is an array of numbers, no picture; say in a block data:"):
            read_pixels(tmp_path / name)
    found = images_below(tmp_path, extensions=DATA_EXTENSIONS)
    assert [str(name) for _, name in found.files] == ["b.npy", "c.npz"] and found.left_out[0][0] == "a.png"
    assert [str(name) for _, name in images_below(tmp_path).files] == ["a.png"]


@pytest.mark.parametrize(
    "given, low, high",
    [
        ({"range": (-2.0, 6.0)}, [-2, -2], [6, 6]),
        ({"mean": 1.0, "std": 2.0}, [-3, -3], [5, 5]),
        ({"mean": (1.0, 2.0), "std": (1.0, 0.5)}, [-1, 1], [3, 3]),
        ({"percentiles": (1.0, 99.0), "low": (0.0, -4.0), "high": (1.0, 4.0)}, [0, -4], [1, 4]),
    ],
)
def test_the_interval_becomes_zero_to_one_and_comes_back(given, low, high):
    what = values(**given)
    assert [end.tolist() for end in what.interval(2)] == [low, high]
    ends = np.array([[low, high]], np.float32)  # 1,2,C
    unit = to_tensor(ends, what)
    assert unit.dtype == torch.float32 and torch.equal(unit, torch.tensor([[[0.0, 1.0]], [[0.0, 1.0]]]))
    beyond = torch.tensor([[[-0.5, 2.0]], [[-0.5, 2.0]]])
    back = what.from_unit(beyond)[0]
    width = np.subtract(high, low)
    wanted = (low, high) if what.bounded else (low - 0.5 * width, low + 2.0 * width)
    assert np.allclose(back, wanted)
    assert np.array_equal(what.to_measure(ends)[0], [[0, 0], [255, 255]])


@pytest.mark.parametrize("kind", ["int16", "uint16", "uint8"])
def test_whole_numbers_are_rounded_and_kept_within_their_kind(kind):
    what = values(dtype=kind, mean=100.0, std=50.0)
    stored = np.arange(0, 250, dtype=kind).reshape(10, 25, 1)
    assert np.array_equal(what.from_unit(what.to_unit(stored)), stored)
    far = what.from_unit(torch.tensor([[[-1e6, 1e6]]]))
    assert far.ravel().tolist() == [np.iinfo(kind).min, np.iinfo(kind).max]


def test_floats_at_the_ends_of_a_range_that_no_float_is_are_allowed():
    ends = np.array([[-0.1, 0.1]], np.float32)[:, :, None]
    values(range=(-0.1, 0.1)).check(ends, "a")
    with pytest.raises(InputError, match=r"range is \[-0.1, 0.1\]"):
        values(range=(-0.1, 0.1)).check(ends * np.float32(1.0001), "a")


def test_what_goes_through_a_network_unchanged_is_what_was_read_within_rounding(tmp_path):
    what, stored = values(range=(-400.0, 400.0)), numbers()
    np.save(tmp_path / "a.npy", stored)
    picture = read_picture(tmp_path / "a.npy", what)
    planes = network_planes(picture, 2)
    assert planes.shape == (2, 7, 5) and planes.min() >= 0 and planes.max() <= 1
    back = with_planes(picture, planes).colours.permute(1, 2, 0).numpy()
    assert np.abs(back - stored).max() < 800 * 2**-24


@pytest.mark.parametrize(
    "block, said",
    [
        ({"dtype": "float32"}, "it has nothing to normalise by; give one of range: [lo, hi], mean and std, or percent"),
        ({"range": [0, 1], "mean": 0, "std": 1}, "it has range and mean and std"),
        ({"range": [1, 1]}, "range is [1.0, 1.0]; the first number must be below the second"),
        ({"range": [2, 1]}, "the first number must be below the second"),
        ({"range": [0, 1, 2]}, "data.range is [0, 1, 2] (list)"),
        ({"range": [0, float("nan")]}, "data.range is"),
        ({"mean": 0}, "it has mean; give one of"),
        ({"mean": 0, "std": 0}, "std is 0.0; it must be above 0"),
        ({"mean": [0, 0], "std": [1, 1, 1]}, "mean has 2 numbers and std 3"),
        ({"percentiles": [99, 1]}, "percentiles is [99.0, 1.0]; give two numbers that rise"),
        ({"percentiles": [0, 101]}, "give two numbers that rise, from 0 to 100"),
        ({"percentiles": [1, 99], "low": 0}, "give both of them, or none"),
        ({"percentiles": [1, 99], "low": [0, 1], "high": [1, 1]}, "low must be below high in every channel"),
        ({"range": [0, 1], "low": 0, "high": 1}, "what a training measures for percentiles"),
        ({"range": [0, 1], "dtype": "complex64"}, "data.dtype is 'complex64'"),
        ({"range": [0, 1], "rang": 1}, "data.rang is not an option"),
    ],
)
def test_wrong_blocks_are_refused(block, said):
    found, faults = parse_block(Values, block, "data")
    assert found is None and said in faults[0]


def test_an_interval_of_other_channels_is_refused():
    with pytest.raises(InputError, match="mean and std are of 3 channels, but the images have 2"):
        values(mean=(0.0, 0.0, 0.0), std=1.0).interval(2)
    with pytest.raises(InputError, match=r"data\.percentiles: low and high are not measured yet"):
        values(percentiles=(1.0, 99.0)).interval(2)
