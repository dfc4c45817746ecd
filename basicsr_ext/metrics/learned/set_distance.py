"""What FID, KID and patch-FID share: features of two sets of images, and where the reference set comes from."""

import contextlib
import hashlib
import logging
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from basicsr_ext.common.errors import InputError
from basicsr_ext.common.files import known_digest
from basicsr_ext.images.arrays import digest_of, to_bgr
from basicsr_ext.images.decode import read_pixels
from basicsr_ext.images.inventory import images_below
from basicsr_ext.metrics.base import Metric, Sample
from basicsr_ext.metrics.learned.features import FEATURES, features
from basicsr_ext.metrics.learned.weights import weights_folders

ENOUGH = 2000  # images, below which FID mostly shows its bias
_MOST_KNOWN = 20000


@lru_cache(maxsize=8)
def _known(weights: str, network: str, view: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Features of ground truths by their digests: every method and every validation is compared with the same."""
    return {}


@dataclass
class SetDistance(Metric):
    """A distance between the restored images and a reference set: the ground truth, or a folder of its own.

    A record holds the features of the restored image, those of its ground truth and the digest of the latter.
    """

    per_image = False
    least = 2
    extra = "fid"
    layer = 2048  # an option of metrics that make it a field

    reference: str | None = None  # folder of images; the ground truth of the data set if left out
    weights: str | None = None  # file of the feature network, or folder that has it

    def __post_init__(self) -> None:
        self.needs = frozenset() if self.reference else frozenset({"gt"})
        self.packages = (*FEATURES[self.network].packages, "torch_fidelity")
        self.files = (FEATURES[self.network].file,)
        self.about = {"features": self.network, "colour space": "RGB", "crop": "none"}
        self._view: tuple[int, ...] = ()  # the options that `views` depends on

    @property
    def network(self) -> str:
        """The name of the features, one of FEATURES: Inception at the option ``layer``."""
        return "inception" if self.layer == 2048 else f"inception_{self.layer}"

    def distance(self, restored: np.ndarray, reference: np.ndarray) -> float:
        """The figure from features N,D and M,D float32."""
        raise NotImplementedError

    def views(self, image: np.ndarray) -> list[np.ndarray]:
        """The parts of an image of which features are taken."""
        return [image]

    def measure(self, sample: Sample) -> dict[str, Any]:
        """Features of the restored image and of its ground truth."""
        size, least = sample.restored.shape[:2], FEATURES[self.network].least
        if min(size) < least:
            raise InputError(f"{sample.name} measures {size}; {self.network} takes images from {least} pixels")
        record: dict[str, Any] = {"restored": self._features(sample.restored)}
        if not self.reference:
            gt = self.pair(sample)[1]
            known, key = _known(*self._source), digest_of(gt)
            if key not in known:
                if len(known) >= _MOST_KNOWN:
                    known.clear()
                known[key] = self._features(gt)
            record |= {"reference": known[key], "digest": key}
        return record

    def _features(self, image: np.ndarray) -> np.ndarray:
        return features(self.network, self.views(image), self.weights)

    @property
    def _source(self) -> tuple[str, str, tuple[int, ...]]:
        """What features depend on beside the image: digest of the weights, network, view."""
        return known_digest(self.files[0].find(self.weights)), self.network, self._view

    def reduce(self, records: list[dict[str, Any]]) -> float:
        """The distance of all features, in the order of the images."""
        restored = np.concatenate([record["restored"] for record in records])
        if self.reference:
            return self.distance(restored, self.reference_features())
        return self.distance(restored, np.concatenate([record["reference"] for record in records]))

    def check(self) -> None:
        """Look for packages, weights and reference set."""
        super().check()
        if self.reference:
            _ = self._reference_files

    @cached_property
    def _reference_files(self) -> list[Path]:
        """The images of the reference folder, sorted; raises InputError if there are fewer than two."""
        where, folder = f"{self.title}.reference is {self.reference}", Path(str(self.reference)).expanduser()
        if not folder.is_dir():
            raise InputError(f"{where}, which is no folder; name a folder of images")
        there = images_below(folder)
        if there.left_out:
            logging.getLogger("basicsr").warning(f"{self.title}.reference {self.reference}: {there}")
        if (count := len(there.files)) < 2:
            needed = f"a set needs at least 2, and {ENOUGH} for an FID that can be compared"
            raise InputError(f"{where}, which holds {count} image(s); {needed}")
        return sorted(path for path, _ in there.files)

    def reference_features(self) -> np.ndarray:
        """Features of the folder ``reference``; kept in the folder of weights, by what the folder holds."""
        assert self.reference
        files = self._reference_files
        parts = (_set_digest(files), *self._source)
        name = f"{Path(self.reference).name}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}.npy"
        places = [folder / "features" / name for folder in weights_folders(self.weights) if not folder.is_file()]
        for place in filter(Path.is_file, places):
            return np.load(place, allow_pickle=False)
        found = np.concatenate([self._features(to_bgr(read_pixels(path))) for path in files])
        for place in places:
            with contextlib.suppress(OSError):  # a folder that cannot be written merely costs time
                place.parent.mkdir(parents=True, exist_ok=True)
                np.save(place, found)
                break
        return found

    def reference_identity(self) -> dict[str, Any]:
        """Name, number of images and hash of the reference set."""
        if not self.reference:
            digests = [self.records[index]["digest"] for index in sorted(self.records)]
            whole = hashlib.sha256("".join(digests).encode()).hexdigest()
            return {"set": "ground truth of the data set", "images": len(digests), "sha256": whole}
        files = self._reference_files
        return {"set": Path(self.reference).name, "images": len(files), "sha256": _set_digest(files)}

    def provenance(self) -> dict[str, Any]:
        """With the reference set."""
        return super().provenance() | {"reference": self.reference_identity()}


def _set_digest(files: list[Path]) -> str:
    return hashlib.sha256("".join(map(known_digest, files)).encode()).hexdigest()
