"""What a classifier says of the restored images."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import nn

from basicsr_ext.common.errors import InputError
from basicsr_ext.images.arrays import to_rgb
from basicsr_ext.metrics.base import METRICS, Metric, Sample
from basicsr_ext.metrics.learned.networks import exact, loaded, metric_device, normalized, torchvision_file
from basicsr_ext.metrics.learned.weights import fill

_RESNET = torchvision_file("resnet50-0676ba61.pth")


def _resnet50(path: Path) -> nn.Module:
    from torchvision.models import resnet50

    return fill(resnet50(), _RESNET.load(str(path)), path, "resnet50")


def classify(image: np.ndarray, weights: str | None = None) -> int:
    """ImageNet class, 0 to 999, of an image H,W,C uint8: shorter side to 256, antialiased, then the centre 224.

    Raises InputError if the weights are missing or wrong.
    """
    from torchvision.transforms import functional

    model = loaded(_resnet50, _RESNET, weights)
    with exact():
        rgb = functional.resize(to_rgb(image).to(metric_device()), [256], antialias=True)
        rgb = functional.center_crop(rgb, [224, 224])
        return int(model(normalized(rgb))[0].argmax())


@METRICS.register("top1")
@dataclass
class Top1(Metric):
    """Share of images whose first class is the right one: the label, or what ResNet-50 says of the ground truth.

    With labels this is the classifier accuracy (CA) of the I2SB paper.
    """

    labels: str | None = None  # text file, a line "name class" for each image; the ground truth's class if left out
    weights: str | None = None  # file of the classifier, or folder that has it

    higher_is_better = True
    unit = "%"
    digits = 1
    packages = ("torchvision",)
    files = (_RESNET,)

    def __post_init__(self) -> None:
        self.needs = frozenset() if self.labels else frozenset({"gt"})
        against = "labels" if self.labels else "the class of the ground truth (agreement)"
        self.about = {"against": against, "crop": "256, centre 224", "colour space": "RGB"}

    @cached_property
    def _classes(self) -> dict[str, int]:
        try:
            lines = Path(str(self.labels)).expanduser().read_text(encoding="utf-8").splitlines()
            return {name: int(number) for name, number in (line.rsplit(None, 1) for line in lines if line.strip())}
        except (OSError, ValueError) as error:
            raise InputError(f"top1.labels is {self.labels}: {error}; give lines such as `name 207`") from None

    def check(self) -> None:
        """Look for package, weights and labels."""
        super().check()
        if self.labels:
            _ = self._classes

    def measure(self, sample: Sample) -> float:
        """100 where the class is right, else 0."""
        if self.labels and sample.name not in self._classes:
            raise InputError(f"top1.labels is {self.labels}, which has no line for {sample.name}; add one")
        right = self._classes[sample.name] if self.labels else classify(self.pair(sample)[1], self.weights)
        return 100.0 * (classify(sample.restored, self.weights) == right)
