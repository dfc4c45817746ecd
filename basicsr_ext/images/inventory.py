"""Which image files there are: below a folder, behind a pattern, or in a list of names. The one walker of folders.

A folder is searched to any depth, once: a link to a folder that is searched already is not followed, so that no loop
is. Every file has its own name: that of a link is not its target's. Hidden files and folders are passed over without a
word; so are files that are no images. What else is not taken is told in ``left_out``, with the reason.
"""

import fnmatch
import glob
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from basicsr_ext.common.errors import InputError
from basicsr_ext.common.text import listed
from basicsr_ext.images.content import read_content

EXTENSIONS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".webp", ".bmp", ".ppm", ".pgm", ".pbm",
              ".pnm", ".pam", ".gif", ".avif", ".jp2", ".j2k", ".jpx")  # fmt: skip
FORMATS = {"png": "PNG", "tif": "TIFF", "webp": "WEBP", "jpg": "JPEG"}  # that are written: extension, Pillow's name
DEEP = ("png", "tif")  # those of them that hold 16 bits
DATA_FORMATS = ("npy", "npz", "tif")  # that data are written in
_OTHER_KINDS = ("", ".heic", ".heif", ".hif", ".jxl", ".jxr", ".exr", ".hdr", ".pfm", ".tga", ".psd", ".psb", ".xcf",
                ".svg", ".svgz", ".eps", ".ai", ".pdf", ".ico", ".dds", ".qoi", ".pcx", ".sgi", ".ras", ".apng", ".mpo",
                ".dib", ".jpf", ".j2c", ".jpc", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".orf", ".rw2",
                ".raf", ".pef", ".srw", ".npy", ".npz", ".mat", ".mp4", ".m4v", ".mov", ".avi", ".mkv",
                ".webm")  # fmt: skip
_HERE = PurePosixPath()
_CLOSED = "that cannot be read"
_SIZED = re.compile(r"(?P<name>.*\S)\s+\(\s*(?P<height>\d+)\s*,\s*(?P<width>\d+)\s*(,[^)]*)?\)(\s.*)?")
DATA_EXTENSIONS = (".npy", ".npz", ".tif", ".tiff")  # of data that are no pictures
_LISTED = (*EXTENSIONS, *DATA_EXTENSIONS)  # in lists of names
_NAMED = re.compile(rf".+?({'|'.join(map(re.escape, _LISTED))})(?=\s)", re.IGNORECASE)


class Inventory(NamedTuple):
    """Image files, each by its path and its name below the place that was searched, and what was left out and why."""

    files: list[tuple[Path, PurePosixPath]]
    left_out: list[tuple[str, str]]
    extensions: Sequence[str] = EXTENSIONS  # of the files that were looked for

    def __str__(self) -> str:
        """Count: ``4 pictures; left out: 2 broken link (a.png, b.png); 1 of a kind that is not read (c.psd)``."""
        reasons = defaultdict(list)
        for name, reason in self.left_out:
            reasons[reason].append(name)
        count = (
            f"{len(self.files)} pictures"
            if self.files
            else f"no pictures there ({', '.join(self.extensions)} are read)"
        )
        others = "; ".join(f"{len(names)} {reason} ({listed(names)})" for reason, names in reasons.items())
        return f"{count}; left out: {others}" if others else count


def by_stem(there: Inventory) -> dict[str, list[Path]]:
    """The files by their names without extension, in composed letters; more than one where they differ in that."""
    found = defaultdict(list)
    for path, name in there.files:
        found[same_letters(name.with_suffix(""))].append(path)
    return found


class Paths(list):
    """Files of a data set of BasicSR's, and what its folders hold besides: a line for each folder."""

    left_out: Sequence[str] = ()


def same_letters(name: object) -> str:
    """A name to compare by: composed letters (NFC), since macOS, and archives made there, take them apart (NFD)."""
    return unicodedata.normalize("NFC", str(name))


