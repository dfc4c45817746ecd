"""The contract of a degradation, their registry, and how options become one."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch

from basicsr_ext.common.errors import InputError, UnknownName, did_you_mean
from basicsr_ext.common.option_blocks import read_block
from basicsr_ext.common.registries import claim

__all__ = [
    "DEGRADATIONS",
    "Degradation",
    "DegradationRegistry",
    "Degraded",
    "Numbered",
    "Operator",
    "build_degradation",
    "check_divisible",
    "check_image",
    "check_scale",
    "data_refusal",
    "known_operator",
]

T = TypeVar("T")


class Degraded(NamedTuple):
    """A degraded image ``lq`` (C,h,w or B,C,h,w, around [0,1]) and, where a part is missing, its ``mask``.

    ``mask`` is 1,h,w (or B,1,h,w): 1 in the hole, 0 where the image is known; ``None`` where nothing is missing.
    """

    lq: torch.Tensor
    mask: torch.Tensor | None = None


class Degradation(Protocol):
    """A frozen dataclass whose fields are its options: ``f(image, generator) -> Degraded``, without I/O.

    ``image`` is C,H,W or B,C,H,W, float in [0,1], any C; ``lq`` is smaller by ``scale`` and is not clamped.
    Every random draw takes ``generator``; a batch draws image after image, so that it equals its images degraded one
    after another with the same generator. Files that an option names are read when the degradation is built.

    Optional parts: ``refuses_data``, why it does not degrade data that are no pictures; ``at(index)``,
    the degradation that belongs to the validation image ``index`` (its own mask);
    the class attribute ``makes_mask = True`` where ``mask`` is always there; the methods of :class:`Operator`.
    """

    @property
    def scale(self) -> int:
        """Size of ``image`` divided by the size of ``lq``; 1 where the size stays."""
        ...

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> Degraded:
        """Degrade ``image``."""
        ...


@runtime_checkable
class Operator(Protocol):
    """A degradation whose operator A is known; x is B,C,H,W in [0,1], y has the shape of ``lq``.

    ``x + pseudo_inverse(y, size) - pseudo_inverse(forward(x), size)`` is consistent with the measurement y, for linear
    operators and for JPEG. ``size`` is (H, W) of x, ``mask`` the hole of an inpainting, B,1,H,W or 1,H,W.
    """

    @property
    def linear(self) -> bool:
        """Whether A is linear; then there is its transpose, ``adjoint(y, size, mask=None)``, too."""
        ...

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Apply A: what the degradation does, without its noise and without the filling of a hole."""
        ...

    def pseudo_inverse(self, y: torch.Tensor, size: tuple[int, int], mask: torch.Tensor | None = None) -> torch.Tensor:
        """Apply the pseudo-inverse of A: an image that A turns into y, as nearly as possible."""
        ...


@runtime_checkable
class Numbered(Protocol):
    """A degradation that differs from one validation image to the next; ``index`` is None where none was asked for."""

    index: int | None

    def at(self, index: int) -> Degradation:
        """Return the degradation that belongs to the validation image ``index``."""
        ...


class DegradationRegistry:
    """Degradations by name: ``@DEGRADATIONS.register("name")`` above ``@dataclass(frozen=True)``."""

    def __init__(self) -> None:
        self._classes: dict[str, type] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Give a class its ``name``, as :func:`.registries.claim`."""

        def add(cls: type[T]) -> type[T]:
            claim(self._classes, name, cls, "degradation")
            return cls

        return add

    def get(self, name: str) -> type:
        """Return the class called ``name``; raises UnknownName, an InputError, with the nearest names."""
        if name not in self._classes:
            raise UnknownName(f"degradation.type is {name!r}, which is unknown; {did_you_mean(name, self.keys())}")
        return self._classes[name]

    def keys(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(self._classes)

    def __contains__(self, name: object) -> bool:
        return name in self._classes


DEGRADATIONS = DegradationRegistry()


def build_degradation(options: Mapping[str, Any]) -> Degradation:
    """Build a degradation from ``{"type": name, **its options}``.

    Raises InputError (a ValueError) that names ``degradation.<key>`` if the type or an option is unknown or wrong.
    """
    if not isinstance(options, Mapping) or "type" not in options:
        raise InputError(
            f"degradation is {options!r}; write a mapping with its type, such as "
            f"{{type: sr4x_bicubic, scale: 4}}; {did_you_mean('', DEGRADATIONS.keys())}"
        )
    cls = DEGRADATIONS.get(options["type"])
    return read_block(cls, {key: value for key, value in options.items() if key != "type"}, "degradation")


def check_scale(scale: int) -> None:
    """Raise InputError unless the option ``scale`` of a degradation is at least 1."""
    if isinstance(scale, bool) or not isinstance(scale, int) or scale < 1:
        raise InputError(f"degradation.scale is {scale!r}; set a whole number of 1 or more")


def known_operator(degradation: Degradation) -> Operator:
    """Return ``degradation`` if its operator is known, so that results can be made consistent with ``lq``.

    Raises InputError if it has none, or draws it anew for every image.
    """
    names = DEGRADATIONS.keys()
    name = next((n for n in names if DEGRADATIONS.get(n) is type(degradation)), type(degradation).__name__)
    if not isinstance(degradation, Operator):
        known = [n for n in names if hasattr(DEGRADATIONS.get(n), "pseudo_inverse")]
        raise InputError(
            f"degradation.type is {name}, whose operator is not known; consistency with the input works "
            f"for {', '.join(known)}: choose one of them or turn consistency off"
        )
    drawn = getattr(degradation, "drawn_options", ())
    if drawn:
        raise InputError(
            f"degradation.{drawn[0]} is a range, so {name} draws its operator anew for every image; "
            "give one number or turn consistency off"
        )
    return degradation


def data_refusal(degradation: Degradation, bounded: bool) -> str | None:
    """Why data that are no pictures cannot be degraded so; None if they can.

    ``bounded`` is whether they have a smallest and a largest number. A degradation says it by ``refuses_data`` and
    ``refuses_unbounded``; those that are made of ``members`` are asked for each of them.
    """
    names = ("refuses_data",) if bounded else ("refuses_data", "refuses_unbounded")
    if said := next(filter(None, (getattr(degradation, name, None) for name in names)), None):
        return str(said)
    members = getattr(degradation, "members", ())
    return next((why for why in (data_refusal(member, bounded) for member in members) if why), None)


def check_image(image: torch.Tensor) -> None:
    """Raise InputError unless ``image`` is a float C,H,W or B,C,H,W."""
    if image.ndim not in (3, 4) or not image.is_floating_point():
        raise InputError(f"a degradation takes a float image C,H,W or B,C,H,W; got {image.dtype} {tuple(image.shape)}")


def check_divisible(image: torch.Tensor, scale: int) -> None:
    """Raise InputError unless ``image`` is a float C,H,W or B,C,H,W whose height and width ``scale`` divides."""
    check_image(image)
    height, width = image.shape[-2:]
    if height % scale or width % scale:
        raise InputError(
            f"degradation.scale is {scale}, which does not divide the image of {height}x{width} "
            f"(height x width); crop it to {height - height % scale}x{width - width % scale} "
            "or choose a scale that divides it"
        )
