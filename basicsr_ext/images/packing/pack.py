"""Pack a folder of images, cut into crops if wanted, so that training reads them fast."""

import collections
import dataclasses
import hashlib
import itertools
import json
import multiprocessing
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import lmdb
from tqdm import tqdm

from basicsr_ext.common import folder_lock
from basicsr_ext.common.cores import usable_cores
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.files import SaveError, write_whole
from basicsr_ext.common.text import listed
from basicsr_ext.images.headers import image_header
from basicsr_ext.images.inventory import images_below
from basicsr_ext.images.packing.crops import Crop, Cutting, check_size, cut_file
from basicsr_ext.images.packing.stores import FolderStore, LmdbStore

_SETTINGS = ".prepare.json"  # what the crops were made from and how; hidden, so that no data set takes it for an image
_PROGRESS = ".progress.jsonl"  # a line for each finished image: its name, and key and size of its crops
_COMMIT = 50  # images that are written at once
_LONGEST_KEY = 511  # bytes, of LMDB


class _Image(NamedTuple):
    path: str
    name: str  # below the input folder
    key: str  # of its crops


_Cut = tuple[list[Crop], str | None]  # the crops of an image, and why they cannot be saved


def prepare(
    source: str | Path, output: str | Path, kind: str, cutting: Cutting, suffix: str = "", workers: int | None = None
) -> int:
    """Pack the images of the folder ``source`` into ``output``; returns the number of crops.

    ``kind`` is lmdb, raw or folder. The output appears when it is complete; until then ``output``.part grows, and the
    same call goes on after the last images in it. A complete one of the same images and settings is left as it is.
    Raises InputError: no images, one that cannot be used, an output of other images or settings, a full disk. An image
    whose crops the file system refuses for another reason, such as a name too long, is left to :func:`not_packed`.
    """
    source, output = Path(source), Path(output)
    if output.name in ("", os.pardir):
        raise InputError(f"-o is {output}, a folder that is there already; give the name of a new one")
    _check_numbers(kind, cutting, output, workers)
    part, stored = output.with_name(f"{output.name}.part"), _read_settings(output)
    if os.path.lexists(output) and stored is None:
        raise InputError(f"-o {output} is there already and was not made by this command; choose another name")
    images = _find(source, output, suffix, kind)
    # Names and sizes of the files: another folder, or a changed one, is not taken for the same
    lines = "".join(f"{image.name}\0{os.path.getsize(image.path)}\n" for image in images)
    digest = hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()
    settings = {"kind": kind, "suffix": suffix, **dataclasses.asdict(cutting), "images": digest}
    if stored is not None:
        _compare(output, stored, settings)
        _note_newer(images, output / _SETTINGS, output)
        print(f"{output} is complete: {stored['crops']} crops")
        return stored["crops"]
    if owner := folder_lock.held_by(part):
        raise InputError(f"-o {output}: a live process ({owner}) writes {part}; wait for its end")
    if not _read_settings(part):
        _refuse_others(part, kind)
    folder_lock.hold(part)
    try:
        return _fill(part, output, images, settings, cutting, workers)
    except (OSError, lmdb.Error) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        said = f"{part} cannot be written: {reason}; free some space if the disk is full, else look at its folder"
        said = str(error) if isinstance(error, SaveError) else said  # which names the file and the cure
        raise InputError(f"{said}; give the same command again: it goes on where it stopped") from error
    finally:
        folder_lock.release_all()


def _refuse_others(part: Path, kind: str) -> None:
    """Refuse to replace what this command did not make."""
    listing = [part.with_name(f"{part.stem}_meta_info.txt")] if kind == "folder" else []
    strange = part.is_dir() and any(name != _SETTINGS for name in os.listdir(part))
    for place in [*([part] if strange or (os.path.lexists(part) and not part.is_dir()) else []), *listing]:
        if os.path.lexists(place):
            cure = "move it away (remove it if its output is gone), or choose another -o"
            raise InputError(f"{place} is there already and would be lost; {cure}")


