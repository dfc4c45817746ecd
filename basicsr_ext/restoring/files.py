"""Which pictures are restored, where the results go, and which masks belong to them."""

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from basicsr_ext.common.errors import InputError
from basicsr_ext.common.text import listed
from basicsr_ext.images.headers import image_header
from basicsr_ext.images.inventory import (
    DATA_EXTENSIONS,
    DATA_FORMATS,
    EXTENSIONS,
    FORMATS,
    by_stem,
    images_below,
    images_of,
    same_letters,
)
from basicsr_ext.images.pictures import Picture, network_planes, read_picture
from basicsr_ext.images.values import Values


class Job(NamedTuple):
    """A picture, where its restoration goes, and its name below the folder that was given."""

    source: Path
    target: Path
    name: Path


def find_jobs(
    inputs: Sequence[str],
    output: str | Path,
    kind: str | None = "png",
    say: Callable[[str], object] = lambda text: None,
    values: Values | None = None,
) -> list[Job]:
    """List the pictures that ``inputs`` stand for: files, folders (with all that is below them) and patterns.

    Names and sub-folders are kept below ``output``, the extension becomes ``kind``, or stays where that is None. With
    ``values`` data are looked for. ``output`` may be a file name if there is one picture. ``say`` is told what was left
    out. Raises InputError if there is no picture, two would be written to one file, or a result would replace a picture
    or lie among the pictures of an input folder.
    """
    output = Path(output).expanduser()
    for text in inputs:
        if os.path.isdir(os.path.expanduser(text)) and os.path.realpath(Path(text).expanduser()) == os.path.realpath(
            output
        ):
            raise InputError(f"-o {output} is the input folder; give another one, such as {text}/restored")
    formats: Sequence[str] = (*FORMATS, "jpeg", "tiff") if values is None else (*DATA_FORMATS, "tiff")
    there = images_of(inputs, output, EXTENSIONS if values is None else DATA_EXTENSIONS)
    if not there.files:
        raise InputError(f"-i {' '.join(inputs)}: {there}")
    if there.left_out:
        say(str(there))
    single = output.suffix[1:].lower() in formats and not os.path.isdir(output)
    if not single and output.name.lower().endswith((*EXTENSIONS, *DATA_EXTENSIONS)) and not os.path.isdir(output):
        results = ", ".join(FORMATS if values is None else DATA_FORMATS)
        data = "" if values is None else f" of {values.dtype} data"
        raise InputError(f"-o {output}: results{data} are {results}; give one of these extensions, or a folder")
    if not single and os.path.lexists(output) and not os.path.isdir(output):
        raise InputError(f"-o {output} is there and is no folder; give a folder, or a file name that ends in .png")
    if single and len(there.files) > 1:
        raise InputError(f"-o {output} is one file, but -i stands for {len(there.files)} pictures; give a folder")
    sources, taken, jobs = {os.path.realpath(path) for path, _ in there.files}, dict[str, Path](), []
    for source, name in there.files:
        target = output if single else output / (name.with_suffix(f".{kind}") if kind else name)
        place = os.path.realpath(target)
        if place in sources:
            raise InputError(f"-o: {place} is one of the pictures to restore; give another folder or --format")
        if (first := taken.setdefault(os.path.normcase(place), source)) is not source:
            raise InputError(f"{first} and {source} would both become {target}; rename one of them")
        jobs.append(Job(source, target, Path(name)))
    return jobs


def is_done(job: Job, values: Values | None = None) -> bool:
    """Whether a result is there, a picture, that is newer than its own."""
    try:
        return job.target.stat().st_mtime >= job.source.stat().st_mtime and size_of(job.target, values) is not None
    except OSError:
        return False


class Given(NamedTuple):
    """All that is known of a picture to restore."""

    job: Job
    picture: Picture
    mask: Tensor | None
    cond: Tensor | None

    def shapes(self, channels: int | None) -> tuple:
        """What pictures must have in common that a network of so many channels restores at once."""
        planes = (network_planes(self.picture, channels), self.mask, self.cond)
        return tuple(None if thing is None else thing.shape for thing in planes)


def read_given(
    job: Job, masks: Mapping[Path, Path], conds: Mapping[Path, Sequence[Path]], values: Values | None = None
) -> Given:
    """Read a picture with its mask and condition images, if any; InputError if one cannot be read or does not suit."""
    cond = _read_conditions(conds[job.source], values) if conds else None
    return Given(job, read_picture(job.source, values), read_mask(masks[job.source]) if masks else None, cond)