def images_below(folder: str | os.PathLike[str], *results: Path, extensions: Sequence[str] = EXTENSIONS) -> Inventory:
    """The images below a folder, sorted by name as text with ``/``; without what lies in the folders ``results``."""
    return _sorted_out(Path(folder), _walk(Path(folder), None, results), extensions)


def images_of(inputs: Sequence[str], output: Path | None = None, extensions: Sequence[str] = EXTENSIONS) -> Inventory:
    """The images that ``inputs`` stand for: files of any extension, folders, and patterns; each of them once.

    A part of a pattern that exists by that name, brackets and all, is taken literally. What lies in the folder
    ``output``, if that is below an input folder, is left out. InputError if a file or folder does not exist.
    """
    found: dict[Path, tuple[Path, PurePosixPath]] = {}
    left_out: list[tuple[str, str]] = []
    for text in inputs:
        files, others, _ = _expand(text, (output,) if output else (), extensions)
        left_out += others
        for file, name in files:
            found.setdefault(file.parent.resolve() / file.name, (file, name))
    return Inventory(list(found.values()), list(dict.fromkeys(left_out)), extensions)


def _expand(text: str, results: Sequence[Path], extensions: Sequence[str]) -> Inventory:
    path = os.path.expanduser(text)
    if text and os.path.isdir(path):
        return images_below(path, *results, extensions=extensions)
    if os.path.isfile(path):
        return Inventory([(Path(path), PurePosixPath(os.path.basename(path)))], [])
    if glob.has_magic(text) and not os.path.lexists(path):
        return _matches(Path(path), results, extensions)
    try:
        os.stat(path)
        what = "is neither file nor folder"
    except FileNotFoundError:
        what = "is a broken link" if os.path.islink(path) else "no such file or folder"
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
    raise InputError(f"-i {text or repr(text)}: {what}; correct the path")


def _matches(pattern: Path, results: Sequence[Path], extensions: Sequence[str]) -> Inventory:
    """The images that fit a pattern, named below the part of it that exists by that name."""
    base, parts = Path(pattern.anchor), list(pattern.parts[1:] if pattern.anchor else pattern.parts)
    while len(parts) > 1 and (not glob.has_magic(parts[0]) or os.path.isdir(base / parts[0])):
        base /= parts.pop(0)
    if not os.path.isdir(base):
        return Inventory([], [])
    depth = None if "**" in parts else len(parts)
    walked = _walk(base, depth, results, hidden=any(part.startswith(".") for part in parts))
    seen = (found for found in walked if _fits(found[0].parts, parts) or (found[1] or "").startswith(_CLOSED))
    return _sorted_out(base, seen, extensions)


def _sorted_out(
    folder: Path, walked: Iterable[tuple[PurePosixPath, str | None]], extensions: Sequence[str]
) -> Inventory:
    files, left_out = [], []
    for name, fault in walked:
        if fault:
            left_out.append((str(name), fault))
        elif name.name.lower().endswith(tuple(extensions)):
            files.append((folder / name, name))
        elif name.suffix.lower() in (*EXTENSIONS, *_OTHER_KINDS):
            left_out.append((str(name), "of a kind that is not read"))
    return Inventory(sorted(files, key=lambda file: str(file[1])), sorted(left_out), extensions)


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    if not parts or not names:
        return not names and all(part == "**" for part in parts)
    if parts[0] == "**":
        return _fits(names, parts[1:]) or (names[0][0] != "." and _fits(names[1:], parts))
    fits = fnmatch.fnmatchcase(names[0], parts[0]) and (names[0][0] != "." or parts[0][0] == ".")
    return fits and _fits(names[1:], parts[1:])