def not_packed(output: str | os.PathLike[str]) -> list[str]:
    """The images that a complete ``output`` lacks since their crops could not be saved, and why."""
    return (_read_settings(Path(output)) or {}).get("not_packed", [])


def _check_numbers(kind: str, cutting: Cutting, output: Path, workers: int | None) -> None:
    if kind != "folder" and output.suffix != ".lmdb":
        raise InputError(f"-o is {output}; for --to {kind} give a name that ends in .lmdb, which BasicSR asks for")
    for option, value in ("crop", cutting.crop), ("step", cutting.step), ("workers", workers):
        if value is not None and value < 1:
            raise InputError(f"--{option} is {value}; give a whole number from 1")
    if cutting.threshold < 0:
        raise InputError(f"--threshold is {cutting.threshold}; give a whole number from 0")
    if cutting.step and not cutting.crop:
        raise InputError(f"--step is {cutting.step} without --crop; give the side of the squares, such as --crop 480")
    if not 0 <= cutting.compression <= 9:
        raise InputError(f"--compression is {cutting.compression}; give a whole number from 0 to 9")


def _find(source: Path, output: Path, suffix: str, kind: str) -> list[_Image]:
    if not os.path.isdir(source):
        found = "is a file" if os.path.exists(source) else "does not exist"
        raise InputError(f"-i is {source}, which {found}; give a folder of images")
    images: dict[str, _Image] = {}
    there = images_below(source, output, output.with_name(f"{output.name}.part"))
    for path, name in there.files:
        key = os.path.splitext(name)[0].removesuffix(suffix)
        if key[-1:] in ("", "/"):
            raise InputError(f"{path}: --suffix {suffix} leaves nothing of its name; rename it, or give another suffix")
        if key in images:
            raise InputError(f"{images[key].path} and {name} in {source} would both become {key}; rename one")
        images[key] = _Image(str(path), str(name), key)
    if there.left_out:
        print(f"{source}: {there}")
    if not images:
        raise InputError(f"-i {source}: {there}")
    for image in images.values() if kind != "folder" else ():
        if not image.key.isascii() or "." in image.key:
            said = "BasicSR finds no key with a dot or a letter beyond ASCII in an LMDB; rename it"
            raise InputError(f"{image.path}: {said}, or give --to folder")
        if "\n" in image.key or "\r" in image.key or image.key[0].isspace():
            said = f"{image.path!r}: no list of an LMDB holds a name with line breaks, or a space in front"
            raise InputError(f"{said}; rename it, or give --to folder")
        if len(image.key) > _LONGEST_KEY - 10:
            raise InputError(f"{image.path}: the name is too long for an LMDB; shorten it, or give --to folder")
    return list(images.values())


