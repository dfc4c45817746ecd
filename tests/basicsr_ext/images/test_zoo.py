"""One zoo of image files with known pixels: the header and every reader agree, or all refuse the file by name."""

import cv2
import numpy as np
import pytest
import torch

from basicsr_ext import repairs
from basicsr_ext.common.errors import InputError
from basicsr_ext.images.arrays import to_bgr
from basicsr_ext.images.decode import decode
from basicsr_ext.images.headers import header_of, image_header
from basicsr_ext.images.packing.crops import Cutting, cut_file
from basicsr_ext.images.pictures import read_picture
from basicsr_ext.repairs.images import NamedBytes
from basicsr_ext.restoring.files import read_mask
from studies.reliability.inputs.zoo_files import TOLERANCE, zoo

repairs.apply()

from basicsr.utils import imfrombytes  # noqa: E402

from i2sb_plugin.data.image_source import ImageSource  # noqa: E402
from i2sb_plugin.degradations.masks import MaskFolder  # noqa: E402

FILES = list(zoo())


def readers(path, content):
    """What every reader makes of a file, as H,W,C in the order RGBA."""
    rgba = {1: [0], 2: [0, 1], 3: [2, 1, 0], 4: [2, 1, 0, 3]}
    named = NamedBytes(content)
    named.path = str(path)

    def picture():
        found = read_picture(path)
        planes = found.colours if found.alpha is None else torch.cat([found.colours, found.alpha])
        values = (planes.double() * ((1 << found.bits) - 1)).round().numpy().transpose(1, 2, 0)
        return values.astype(f"uint{found.bits}")

    def ordered(pixels):
        return pixels[:, :, rgba[pixels.shape[2]]]

    def source():
        return ordered(ImageSource(str(path.parent), "dataroot_gt").load(path.name))

    def unchanged():
        pixels = imfrombytes(named, flag="unchanged")
        return ordered(pixels if pixels.ndim == 3 else pixels[:, :, None])

    def colour():
        return imfrombytes(named)[:, :, ::-1]

    def crop():
        (made,) = cut_file(str(path), "a", Cutting())
        return ordered(cv2.imdecode(np.frombuffer(made.content, np.uint8), cv2.IMREAD_UNCHANGED).reshape(made.size))

    return {"picture": picture, "source": source, "unchanged": unchanged, "colour": colour, "crop": crop}


@pytest.mark.parametrize("file", [file for file in FILES if file.pixels is not None], ids=lambda file: file.name)
def test_header_and_readers_agree(tmp_path, file):
    name, content, path = file.name, file.content, tmp_path / file.name
    path.write_bytes(content)
    pixels, header = decode(content, name)
    assert header == header_of(content) == image_header(path) and header.odd is None
    assert pixels.shape == header[:3] and pixels.dtype == f"uint{header.bits}"
    pixels = pixels[:, :, {1: [0], 2: [0, 1], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[pixels.shape[2]]]
    assert (pixels.shape, pixels.dtype) == (file.pixels.shape, file.pixels.dtype)
    assert np.abs(pixels.astype(int) - file.pixels).max() <= TOLERANCE * file.lossy
    counted = pixels[:, :, [0, 0, 0, 1]] if pixels.shape[2] == 2 else pixels  # data sets count 1, 3 or 4 channels
    expected = {"picture": pixels, "colour": to_bgr(counted)} | dict.fromkeys(("source", "unchanged", "crop"), counted)
    for reader, read in readers(path, content).items():
        assert np.array_equal(read(), expected[reader]), reader
    values = counted.astype(float) / np.iinfo(pixels.dtype).max
    hole = values[:, :, :3].max(2) * (values[:, :, 3] if values.shape[2] == 4 else 1) >= 0.5  # on black
    if hole.any():
        assert np.array_equal(read_mask(path)[0].numpy() == 1, hole)
        assert np.array_equal(MaskFolder(str(tmp_path)).get(0) == 1, hole)


@pytest.mark.parametrize("file", [file for file in FILES if file.pixels is None], ids=lambda file: file.name)
def test_all_refuse_alike_and_by_name(tmp_path, file):
    path, content = tmp_path / file.name, file.content
    path.write_bytes(content)
    said = set()
    mask = {"restored mask": lambda: read_mask(path), "mask": lambda: MaskFolder(str(tmp_path)).get(0)}
    for read in (readers(path, content) | mask).values():
        with pytest.raises(InputError, match=f"{path.name}.*({file.why})") as error:
            read()
        said.add(str(error.value))
    assert len(said) == 1
    with pytest.raises(InputError, match=path.name):
        image_header(path)


@pytest.mark.parametrize(
    "content, said",
    [(b"P5\n2 1\n100\n\x05\x70", "112, above the largest, 100"), (b"P2\n2 1\n100\n5 -1", "-1, below 0")],
)
def test_a_value_out_of_the_range_of_an_anymap_is_named(content, said):
    with pytest.raises(InputError, match=rf"a\.pgm.*{said}"):
        decode(content, "a.pgm")
