"""Which image files there are: below a folder, behind a pattern, or in a list of names. The one walker of folders.

A folder is searched to any depth. Links are followed, except one that leads back to a folder that it lies in. Every
file has its own name: that of a link is not its target's. Hidden files and folders are passed over without a word;
so are files that are no images. What else is not taken is told in ``left_out``, with the reason.
"""

import fnmatch
import glob
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from basicsr_ext.common.errors import InputError
from basicsr_ext.common.text import listed

EXTENSIONS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".webp", ".bmp", ".ppm", ".pgm", ".pbm",
              ".pnm", ".pam")  # fmt: skip
FORMATS = {"png": "PNG", "tif": "TIFF", "webp": "WEBP", "jpg": "JPEG"}  # that are written: extension, Pillow's name
DEEP = ("png", "tif")  # those of them that hold 16 bits
_OTHER_KINDS = ("", ".gif", ".jp2", ".j2k", ".jpx", ".avif", ".heic", ".heif", ".jxl", ".exr", ".hdr", ".tga", ".dng",
                ".psd", ".svg", ".eps")  # fmt: skip
_HERE = PurePosixPath()
_LINE = re.compile(r"(?P<name>.+?)\s+\(\s*(?P<height>\d+)\s*,\s*(?P<width>\d+)\s*(,.*)?")


class Inventory(NamedTuple):
    """Image files, each by its path and its name below the place that was searched, and what was left out and why."""

    files: list[tuple[Path, PurePosixPath]]
    left_out: list[tuple[str, str]]

    def __str__(self) -> str:
        """Say what was left out, by reason: ``2 broken link (a.png, b.png); 1 of a kind that is not read (c.gif)``."""
        reasons = defaultdict(list)
        for name, reason in self.left_out:
            reasons[reason].append(name)
        return "; ".join(f"{len(names)} {reason} ({listed(names)})" for reason, names in reasons.items())


def is_image(name: str | os.PathLike[str]) -> bool:
    """Whether the extension is that of an image."""
    return os.fspath(name).lower().endswith(EXTENSIONS)


def images_below(folder: str | os.PathLike[str], deep: bool = True) -> Inventory:
    """The images of a folder, and with ``deep`` those below it, sorted by name as text with ``/``."""
    return _sorted_out(Path(folder), _walk(Path(folder), None if deep else 1))


def images_of(inputs: Sequence[str], output: Path | None = None) -> Inventory:
    """The images that ``inputs`` stand for: files of any extension, folders, and patterns; each of them once.

    A part of a pattern that exists by that name, brackets and all, is taken literally. What lies in the folder
    ``output``, if that is below an input folder, is left out. InputError if a file or folder does not exist.
    """
    found: dict[Path, tuple[Path, PurePosixPath]] = {}
    left_out: list[tuple[str, str]] = []
    results = output.resolve() if output else None
    for text in inputs:
        root, (files, others) = _expand(text)
        left_out += others
        below = results is not None and root.resolve() in results.parents
        for file, name in files:
            place = file.parent.resolve() / file.name
            if below and results in place.parents:
                left_out.append((str(name), "in the folder of the results"))
            else:
                found.setdefault(place, (file, name))
    return Inventory(list(found.values()), left_out)


def _expand(text: str) -> tuple[Path, Inventory]:
    """What one input stands for, and the folder that was searched."""
    path = os.path.expanduser(text)
    if text and os.path.isdir(path):
        return Path(path), images_below(path)
    if os.path.isfile(path):
        return Path(path), Inventory([(Path(path), PurePosixPath(os.path.basename(path)))], [])
    if glob.has_magic(text) and not os.path.lexists(path):
        return _matches(Path(path))
    what = "no such file or folder" if not os.path.lexists(path) else "is neither file nor folder"
    what = "is a broken link" if os.path.islink(path) else what
    raise InputError(f"-i {text or repr(text)}: {what}; correct the path")