def find_masks(masks: str | Path, jobs: Sequence[Job], values: Values | None = None) -> dict[Path, Path]:
    """Find the mask of each picture: the one file, or the file of the same name in a folder, with any extension.

    Raises InputError if a mask is missing, cannot be read, has another size than its picture, or has no hole.
    """
    chosen = _companions("--mask", masks, jobs)
    sizes = {mask: tuple(read_mask(mask).shape[1:]) for mask in dict.fromkeys(chosen.values())}
    for source, mask in chosen.items():
        if (size := size_of(source, values)) and size != sizes[mask]:
            found, wanted = (f"{height} x {width}" for height, width in (sizes[mask], size))
            said = f"has {found} pixels, {source} {wanted} (height x width)"
            raise InputError(f"--mask {mask} {said}; they must agree")
    return chosen


def size_of(picture: Path, values: Values | None = None) -> tuple[int, int] | None:
    """Height and width; None for a picture that cannot be read, which is said when its turn comes."""
    try:
        return image_header(picture, values)[:2]
    except InputError:
        return None


def find_losses(jobs: Sequence[Job], kind: str, deep: bool, channels: int | None) -> list[str]:
    """What results of the format ``kind`` do not keep of the pictures, as far as their headers tell: a line for each.

    ``deep`` is whether the results may have 16 bits, ``channels`` what the network gives.
    """
    lost: dict[str, list[Path]] = defaultdict(list)
    for job in jobs:
        with contextlib.suppress(InputError):  # which is said when its turn comes
            header = image_header(job.source)
            space = b"RGB " if header.channels > 2 or kind == "webp" or channels in (3, 4) else b"GRAY"
            other_profile = header.profile not in (b"", space) and not header.cmyk
            for what, applies in (
                ("transparency is shown on white, since jpg holds none", header.channels in (2, 4) and kind == "jpg"),
                (f"of 16 bits 8 are kept, since {kind} holds no more", header.bits == 16 and not deep),
                ("the colour profile is left out, since it is damaged or not of these colours", other_profile),
                ("EXIF, XMP, texts and resolution are left out", header.metadata),
                ("what says how colours are shown (gAMA, cHRM, cICP, nclx) is left out", header.tones),
                ("colours are converted from CMYK, without a colour profile", header.cmyk),
            ):
                if applies:
                    lost[what].append(job.name)
    return [f"{what}: {len(names)} of {len(jobs)} pictures ({listed(names)})" for what, names in lost.items()]


def find_conditions(
    places: Sequence[str | Path], jobs: Sequence[Job], values: Values | None = None
) -> dict[Path, list[Path]]:
    """The condition images of each picture, one from each place, as for masks; InputError if one is missing."""
    kinds = EXTENSIONS if values is None else DATA_EXTENSIONS
    found = [_companions("--cond", place, jobs, kinds) for place in places]
    return {job.source: [chosen[job.source] for chosen in found] for job in jobs}


def _read_conditions(paths: Sequence[Path], values: Values | None = None) -> Tensor:
    """Read condition images of one size: Cc,H,W in [0, 1], their channels one after the other, alpha included."""
    pictures = [read_picture(path, values) for path in paths]
    if values is not None:
        planes = [network_planes(picture, None) for picture in pictures]
    else:
        planes = [torch.cat([p.colours, p.alpha]) if p.alpha is not None else p.colours for p in pictures]
    if len({image.shape[1:] for image in planes}) > 1:
        sizes = ", ".join(f"{path} {image.shape[1]} x {image.shape[2]}" for path, image in zip(paths, planes))
        raise InputError(f"--cond: the images of one picture differ in size (height x width): {sizes}")
    return torch.cat(planes)


def _companions(
    flag: str, place: str | Path, jobs: Sequence[Job], extensions: Sequence[str] = EXTENSIONS
) -> dict[Path, Path]:
    """The file that belongs to each picture: the one file, or that of the same name in a folder, any extension."""
    place = Path(place).expanduser()
    if os.path.isfile(place):
        return {job.source: place for job in jobs}
    if not os.path.isdir(place):
        raise InputError(f"{flag} {place}: no such file or folder")
    there = images_below(place, extensions=extensions)
    by_name = by_stem(there)
    fitting = {job: by_name.get(same_letters(job.name.with_suffix("")), []) for job in jobs}
    if missing := [job.name for job in jobs if not fitting[job]]:
        said = f"no {flag[2:]} for {len(missing)} of {len(jobs)} pictures ({listed(missing)})"
        raise InputError(f"{flag} {place}: {said}; it holds {there}")
    if several := [job for job in jobs if len(fitting[job]) > 1]:
        said = f"{listed(fitting[several[0]])} all fit {several[0].source}"
        raise InputError(f"{flag} {place}: {said}; keep one of them")
    return {job.source: paths[0] for job, paths in fitting.items()}


def read_mask(path: str | os.PathLike[str]) -> Tensor:
    """Read a mask: 1,H,W, 1 where a colour has half of full scale or more (the hole), 0 elsewhere.

    Raises InputError if the file cannot be read, or no pixel of it is white.
    """
    mask = read_picture(path).hole.float()
    if not mask.any():
        raise InputError(f"--mask {path}: has no hole; paint white what is to be filled")
    return mask