def _read_settings(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _compare(folder: Path, stored: dict[str, Any], settings: dict[str, Any]) -> None:
    said = {key: f"{key} was {stored.get(key)} and is {value}" for key, value in settings.items()}
    said["images"] = "the images are others"
    if other := [said[key] for key, value in settings.items() if stored.get(key) != value]:
        raise InputError(f"{folder} was made otherwise: {', '.join(other)}; remove it, or choose another output")


def _note_newer(images: Sequence[_Image], made: Path, place: Path) -> None:
    """Say which images are newer than the file ``made``: another one of the same size looks the same."""
    if newer := [image.name for image in images if os.path.getmtime(image.path) > os.path.getmtime(made)]:
        said = f"{len(newer)} image(s) are newer than their crops in {place} ({listed(newer)})"
        print(f"note: {said}; if they were changed, remove it and give the same command again")


def _refuse_unfit(images: Sequence[_Image], cutting: Cutting) -> None:
    """Refuse, before hours of work, what would end it, as far as headers tell."""
    faults = []
    for image in images:
        try:
            check_size(image.path, *image_header(image.path)[:2], cutting)
        except InputError as error:
            faults.append(str(error))
    if faults:
        raise InputError("\n  - ".join([f"{len(faults)} of {len(images)} images:", *faults[:10]][len(faults) == 1 :]))


def _fill(
    part: Path, output: Path, images: list[_Image], settings: dict[str, Any], cutting: Cutting, workers: int | None
) -> int:
    if stored := _read_settings(part):
        _compare(part, stored, settings)
    else:
        _refuse_unfit(images, cutting)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        (part / _SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
    folder = settings["kind"] == "folder"
    with (FolderStore if folder else LmdbStore)(part, cutting) as store:
        if (record := part / _PROGRESS).is_file():
            _note_newer(images[: sum(1 for _ in _lines(part))], record, part)
        done = _resume(part, store)
        cut = _cut_all(images[done:], cutting, str(part) if folder else None, workers or usable_cores())
        bar = tqdm(cut, initial=done, total=len(images), unit="image", desc=output.name)
        _write_all(part, store, zip(bar, images[done:]))
        crops = store.finish(_lines(part))
    failures = [line[2] for line in _lines(part) if line[2:]]
    if not crops:
        store.meta.unlink()
        shutil.rmtree(part)
        if failures:
            raise InputError(f"no image could be packed: {listed(failures)}")
        raise InputError(f"every image is smaller than --crop {cutting.crop}; give a smaller one")
    write_whole(part / _SETTINGS, json.dumps({**settings, "crops": crops, "not_packed": failures}))
    os.replace(part, output)
    (output / _PROGRESS).unlink()  # last: whatever kills this process, the same command comes to an end
    print(f"{output}: {crops} crops of {len(images)} images")
    return crops


def _begin_worker() -> None:
    """One thread for OpenCV, and an end with the process that started this one, however that ends."""
    cv2.setNumThreads(0)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _cut(path: str, key: str, cutting: Cutting, folder: str | None) -> _Cut:
    """Cut an image as :func:`cut_file` does; where its crops cannot be saved, but others may, no crops, and why."""
    try:
        return cut_file(path, key, cutting, folder), None
    except SaveError as error:
        if error.full:
            raise
        return [], f"{path}: {error}"


def _cut_all(images: Sequence[_Image], cutting: Cutting, folder: str | None, workers: int) -> Iterator[_Cut]:
    """The crops of each image, in order; no more than a few images wait to be written."""
    tasks = ((image.path, image.key, cutting, folder) for image in images)
    if workers == 1 or len(images) < 2:
        yield from (_cut(*task) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")  # forks after threads were started can hang
    with ProcessPoolExecutor(min(workers, len(images)), context, _begin_worker) as pool:
        waiting: collections.deque[Future[_Cut]] = collections.deque()
        try:
            for task in tasks:
                waiting.append(pool.submit(_cut, *task))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise InputError("a worker process was killed, perhaps for its memory; lower --workers") from error
        finally:
            for future in waiting:
                future.cancel()


def _write_all(part: Path, store: FolderStore, cut: Iterator[tuple[_Cut, _Image]]) -> None:
    """Write crops and their record, which is always ahead of an LMDB: so it tells what is in there."""
    with (part / _PROGRESS).open("a", encoding="utf-8") as record:
        while some := list(itertools.islice(cut, _COMMIT)):
            for (crops, failure), image in some:
                line = [image.name, [[crop.key, crop.size] for crop in crops], *([failure] if failure else [])]
                record.write(json.dumps(line) + "\n")
            record.flush()
            os.fsync(record.fileno())
            store.write(crop for (crops, _), _ in some for crop in crops)


def _lines(part: Path) -> Iterator[list[Any]]:
    """The finished lines of the record."""
    path = part / _PROGRESS
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file if line.endswith("\n"))


def _resume(part: Path, store: FolderStore) -> int:
    """Cut the record back to what is safely stored; returns the number of images that are done."""
    stored, total, kept = store.count(), 0, []
    for line in _lines(part):
        if stored is not None and (total == stored or total + len(line[1]) > stored):
            break
        total += len(line[1])
        kept.append(json.dumps(line) + "\n")
    if stored is not None and total != stored:
        raise InputError(f"{part} is damaged: {stored} crops, but a record of {total}; remove it and start again")
    write_whole(part / _PROGRESS, "".join(kept))
    return len(kept)
