"""Files of data that are no pictures, .npy, .npz and TIFF: their headers, their numbers, and writing them.

An array has two axes, height and width, or three, with channels last or first as ``data.axes`` says. A TIFF holds one
page of any number of channels, or one page for each channel. Objects are never unpickled.
"""

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from basicsr_ext.common.errors import InputError
from basicsr_ext.images.content import LARGEST, Content, FileContent
from basicsr_ext.images.inventory import DATA_EXTENSIONS
from basicsr_ext.images.values import Values

MARKS = {b"\x93NUMPY": "NPY", b"PK\x03\x04": "NPZ"}
TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
KEY = "data"  # of the array in a .npz that is written, where ``data.key`` names none
NO_PICTURE = "is an array of numbers, no picture; say in a block data: what they mean (docs/scientific_data.md)"
_READ = f"{', '.join(DATA_EXTENSIONS)} are read"


def kind_of(content: Content) -> str | None:
    """NPY, NPZ or TIFF, by a file's first bytes; None for others."""
    start = content[:6]
    if start.startswith(TIFF_MARKS):
        return "TIFF"
    return next((kind for mark, kind in MARKS.items() if start.startswith(mark)), None)


def data_shape(content: Content, path: str, values: Values) -> tuple[int, int, int]:
    """Height, width and channels as a file's header says; InputError naming ``path`` if :func:`read_data` refuses it.

    What only the numbers tell (NaN, infinity, those outside of ``data.range``) is not looked at.
    """
    with _named(path):
        kind = kind_of(content)
        if kind == "TIFF":
            shape, dtype = _tiff_header(content, path)
        elif kind is None:
            raise InputError(f"{path}: {_refused(content)}")
        else:
            with _array_file(content, kind, path, values) as (file, size):
                axes, _, dtype = _npy_header(file, path)
                needed = file.tell() + math.prod(axes) * dtype.itemsize
                if needed > size:
                    raise InputError(f"{path}: is cut short ({size:,} of {needed:,} bytes); copy it again or remove it")
            shape = _three(axes, path, values)
    if dtype.newbyteorder("=") != values.kind:
        cure = f"set data.dtype: {dtype.newbyteorder('=').name}, or convert the file"
        raise InputError(f"{path}: holds {dtype.name}, but data.dtype is {values.dtype}; {cure}")
    if shape[0] * shape[1] > LARGEST:
        said = f"says that it is {shape[0]}x{shape[1]} (height x width), more than {LARGEST:,} pixels"
        raise InputError(f"{path}: {said}, in {len(content):,} bytes; cut it into parts, or remove it")
    if not all(shape):
        raise InputError(f"{path}: has no pixels: its shape is {shape}; replace or remove it")
    return shape


def read_data(content: bytes, path: str, values: Values) -> np.ndarray:
    """The numbers H,W,C of a file, of ``values.kind`` in the machine's byte order; InputError as :func:`data_shape`.

    Also where a number is not finite, or not within ``data.range``.
    """
    shape = data_shape(content, path, values)
    kind = kind_of(content)
    with _named(path):
        if kind == "TIFF":
            numbers = _tiff_numbers(content)
        else:
            with _array_file(content, str(kind), path, values) as (file, _):
                numbers = npy.read_array(file, allow_pickle=False)
            numbers = numbers[:, :, None] if numbers.ndim == 2 else numbers
            numbers = np.moveaxis(numbers, 0, 2) if values.axes == "CHW" and shape != numbers.shape else numbers
    if numbers.shape != shape:
        raise InputError(f"{path}: is damaged: it holds {numbers.shape}, where its header says {shape}; replace it")
    numbers = np.ascontiguousarray(numbers, values.kind)
    values.check(numbers, path)
    return numbers


def encode_data(numbers: np.ndarray, extension: str, values: Values) -> bytes:
    """A file of the numbers H,W,C: .npy or .npz with the axes that ``values`` say (H,W of one channel), or a TIFF."""
    buffer = io.BytesIO()
    if extension in ("tif", "tiff"):
        import tifffile

        stored = numbers[:, :, 0] if numbers.shape[2] == 1 else numbers
        several: dict[str, Any] = {"planarconfig": "contig", "extrasamples": [0] * (numbers.shape[2] - 1)}
        tifffile.imwrite(buffer, stored, photometric="minisblack", compression="zlib", predictor=True, metadata=None,
                         **(several if stored.ndim == 3 else {}))  # fmt: skip
        return buffer.getvalue()
    stored = numbers[:, :, 0] if numbers.shape[2] == 1 else numbers
    if stored.ndim == 3 and values.axes == "CHW":
        stored = np.ascontiguousarray(np.moveaxis(stored, 2, 0))
    if extension == "npz":
        with zipfile.ZipFile(buffer, "w") as archive:  # by hand, since savez has names that no key may have
            about = zipfile.ZipInfo(f"{values.key or KEY}.npy")
            about.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(about, "w") as member:
                npy.write_array(member, stored, allow_pickle=False)
    else:
        np.save(buffer, stored, allow_pickle=False)
    return buffer.getvalue()


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Let whatever a damaged file raises name it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # zip, zlib, the header's literals and tifffile raise nearly anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: is damaged, or is no file of numbers ({reason}); replace it") from error


