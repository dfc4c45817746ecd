"""Folders of images for a task, looked at by names and headers alone: nothing is decoded, and torch is not imported."""

from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from basicsr_ext.common.errors import InputError
from basicsr_ext.common.text import listed
from basicsr_ext.images.headers import Header, image_header
from basicsr_ext.images.inventory import Inventory, by_stem, images_below

SCANNED = 200  # pairs or images whose headers are read; of more an even sample


class Folder(NamedTuple):
    """A folder of images: those of training, those of validation (None where there is no such part), what there is."""

    train: Path
    val: Path | None
    images: Inventory


def look(option: str, folder: str) -> Folder:
    """The images of a folder, or of its parts ``train`` and ``val`` where it has both.

    Raises InputError if it does not exist, is an LMDB, or a part holds no image.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        found = "is a file" if root.exists() else "does not exist"
        raise InputError(f"{option} is {folder}, which {found}; give a folder of images")
    parts = [root / "train", root / "val"]
    parts = parts if all(part.is_dir() for part in parts) else [root]
    for part in reversed(parts):
        if (part / "data.mdb").is_file():
            cure = "leave it out, and write it into the option file with io_backend: {type: lmdb}"
            raise InputError(f"{option}: {part} is an LMDB, which init does not read; {cure}")
        images = images_below(part)
        if not images.files:
            raise InputError(f"{option}: {part}: {images}; put images there, or give another folder")
    return Folder(parts[0], parts[1] if len(parts) > 1 else None, images)


def headers(images: Inventory) -> list[tuple[Path, Header]]:
    """Headers of the images, of an even sample where they are many; InputError if none can be read."""
    files = [images.files[k * len(images.files) // SCANNED][0] for k in range(SCANNED)]
    files = list(dict.fromkeys(files)) if len(images.files) > SCANNED else [path for path, _ in images.files]
    found, refused = [], []
    for path in files:
        try:
            found.append((path, image_header(path)))
        except InputError as error:
            refused.append(str(error))
    if not found:
        raise InputError(listed(refused))
    return found


def pair_scale(gt: Folder, lq: Folder) -> int:
    """How much larger than its degraded partner each clean image is: a whole number from 1, the same for all.

    Raises InputError if names have no partner, or sizes do not fit, such as those of folders that were swapped.
    """
    clean, degraded = by_stem(gt.images), by_stem(lq.images)
    lonely = sorted((clean | degraded)[stem][0] for stem in clean.keys() ^ degraded.keys())
    if lonely:
        cure = "give partners the same name; or leave both out, and write them and filename_tmpl into the option file"
        raise InputError(f"--gt and --lq: {len(lonely)} image(s) without a partner: {listed(lonely)}; {cure}")
    scales: dict[tuple[Fraction, Fraction], str] = {}
    partners = {path: degraded[stem][0] for stem, files in clean.items() for path in files}
    for path, large in headers(gt.images):
        partner, small = partners[path], image_header(partners[path])
        said = f"{path} ({large.height}x{large.width}) with {partner} ({small.height}x{small.width})"
        scales.setdefault((Fraction(large.height, small.height), Fraction(large.width, small.width)), said)
    for (height, width), said in scales.items():
        if height < 1 and width < 1:
            raise InputError(f"--gt has smaller images than --lq (height x width): {said}; swap the two folders")
        if height != width or height.denominator != 1 or len(scales) > 1:
            others = listed(scales.values())
            cure = "every clean image must be the same whole number of times as large as its partner"
            raise InputError(f"--gt and --lq do not fit (height x width): {others}; {cure}")
    return int(next(iter(scales))[0])