def _matches(pattern: Path) -> tuple[Path, Inventory]:
    """The images that fit a pattern, named below the part of it that exists by that name."""
    base, parts = Path(pattern.anchor), list(pattern.parts[1:] if pattern.anchor else pattern.parts)
    while len(parts) > 1 and (not glob.has_magic(parts[0]) or os.path.isdir(base / parts[0])):
        base /= parts.pop(0)
    if not os.path.isdir(base):
        return base, Inventory([], [])
    depth = None if "**" in parts else len(parts)
    walked = _walk(base, depth, hidden=any(part.startswith(".") for part in parts))
    return base, _sorted_out(base, ((name, fault) for name, fault in walked if _fits(name.parts, parts)))


def _sorted_out(folder: Path, walked: Iterable[tuple[PurePosixPath, str | None]]) -> Inventory:
    files, left_out = [], []
    for name, fault in walked:
        if fault:
            left_out.append((str(name), fault))
        elif is_image(name.name):
            files.append((folder / name, name))
        elif name.suffix.lower() in _OTHER_KINDS:
            left_out.append((str(name), "of a kind that is not read"))
    return Inventory(sorted(files, key=lambda file: str(file[1])), sorted(left_out))


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    if not parts or not names:
        return not names and all(part == "**" for part in parts)
    if parts[0] == "**":
        return _fits(names, parts[1:]) or (names[0][0] != "." and _fits(names[1:], parts))
    fits = fnmatch.fnmatchcase(names[0], parts[0]) and (names[0][0] != "." or parts[0][0] == ".")
    return fits and _fits(names[1:], parts[1:])


def _walk(
    root: Path, depth: int | None, hidden: bool = False, inside: PurePosixPath = _HERE, above: tuple = ()
) -> Iterator[tuple[PurePosixPath, str | None]]:
    """The files below ``root`` and, with the reason, what cannot be looked at; ``depth`` limits the folders."""
    folder = root / inside
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield inside, f"that cannot be read: {error.strerror}"
        return
    above = (*above, (status.st_dev, status.st_ino))
    for entry in entries:
        name = inside / entry.name
        if entry.name.startswith(".") and not hidden:
            continue
        try:
            if entry.is_dir():
                status = entry.stat()  # of the folder that a link leads to
                if (status.st_dev, status.st_ino) in above:
                    yield name, "link to a folder that it lies in"
                elif depth == 1:
                    yield name, "folder that is not searched"
                else:
                    yield from _walk(root, depth and depth - 1, hidden, name, above)
            elif entry.is_file():
                yield name, None
            else:
                yield name, "broken link" if entry.is_symlink() else "no plain file"
        except OSError as error:  # a link that leads to itself
            yield name, f"that cannot be read: {error.strerror}"


def listed_names(path: str | os.PathLike[str], option: str) -> list[str]:
    """Read the names of a list of images, one a line: ``my photo.png``, or ``my photo.png (480,480,3)`` and more.

    Names may hold spaces; a byte-order mark and any ends of lines are accepted. InputError naming ``option`` if the
    list cannot be read.
    """
    return [name for name, _ in _lines(path, option)]


def listed_sizes(root: str | os.PathLike[str]) -> dict[str, tuple[int, int]]:
    """Return (height, width) by key from the ``meta_info.txt`` of one of BasicSR's LMDBs; skips lines without sizes."""
    lines = _lines(Path(root) / "meta_info.txt", f"{root}: no LMDB of BasicSR")
    return {os.path.splitext(name)[0]: size for name, size in lines if size}


def _lines(path: str | os.PathLike[str], option: str) -> Iterable[tuple[str, tuple[int, int] | None]]:
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeError) as error:
        cure = "write one line per image, in UTF-8: name (height,width,channels)"
        raise InputError(f"{option}: {path} cannot be read as a list of images ({error}); {cure}") from error
    for line in filter(None, map(str.strip, lines)):
        if match := _LINE.fullmatch(line):
            yield match["name"], (int(match["height"]), int(match["width"]))
        else:
            yield line if is_image(line) else line.split()[0], None
