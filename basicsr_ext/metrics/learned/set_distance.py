"""What FID, KID and patch-FID share: features of two sets of images, and where the reference set comes from."""

from __future__ import annotations

import contextlib
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from basicsr_ext.common.errors import InputError
from basicsr_ext.common.files import digest
from basicsr_ext.images.arrays import digest_of
from basicsr_ext.metrics.base import Metric, Sample
from basicsr_ext.metrics.learned.features import FEATURES, features
from basicsr_ext.metrics.learned.weights import WeightsFile, weights_folders

__all__ = ["ENOUGH", "SetDistance"]

ENOUGH = 2000  # images, below which FID mostly shows its bias
_KNOWN: dict[tuple, np.ndarray] = {}  # features of ground truths, which every method is compared with
_MOST_KNOWN = 20000
_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}


class SetDistance(Metric):
    """A distance between the restored images and a reference set: the ground truth, or a folder of its own.

    A record holds the features of the restored image, those of its ground truth and the digest of the latter.
    """

    per_image: ClassVar[bool] = False
    least: ClassVar[int] = 2
    extra: ClassVar[str] = "fid"

    reference: str | None
    weights: str | None

    def __post_init__(self) -> None:
        self.needs = frozenset() if self.reference else frozenset({"gt"})  # type: ignore[misc]

    @property
    def network(self) -> str:
        """The name of the features, one of FEATURES."""
        return "inception"

    @property
    def packages(self) -> tuple[str, ...]:  # type: ignore[override]
        """What the network and the distance need."""
        return tuple(dict.fromkeys((*FEATURES[self.network].packages, "torch_fidelity")))

    def weights_files(self) -> list[WeightsFile]:
        """The file of the feature network."""
        return [FEATURES[self.network].file]

    @property
    def _view(self) -> tuple[int, ...]:
        """The options that :meth:`views` depends on."""
        return ()

    def distance(self, restored: np.ndarray, reference: np.ndarray) -> float:
        """The figure from features N,D and M,D float32."""
        raise NotImplementedError

    def views(self, image: np.ndarray) -> list[np.ndarray]:
        """The parts of an image of which features are taken."""
        return [image]

    def measure(self, sample: Sample) -> dict[str, Any]:
        """Features of the restored image and of its ground truth."""
        self._check_size(sample.restored, sample.name)
        record: dict[str, Any] = {"restored": features(self.network, self.views(sample.restored), self.weights)}
        if self.reference is None:
            record |= {"reference": self._known(sample.gt), "digest": digest_of(sample.gt)}  # type: ignore[arg-type]
        return record

    def _check_size(self, image: np.ndarray, name: str) -> None:
        least = FEATURES[self.network].least
        if min(image.shape[:2]) < least:
            raise InputError(f"{name} measures {image.shape[:2]}; {self.network} takes images from {least} pixels")

    def _known(self, image: np.ndarray) -> np.ndarray:
        path = self.weights_files()[0].find(self.weights)
        key = (self.network, str(path), path.stat().st_mtime_ns, self._view, digest_of(image))
        if key not in _KNOWN:
            if len(_KNOWN) >= _MOST_KNOWN:
                _KNOWN.clear()
            _KNOWN[key] = features(self.network, self.views(image), self.weights)
        return _KNOWN[key]

    def reduce(self, records: list[dict[str, Any]]) -> float:
        """The distance of all features, in the order of the images."""
        restored = np.concatenate([record["restored"] for record in records])
        if self.reference is None:
            return self.distance(restored, np.concatenate([record["reference"] for record in records]))
        return self.distance(restored, self.reference_features())

    def check(self) -> None:
        """Look for packages, weights and reference set."""
        super().check()
        if self.reference:
            _files(self.reference, self.title)

    def reference_features(self) -> np.ndarray:
        """Features of the folder ``reference``; kept in the folder of weights, by what the folder holds."""
        assert self.reference
        files = _files(self.reference, self.title)
        weights = self.weights_files()[0].identity(self.weights)["sha256"]
        parts = (_set_digest(*_state_of(files)), weights, self.network, self._view)
        name = f"{Path(self.reference).name}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}.npy"
        places = [folder / "features" / name for folder in weights_folders(self.weights) if not folder.is_file()]
        for place in places:
            if place.is_file():
                return np.load(place, allow_pickle=False)
        found = np.concatenate([features(self.network, self.views(_read(path)), self.weights) for path in files])
        for place in places:
            with contextlib.suppress(OSError):  # a folder that can not be written merely costs time
                place.parent.mkdir(parents=True, exist_ok=True)
                np.save(place, found)
                break
        return found

    def reference_identity(self) -> dict[str, Any]:
        """Name, number of images and hash of the reference set."""
        if self.reference is None:
            digests = [self.records[index]["digest"] for index in sorted(self.records)]
            whole = hashlib.sha256("".join(digests).encode()).hexdigest()
            return {"set": "ground truth of the data set", "images": len(digests), "sha256": whole}
        files = _files(self.reference, self.title)
        return {"set": Path(self.reference).name, "images": len(files), "sha256": _set_digest(*_state_of(files))}

    def identity(self) -> dict[str, Any]:
        """With the network and what it sees."""
        return super().identity() | {"features": self.network, "colour space": "RGB", "crop": "none"}

    def provenance(self) -> dict[str, Any]:
        """With the reference set."""
        return super().provenance() | {"reference": self.reference_identity()}


def _files(reference: str, title: str) -> list[Path]:
    """The images of a reference folder, sorted; raises InputError if there are fewer than two."""
    folder = Path(reference).expanduser()
    if not folder.is_dir():
        raise InputError(f"{title}.reference is {reference}, which is no folder; name a folder of images")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS and path.is_file())
    if len(files) < 2:
        raise InputError(
            f"{title}.reference is {reference}, which holds {len(files)} image(s); a set needs at least 2, and "
            f"{ENOUGH} for an FID that can be compared"
        )
    return files


def _read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"{path} can not be read as an image; remove or replace it")
    return image


def _state_of(files: list[Path]) -> tuple[tuple[Path, ...], tuple[tuple[int, int], ...]]:
    """The files, and what changes when one of them does."""
    return tuple(files), tuple((path.stat().st_size, path.stat().st_mtime_ns) for path in files)


@lru_cache(maxsize=8)
def _set_digest(files: tuple[Path, ...], state: tuple) -> str:
    """SHA-256 over the files' own, in their order."""
    return hashlib.sha256("".join(map(digest, files)).encode()).hexdigest()
