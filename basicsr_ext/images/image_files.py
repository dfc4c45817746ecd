"""What image files say about themselves, without decoding them: size, and whether the end is there."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

from basicsr_ext.common.errors import InputError
from basicsr_ext.images import headers

__all__ = ["image_size", "is_cut_short", "lmdb_sizes"]

_PNG = b"\x89PNG\r\n\x1a\n"
_ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
_META_LINE = re.compile(r"(?P<name>.+?)\.\w+ \((?P<height>\d+),(?P<width>\d+),\d+\)")


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return (height, width) of an image file.

    Reads the header and the last bytes; decodes the image only where these leave doubt.
    Raises InputError, with the path, if the file is missing, empty, truncated or no image.
    """
    path = Path(path)
    try:
        bytes_there = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(0, bytes_there - 1024))
            tail = file.read()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; check the path and who may read it") from error
    if bytes_there == 0:
        raise InputError(f"{path}: the file is empty; remove or replace it")
    return _with_pillow(path, tail) or _with_opencv(path)


def _with_pillow(path: Path, tail: bytes) -> tuple[int, int] | None:
    """Return (height, width), or None if Pillow does not know the file's kind."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large images
        try:
            image = Image.open(path)
        except Exception:  # a damaged header may raise nearly anything
            return None
        with image:
            end = _ENDS.get(image.format)
            if end is None or end not in tail:
                try:
                    image.load()
                except Exception as error:  # as above
                    raise InputError(f"{path}: truncated or damaged image ({error}); remove or replace it") from error
            return image.height, image.width


def _with_opencv(path: Path) -> tuple[int, int]:
    import cv2
    import numpy as np

    content = np.fromfile(path, np.uint8)
    refusal = headers.refusal(content.tobytes())
    if refusal:
        raise InputError(f"{path}: {refusal}")
    try:
        image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None:
        raise InputError(f"{path}: not an image, or damaged; remove or replace it")
    return image.shape[:2]


def is_cut_short(content: bytes) -> bool:
    """True for a PNG or JPEG without its end mark, whose missing part OpenCV would fill with grey."""
    if content.startswith(_PNG):
        return content.rfind(_ENDS["PNG"]) < 0
    if content.startswith(b"\xff\xd8\xff"):
        scan = _jpeg_scan(content)
        return scan is None or content.find(_ENDS["JPEG"], scan) < 0
    return False


def _jpeg_scan(content: bytes) -> int | None:
    """Where the image data of a JPEG begin, beyond any thumbnail in its header; None if the file ends before."""
    place = 2
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        if marker == 0xDA:
            return place
    return None


def lmdb_sizes(root: str | os.PathLike[str]) -> dict[str, tuple[int, int]]:
    """Return (height, width) by key from the ``meta_info.txt`` of one of BasicSR's LMDBs; skips lines without sizes."""
    try:
        lines = (Path(root) / "meta_info.txt").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{root}: no LMDB of BasicSR, its meta_info.txt can not be read ({error}); write the LMDB again"
        ) from error
    matches = (_META_LINE.match(line) for line in lines)
    return {m["name"]: (int(m["height"]), int(m["width"])) for m in matches if m}