def _walk(
    root: Path, depth: int | None, results: Sequence[Path], hidden: bool = False
) -> Iterator[tuple[PurePosixPath, str | None]]:
    """The files below ``root`` and, with the reason, what cannot be looked at; ``depth`` limits the folders.

    Links to folders come last, so that a folder is known by its own name where it has one below ``root``.
    """
    closed = {_identity(folder): "folder of the results" for folder in results if os.path.isdir(folder)}
    closed.pop(_identity(root), None)
    folders, links = [_HERE], list[PurePosixPath]()
    while folders or links:
        inside = folders.pop() if folders else links.pop(0)
        try:
            identity = _identity(root / inside)
            if reason := closed.get(identity):
                yield inside, reason
                continue
            closed[identity] = "link to a folder that is searched already"
            entries = list(os.scandir(root / inside))
        except OSError as error:
            yield inside, f"{_CLOSED}: {error.strerror}"
            continue
        for entry in entries:
            name = inside / entry.name
            if entry.name.startswith(".") and not hidden:
                continue
            try:
                if not entry.is_dir():
                    kind = "broken link" if entry.is_symlink() else "no plain file"
                    yield name, None if entry.is_file() else kind
                elif depth is None or len(name.parts) < depth:
                    (links if entry.is_symlink() else folders).append(name)
                else:
                    yield name, "folder that is not searched"
            except OSError as error:  # a link that leads to itself
                yield name, f"{_CLOSED}: {error.strerror}"


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def listed_names(path: str | os.PathLike[str], option: str) -> list[str]:
    """Read the names of a list of images, one a line: ``my photo.png``, or ``my photo.png (480,480,3)`` and more.

    Names may hold spaces and brackets; byte-order marks and any ends of lines are accepted. InputError naming
    ``option`` if the list cannot be read.
    """
    return [name for name, _ in _lines(path, option)]


def listed_files(root: str | os.PathLike[str], path: str | os.PathLike[str], option: str) -> list[str]:
    """The names of a list as the folder ``root`` has them: below it, and with the letters of its file system.

    So ``./a.png`` and an absolute path are ``a.png``. A name that is not there stays as it is.
    """
    below = [os.path.normpath(name) for name in listed_names(path, option)]
    if any(os.path.isabs(name) or name.startswith(os.pardir) for name in below):
        base = os.path.abspath(root)
        inside = [os.path.relpath(os.path.join(base, name), base) for name in below]
        below = [name if other.startswith(os.pardir) else other for name, other in zip(below, inside)]
    if all(os.path.lexists(os.path.join(root, name)) for name in below):
        return below
    stored = {same_letters(name): str(name) for _, name in images_below(root).files}
    return [stored.get(same_letters(name), name) for name in below]


def listed_keys(root: str | os.PathLike[str], option: str) -> list[str]:
    """Return the keys that the ``meta_info.txt`` of one of BasicSR's LMDBs lists; InputError if there is none."""
    path = os.path.join(root, "meta_info.txt")
    if not os.path.isfile(path):
        raise InputError(f"{option}: {root} has no meta_info.txt; write the LMDB by basicsr prepare")
    return [os.path.splitext(name)[0] for name in listed_names(path, option)]


def listed_sizes(root: str | os.PathLike[str]) -> dict[str, tuple[int, int]]:
    """Return (height, width) by key from the ``meta_info.txt`` of one of BasicSR's LMDBs; skips lines without sizes."""
    lines = _lines(Path(root) / "meta_info.txt", f"{root}: no LMDB of BasicSR")
    return {os.path.splitext(name)[0]: size for name, size in lines if size}


def _lines(path: str | os.PathLike[str], option: str) -> Iterable[tuple[str, tuple[int, int] | None]]:
    try:
        text = read_content(path).decode("utf-8", "surrogateescape").replace("\ufeff", "")  # a name may be any bytes
    except InputError as error:
        raise InputError(f"{option}: {error}") from error
    if "\0" in text:
        cure = "write one line per image, in UTF-8: name (height,width,channels)"
        raise InputError(f"{option}: {path} cannot be read as a list of images (it holds zero bytes); {cure}")
    for line in filter(None, map(str.strip, re.split("[\r\n]", text))):
        match = None if line.lower().endswith(_LISTED) else _SIZED.fullmatch(line)
        if match:
            yield match["name"], (int(match["height"]), int(match["width"]))
        elif line.lower().endswith(_LISTED):
            yield line, None
        else:
            named = _NAMED.match(line)
            yield named[0] if named else line.split()[0], None
