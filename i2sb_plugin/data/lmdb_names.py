"""The names of the images of an LMDB: one of BasicSR's, or a cache of an image folder."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from basicsr_ext.common.errors import InputError

__all__ = ["choose", "stored_keys"]

_SHOWN = 3


def stored_keys(environment: Any, root: str, option: str) -> list[str]:
    """List the keys of an LMDB that has no ``meta_info.txt``, sorted.

    So are the caches of image folders that ImageNet is often kept in (``train_faster_imagefolder.lmdb``): the key is
    the path of the image, the value its file, byte for byte. Labels lie in another file, which is not read. Records
    that were pickled are refused: unpickling can run code.

    Raises InputError if there are none, or the values are pickled.
    """
    with environment.begin(buffers=True) as transaction, transaction.cursor() as cursor:
        raw = [bytes(key) for key in cursor.iternext(keys=True, values=False) if not bytes(key).startswith(b"__")]
        first = bytes(transaction.get(raw[0])[:2]) if raw else b""
    if first[:1] == b"\x80":
        raise InputError(
            f"{option}: the records of {root} are pickled, which is refused because unpickling can run code; store "
            "the bytes of each image file under its path, or set io_backend.type: disk with the folder of images"
        )
    try:
        return sorted(key.decode("ascii") for key in raw)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{option}: {root} has a key that is no ASCII text: {error.object!r}; write it with other keys"
        ) from error


def choose(wanted: Iterable[str], keys: Iterable[str], root: str, source: str) -> list[str]:
    """Find the key of each name of a list: the key itself, with or without extension, or the one that ends in it.

    Keys that are paths are so found by ``n01440764/x.JPEG``, or ``x.JPEG`` alone. Raises InputError that lists the
    names without a key, or with several.
    """
    known = set(keys)
    by_file: dict[str, list[str]] = defaultdict(list)
    for key in known:
        by_file[key.rpartition("/")[2]].append(key)
    found, missing, several = [], [], []
    for name in wanted:
        stem = os.path.splitext(name)[0]
        if name in known or stem in known:
            found.append(name if name in known else stem)
            continue
        fits = [key for key in by_file[name.rpartition("/")[2]] if key.endswith(f"/{name}")]
        (found if len(fits) == 1 else several if fits else missing).append(fits[0] if len(fits) == 1 else name)
    for names, what in ((missing, "are not in it"), (several, "fit several of its keys")):
        if names:
            shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            raise InputError(f"{source}: {len(names)} of its images {what}, {root}: {shown}")
    return found
