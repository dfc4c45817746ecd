"""Whether the restored image, degraded again, is the input."""

import math
from dataclasses import dataclass

import torch

from basicsr_ext.images.arrays import to_planes
from basicsr_ext.metrics.base import METRICS, Metric, Sample


@METRICS.register("consistency")
@dataclass
class Consistency(Metric):
    """PSNR between A(restored) and the input, for a degradation A that is known and without its noise.

    The input has 8 bits, so a perfect restoration reaches about 59 dB; where pixels are missing they do not count.
    """

    higher_is_better = True
    unit = "dB"
    digits = 2
    needs = frozenset({"lq", "operator"})

    def measure(self, sample: Sample) -> float:
        """The PSNR of one image."""
        assert sample.operator is not None and sample.lq is not None
        with torch.no_grad():
            again = sample.operator((to_planes(sample.restored).double() / 255).float()).double().clamp(0, 1)
        error = (again.cpu() - to_planes(sample.lq).double() / 255).square()
        if sample.hole is not None:
            error = error[..., torch.from_numpy(~sample.hole)]
        mse = float(error.mean()) if error.numel() else 0.0
        return math.inf if mse == 0 else -10 * math.log10(mse)