def _refused(content: Content) -> str:
    start = content[:12]
    held = f"holds {len(content):,} bytes, the first are {start!r}"
    pictures = {b"\x89PNG": "PNG", b"\xff\xd8": "JPEG", b"RIFF": "WebP", b"BM": "BMP", b"GIF8": "GIF"}
    name = next((kind for mark, kind in pictures.items() if start.startswith(mark)), None)
    cure = f"data: asks for numbers, of which {_READ}; convert it, or leave data: out where all are pictures"
    return f"is a {name}, a picture; {cure}" if name else f"{held}; {cure}"


@contextmanager
def _array_file(content: Content, kind: str, path: str, values: Values) -> Iterator[tuple[IO[bytes], int]]:
    """The array of a .npy, or of a .npz, as a file of its own, and its size in bytes."""
    file = content.file if isinstance(content, FileContent) else io.BytesIO(content)
    file.seek(0)
    if kind == "NPY":
        yield file, len(content)
        return
    with zipfile.ZipFile(file) as archive:
        keys = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
        if not keys:
            raise InputError(f"{path}: is a zip archive without arrays; save it again with numpy.savez")
        key = values.key or (next(iter(keys)) if len(keys) == 1 else None)
        if key is None or key not in keys:
            said = f"has no array {key!r}" if key else f"holds {len(keys)} arrays"
            raise InputError(f"{path}: {said}; set data.key to one of {', '.join(keys)}")
        with archive.open(keys[key]) as member:
            yield member, archive.getinfo(keys[key]).file_size


def _npy_header(file: IO[bytes], path: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        said = f"is an array file of version {version}, which plain numbers do not need"
        raise InputError(f"{path}: {said}; save it again with numpy.save")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        cure = "unpickling can run code; save plain numbers, such as array.astype('float32')"
        raise InputError(f"{path}: holds pickled objects, which are refused: {cure}")
    if dtype.kind == "c":
        cure = "save the real and the imaginary part as two channels"
        raise InputError(f"{path}: holds complex numbers ({dtype.name}); {cure}")
    if dtype.kind not in "iuf":
        raise InputError(f"{path}: holds {dtype.name}, no numbers; save an array of numbers, such as float32")
    return shape, fortran, dtype


def _three(axes: tuple[int, ...], path: str, values: Values) -> tuple[int, int, int]:
    """Height, width and channels of an array of these axes."""
    if len(axes) == 2:
        return axes[0], axes[1], 1
    if len(axes) != 3:
        wanted = f"height x width, or three axes in the order data.axes: {values.axes}"
        raise InputError(f"{path}: has {len(axes)} axes, {axes}; give {wanted}; cut a volume into its slices")
    return (axes[1], axes[2], axes[0]) if values.axes == "CHW" else (axes[0], axes[1], axes[2])


# ---- TIFF


def _tiff_header(content: Content, path: str) -> tuple[tuple[int, int, int], np.dtype]:
    import tifffile

    with tifffile.TiffFile(_stream(content)) as file:
        pages = list(file.pages)
        first = pages[0]
        samples, dtype = first.samplesperpixel, first.dtype
        if dtype is None or dtype.kind not in "iuf" or first.photometric == 3:  # a palette
            held = "a palette" if first.photometric == 3 else f"{first.bitspersample} bits of a kind without a name"
            raise InputError(f"{path}: holds {held}, where numbers are wanted; save it as plain numbers")
        plain = (first.imagelength, first.imagewidth, samples, dtype)
        pages_as = [(page.imagelength, page.imagewidth, page.samplesperpixel, page.dtype) for page in pages]
        if len(pages) > 1 and (samples > 1 or {*pages_as} != {plain}):
            said = f"holds {len(pages)} pages of several channels or sizes"
            raise InputError(f"{path}: {said}; save one page of all channels, or one page for each channel")
        if first.imagedepth > 1:
            raise InputError(f"{path}: holds a volume of depth {first.imagedepth}; cut it into its slices")
        ends = [place + size for page in pages for place, size in zip(page.dataoffsets, page.databytecounts)]
        if max(ends, default=0) > len(content):
            said = f"is cut short ({len(content):,} of at least {max(ends):,} bytes)"
            raise InputError(f"{path}: {said}; copy it again or remove it")
        return (first.imagelength, first.imagewidth, samples if samples > 1 else len(pages)), np.dtype(dtype)


def _tiff_numbers(content: bytes) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(_stream(content)) as file:
        pages = list(file.pages)
        first = pages[0]
        if len(pages) > 1:
            return np.stack([page.asarray() for page in pages], axis=2)
        numbers = first.asarray()
        if first.samplesperpixel > 1 and first.planarconfig == 2:
            return np.moveaxis(numbers.reshape(first.samplesperpixel, first.imagelength, first.imagewidth), 0, 2)
        return numbers.reshape(first.imagelength, first.imagewidth, first.samplesperpixel)


def _stream(content: Content) -> IO[bytes]:
    file = content.file if isinstance(content, FileContent) else io.BytesIO(content)
    file.seek(0)
    return file
