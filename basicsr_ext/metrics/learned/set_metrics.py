"""FID and KID, by torch-fidelity or by clean-fid in the mode of the I2SB paper, and the FID of crops."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from basicsr_ext.common.errors import InputError
from basicsr_ext.metrics.base import METRICS
from basicsr_ext.metrics.learned.features import FEATURES
from basicsr_ext.metrics.learned.set_distance import ENOUGH, SetDistance

Layer = Literal[64, 192, 768, 2048]


def frechet(restored: np.ndarray, reference: np.ndarray) -> float:
    """Fréchet distance of features N,D and M,D float32, as torch-fidelity computes it."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    statistics = [fid_features_to_statistics(torch.from_numpy(part)) for part in (restored, reference)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"])


def _frechet_by_root(restored: np.ndarray, reference: np.ndarray) -> float:
    """The same by the root of a matrix, as clean-fid computes it, which newer SciPy keeps from running."""
    from scipy import linalg

    (mean, spread), (mean_, spread_) = ((part.mean(0), np.cov(part, rowvar=False)) for part in (restored, reference))
    root = linalg.sqrtm(spread.dot(spread_))
    if not np.isfinite(root).all():  # nearly singular
        eps = 1e-6 * np.eye(len(spread))
        root = linalg.sqrtm((spread + eps).dot(spread_ + eps))
    if not np.allclose(np.diagonal(root).imag, 0, atol=1e-3):
        raise InputError("fid: the covariances of the features have no real root; give more images, or use kid")
    difference = mean - mean_
    return float(difference.dot(difference) + np.trace(spread) + np.trace(spread_) - 2 * np.trace(root.real))


@METRICS.register("fid")
@dataclass
class FID(SetDistance):
    """Fréchet distance of Inception features between the restored images and the reference set; not a mean of images.

    Source: Heusel et al., NeurIPS 2017 (1706.08500).
    """

    mode: Literal["tensorflow", "legacy_pytorch"] = "tensorflow"  # that of torch-fidelity, or of clean-fid and I2SB
    layer: Layer = 2048  # of Inception; a plain FID takes 2048

    digits = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode == "legacy_pytorch" and self.layer != 2048:
            raise ValueError(f"layer is {self.layer}, but mode legacy_pytorch has 2048 alone; leave one of them out")
        resize = "bilinear to 299, TensorFlow 1.x" if self.mode == "tensorflow" else "bilinear to 299, not antialiased"
        self.about = {**self.about, "resize": resize}

    @property
    def network(self) -> str:
        """Inception as the mode and the layer want it."""
        return "inception_pytorch" if self.mode == "legacy_pytorch" else super().network

    def distance(self, restored: np.ndarray, reference: np.ndarray) -> float:
        """As the library of the mode has it."""
        return (frechet if self.mode == "tensorflow" else _frechet_by_root)(restored, reference)

    def notes(self) -> list[str]:
        """A warning of small sets."""
        count = min(len(self.records), self.reference_identity()["images"]) if self.records else ENOUGH
        few = f"FID of {count} images mostly shows how few they are: it is biased below {ENOUGH}; "
        return [few + "use kid or patch_fid instead"] if count < ENOUGH else []


@METRICS.register("kid")
@dataclass
class KID(SetDistance):
    """Squared maximum mean discrepancy of Inception features: unbiased, so small sets are no fault, merely uncertain.

    Source: Binkowski et al., ICLR 2018 (1801.01401).
    """

    subset_size: int | None = None  # images in a subset; the smaller set, at most 1000, if left out
    subsets: int = 100  # how many are drawn and averaged
    layer: Layer = 2048  # of Inception

    digits = 5

    def distance(self, restored: np.ndarray, reference: np.ndarray) -> float:
        """The library's own distance, with its own seed."""
        from torch_fidelity.metric_kid import kid_features_to_metric

        count = min(len(restored), len(reference))
        size = min(1000, count) if self.subset_size is None else self.subset_size
        if not 2 <= size <= count:
            raise InputError(
                f"kid.subset_size is {size}, but the sets have {len(restored)} and {len(reference)} images; set it "
                f"from 2 to {count} or leave it out"
            )
        sets = (torch.from_numpy(part) for part in (restored, reference))
        found = kid_features_to_metric(*sets, kid_subsets=self.subsets, kid_subset_size=size, verbose=False)
        return float(found["kernel_inception_distance_mean"])


@METRICS.register("patch_fid")
@dataclass
class PatchFID(SetDistance):
    """Fréchet distance of features of crops on a grid, for sets too small for FID; compare equal options alone.

    The crops of both sets lie at the same places.
    """

    features: Literal["inception", "vgg16", "alexnet"] = "inception"  # the network
    patch: int = 128  # side of a crop in pixels
    stride: int = 64  # from one crop to the next

    least = 1
    digits = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        smallest = FEATURES[self.features].least
        if self.patch < smallest:
            raise InputError(f"patch_fid.patch is {self.patch}; {self.features} takes crops from {smallest} pixels")
        if self.stride < 1:
            raise InputError(f"patch_fid.stride is {self.stride}; set a number of pixels from 1")
        self._view = (self.patch, self.stride)
        self.about = {**self.about, "crop": f"{self.patch} every {self.stride} pixels"}

    @property
    def network(self) -> str:
        """The option ``features``."""
        return self.features

    def views(self, image: np.ndarray) -> list[np.ndarray]:
        """The crops, row by row; raises InputError where the image is smaller than one."""
        height, width = image.shape[:2]
        if min(height, width) < self.patch:
            raise InputError(f"patch_fid.patch is {self.patch}, but an image measures {height}x{width}; set less")
        tops, lefts = (range(0, side - self.patch + 1, self.stride) for side in (height, width))
        return [image[y : y + self.patch, x : x + self.patch] for y in tops for x in lefts]

    def distance(self, restored: np.ndarray, reference: np.ndarray) -> float:
        """torch-fidelity's distance."""
        if min(len(restored), len(reference)) < 2:
            raise InputError("patch_fid has fewer than 2 crops; set a smaller patch or stride, or add images")
        return frechet(restored, reference)

    @property
    def crops(self) -> int:
        """Number of crops of the restored images."""
        return sum(len(record["restored"]) for record in self.records.values())

    def notes(self) -> list[str]:
        """A warning where there are fewer crops than features."""
        first = next(iter(self.records.values()), None)
        if first is None or self.crops > first["restored"].shape[1]:
            return []
        return [
            f"{self.crops} crops give no full covariance of {first['restored'].shape[1]} features; "
            "set a smaller stride, or features with fewer dimensions (alexnet has 256)"
        ]

    def provenance(self) -> dict[str, Any]:
        """With the number of crops."""
        return super().provenance() | {"crops": self.crops}
