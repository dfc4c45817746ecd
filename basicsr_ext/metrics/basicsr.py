"""Everything that BasicSR's own registry of metrics holds, used as it is."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from basicsr.utils.registry import METRIC_REGISTRY

from basicsr_ext.common import registries
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.option_blocks import call_faults
from basicsr_ext.metrics.base import Metric, Sample

_SIDES = {"calculate_niqe": (96, 192), "calculate_ssim": (11, 11)}  # two blocks of 96 x 96; a window
_OF_NUMBERS = ("calculate_psnr", "calculate_ssim")  # whose formulae hold for any numbers of that range
_LOWER = ("niqe", "lpips", "dists", "fid")  # words in the names of metrics whose lower figures are the better ones


@dataclass
class BasicSRMetric(Metric):
    """A function of BasicSR's registry: its name and the arguments that the option file gives it."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    higher_is_better: bool = True

    packages = ("basicsr",)

    @classmethod
    def of(cls, options: Mapping[str, Any], where: str) -> BasicSRMetric:
        """Build it from one block of an option file; raises InputError for a wrong option."""
        name = options["type"]
        arguments = {key: value for key, value in options.items() if key not in ("type", "better")}
        better = options.get("better") or ("lower" if any(word in name.lower() for word in _LOWER) else "higher")
        metric = cls(name, arguments, better == "higher")
        faults = call_faults(metric._function, arguments, where, ("img", "img1", "img2", "self"))
        if (order := arguments.get("input_order", "HWC")) != "HWC":
            faults.append(f"{where}.input_order is {order!r}, but images are measured as HWC; drop it")
        if better not in ("higher", "lower"):
            faults.append(f"{where}.better is {better!r}; write higher or lower")
        if faults:
            raise InputError("; ".join(faults))
        return metric

    def __post_init__(self) -> None:
        found = registries.find(METRIC_REGISTRY, self.name)
        assert found is not None, self.name
        self._function = found
        self._takes = [name for name in ("img", "img2") if name in inspect.signature(found).parameters]
        self.unit, self.digits = ("dB", 2) if "psnr" in self.name.lower() else ("", 4)
        self.needs = frozenset({"gt"} if "img2" in self._takes else ())
        in_colour = self.arguments.get("test_y_channel", False)
        self.takes_data = self.name in _OF_NUMBERS and not in_colour
        self.crop_border = self.arguments.get("crop_border", 0)
        self.least_sides = _SIDES.get(self.name, (1, 1))

    def measure(self, sample: Sample) -> float:
        """The figure of one image."""
        images = {"img": sample.restored, "img2": sample.gt}
        return float(self._function(**{key: images[key] for key in self._takes}, **self.arguments))

    def data_refusal(self, where: str) -> str:
        """As the base says it; of a figure of brightness that the option can be left out."""
        if self.name in _OF_NUMBERS:
            return f"{self.name} with test_y_channel looks at colours, but {where} holds data; leave that option out"
        return super().data_refusal(where)

    @property
    def title(self) -> str:
        """Its name in BasicSR's registry."""
        return self.name

    def identity(self) -> dict[str, Any]:
        """Library and arguments, crop and colour space among them."""
        found = super().identity()
        del found["name"], found["arguments"], found["higher_is_better"]
        colour = "Y of YCbCr (ITU-R BT.601)" if self.arguments.get("test_y_channel") else "as in the image"
        return found | self.arguments | {"colour space": colour}
