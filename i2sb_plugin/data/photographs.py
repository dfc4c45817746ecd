"""The photographs bundled with scikit-image, as a training and a validation folder."""

import os
import shutil
import tempfile
from importlib import resources
from pathlib import Path

import torch

from basicsr_ext.common.errors import InputError, did_you_mean
from basicsr_ext.images.decode import decode_image
from basicsr_ext.images.pictures import Picture, write_picture

SAMPLE_PREFIX = "sample:"
DEFAULT_ROOT = "datasets/photographs"
TRAINING = {  # file inside scikit-image -> what it shows and its licence, as scikit-image states them
    "brick.png": "brick wall, CC0Textures, CC0",
    "camera.png": "cameraman by Lav Varshney, CC0",
    "coins.png": "Greek coins, Brooklyn Museum, no known copyright restrictions",
    "grass.png": "grass by linolafett, CC0",
    "gravel.png": "gravel, CC0Textures, CC0",
    "hubble_deep_field.jpg": "Hubble eXtreme Deep Field, NASA, public domain",
    "ihc.png": "stained tissue, Center for Microscopy And Molecular Imaging, no known copyright restrictions",
    "motorcycle_left.png": "motorcycle, left view, Middlebury stereo benchmark (Scharstein et al., 2014)",
    "motorcycle_right.png": "motorcycle, right view, Middlebury stereo benchmark (Scharstein et al., 2014)",
    "retina.jpg": "retina by Mikael Haeggstroem, CC0",
    "rocket.jpg": "rocket launch, SpaceX, public domain",
}
VALIDATION = {  # file -> top, left of the square that is kept, licence
    "astronaut.png": (0, 96, "Eileen Collins, NASA, public domain"),
    "chelsea.png": (6, 90, "cat by Stefan van der Walt, CC0"),
    "coffee.png": (48, 168, "coffee by Rachel Michetti, CC0"),
}
VALIDATION_SIZE = 288  # pixels; a multiple of 96, so any usual scale and network depth divides it
_COMPLETE = "README.txt"


def sample_folder(name: str, root: str | os.PathLike[str] = DEFAULT_ROOT) -> Path:
    """Return the folder behind ``sample:train`` or ``sample:val``, prepared on first use; InputError for another."""
    known = {f"{SAMPLE_PREFIX}{part}": part for part in ("train", "val")}
    if name not in known:
        raise InputError(f"dataroot_gt is {name!r}; {did_you_mean(name, known)}")
    return prepare(root) / known[name]


def prepare(root: str | os.PathLike[str] = DEFAULT_ROOT) -> Path:
    """Write ``train/`` and ``val/`` (8-bit RGB PNG, no photograph in both) below ``root`` and return it.

    A prepared folder is left as it is. The folder appears complete or not at all, also when several processes call.
    Nothing is fetched. Raises InputError if ``root`` holds something else or scikit-image's files are not there.
    """
    root = Path(root)
    if (root / _COMPLETE).is_file():
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}-"))
    try:
        staging.chmod(0o755)
        _write_all(staging)
        os.rename(staging, root)
    except OSError as error:
        if not (root / _COMPLETE).is_file():  # else another process was faster
            said = f"the sample photographs cannot be put there ({error.strerror})"
            raise InputError(f"{root}: {said}; remove that folder or choose another one") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return root


def _write_all(folder: Path) -> None:
    """Write both folders and, last, the note that says where they come from."""
    for file in TRAINING:
        write_picture(folder / "train" / Path(file).with_suffix(".png"), Picture(_load(file)))
    for file, (top, left, _) in VALIDATION.items():
        square = _load(file)[:, top : top + VALIDATION_SIZE, left : left + VALIDATION_SIZE]
        write_picture(folder / "val" / file, Picture(square))
    notes = [f"train/{Path(file).with_suffix('.png')}: {note}" for file, note in TRAINING.items()]
    notes += [f"val/{file}: {note[-1]}" for file, note in VALIDATION.items()]
    text = ("Photographs bundled with scikit-image (skimage.data), with the licence stated there.\n"
            "Grey ones are stored as RGB; validation ones are squares.\n\n")  # fmt: skip
    (folder / _COMPLETE).write_text(text + "\n".join(notes) + "\n", encoding="utf-8")


def _load(file: str) -> torch.Tensor:
    """Load a photograph from inside the installed scikit-image as RGB in [0,1]."""
    try:
        data = (resources.files("skimage") / "data" / file).read_bytes()
    except (ImportError, OSError) as error:
        raise InputError(
            f"the sample photograph {file} is not in the installed scikit-image ({error}); "
            "install scikit-image, or set dataroot_gt to a folder of images of your own"
        ) from error
    return decode_image(data, file, channels=3, grey_to_rgb=True)
