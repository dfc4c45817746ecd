"""Any image-to-image network as the inside of a bridge's network: its class, and the channels and scale that fit."""

import contextlib
import importlib
import inspect
import io
import pkgutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from basicsr_ext.checkpoints.networks import INPUTS, OUTPUTS, SCALES, network_multiple
from basicsr_ext.common import registries
from basicsr_ext.common.errors import InputError, UnknownName, did_you_mean
from basicsr_ext.common.option_blocks import call_faults

__all__ = ["Fit", "build_inner", "fit_network", "network_class"]

WHERE = "network_g.network"
FOREIGN = "spandrel."
_LEAST, _LARGEST = 16, 64  # pixels: the smallest image of a trial, the largest multiple that is tried


@dataclass(frozen=True)
class Fit:
    """How a network is built, and what it then does."""

    cls: Callable[..., nn.Module]
    arguments: Mapping[str, Any]
    scale: int  # how much larger its image becomes
    outputs: int  # channels that it gives
    multiple: int  # what the sides of its input must be multiples of
    smallest: int  # and what they must be at least


@dataclass(frozen=True)
class _Form:
    """A way to build a network that may serve."""

    arguments: Mapping[str, Any]
    scale: int
    needed: int  # channels that it must give
    exact: bool  # and no more


def network_class(name: object) -> Callable[..., nn.Module]:
    """The class that ``network.type`` names: registered in BasicSR, or ``spandrel.NAME`` of the package spandrel.

    Raises:
        ValueError: there is none, spandrel is not installed, or it takes more than an image.
    """
    if isinstance(name, str) and name.startswith(FOREIGN):
        known = _spandrel_classes(name)
        cls = known.get(name)
    else:
        known = {one: one for one in registries.names(ARCH_REGISTRY)}
        cls = registries.find(ARCH_REGISTRY, name)
    if cls is None:
        said = "missing; give one" if name is None else f"{name!r}, which is not known"
        raise UnknownName(f"{WHERE}.type is {said}; {did_you_mean(name or '', known)}")
    if isinstance(cls, type) and issubclass(cls, nn.Module):
        taken = inspect.signature(cls.forward)
        try:
            taken.bind(None, None)
        except TypeError:
            raise InputError(
                f"{WHERE}.type is {name}, which takes ({', '.join(list(taken.parameters)[1:])}); the adapter gives one "
                "image. A network that takes the time and the condition itself is network_g.type, without an adapter; "
                "other networks cannot serve"
            ) from None
    return cls


def _spandrel_classes(name: str) -> dict[str, Any]:
    try:
        home = importlib.import_module("spandrel.architectures")
        modules = [part.name for part in pkgutil.iter_modules(home.__path__) if not part.name.startswith("_")]
        parts = [importlib.import_module(f"spandrel.architectures.{part}") for part in modules]
    except ImportError as error:
        raise InputError(
            f"{WHERE}.type is {name}, which needs the package spandrel ({error}); "
            "run: pip install 'basicsr-i2sb[foreign]'"
        ) from error
    named = {f"{FOREIGN}{key}": vars(part).get(key) for part in parts for key in vars(part).get("__all__", ())}
    return {key: cls for key, cls in named.items() if isinstance(cls, type) and issubclass(cls, nn.Module)}


def fit_network(block: Mapping[str, Any], inputs: int, out_channels: int, unshuffle: int) -> Fit:
    """Find by trial how the network of ``block`` takes ``inputs`` channels and gives an image.

    It is built for ``out_channels`` times the square of ``unshuffle`` channels, or, where it adds its input to its
    output, for as many as it takes; at scale 1, or, where there is no such scale, at ``unshuffle``. The first form
    that gives an image of the right size, and in which weights matter, is taken. Nothing is drawn from the random
    stream.

    Raises:
        ValueError: an option that the adapter sets itself has another value, or no form serves; says why.
    """
    name = block.get("type")
    cls = network_class(name)
    _check_options(cls, block, inputs, out_channels, unshuffle)
    fit, reason = _first_fit(cls, block, inputs, out_channels, unshuffle)
    if fit is not None:
        return fit
    scaled, cure = _settings(cls)[2], ""
    if scaled and scaled not in block and unshuffle == 1:
        channels = inputs - 1
        serving = [u for u in (2, 4) if _first_fit(cls, block, channels * u * u + 1, out_channels, u, ["meta"])[0]]
        cure = f"; it serves with network_g.unshuffle: {' or '.join(map(str, serving))}" if serving else ""
    raise InputError(f"{WHERE}.type is {name}, which the adapter cannot use: {reason}{cure}")


def _first_fit(
    cls: Callable[..., nn.Module],
    block: Mapping[str, Any],
    inputs: int,
    out_channels: int,
    unshuffle: int,
    devices: Sequence[str] = ("meta", "cpu"),  # a value that is computed while building or running has no meta form
) -> tuple[Fit | None, str]:
    """The first form that serves, or None and why the first of them does not."""
    reasons: list[str] = []
    forms = list(_forms(cls, block, inputs, out_channels, unshuffle))
    for device in devices:
        reasons.clear()
        for form in forms:
            with torch.random.fork_rng(devices=[]), torch.device(device), _silence():
                try:
                    return _try(cls, form, inputs), ""
                except Exception as error:  # a class refuses its arguments or images in whatever way it likes
                    reasons.append(str(error).splitlines()[0] if str(error) else type(error).__name__)
    return None, reasons[0]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _check_options(
    cls: Callable[..., nn.Module], block: Mapping[str, Any], inputs: int, out_channels: int, unshuffle: int
) -> None:
    """InputError for options of another value than the adapter gives them, and for what the class does not take."""
    takes, gives, scaled = _settings(cls)
    if takes is None:
        raise InputError(
            f"{WHERE}.type is {block['type']}, which has no option for the channels that it takes "
            f"({', '.join(INPUTS)}); it cannot be given xt, the condition and the time"
        )
    scales = [scale for scale in (1, 2, 4) if unshuffle % scale == 0]
    counts = [out_channels * (unshuffle // scale) ** 2 for scale in scales]
    allowed: dict[str, tuple[list[int], str]] = {
        takes: ([inputs], "xt, the condition and the time are that many channels"),
        str(gives): ([*counts, inputs], "the adapter sets it"),
        str(scaled): (scales, f"network_g.unshuffle is {unshuffle}, and the image stays as large as it is"),
        "rgb_mean": ([], "the bridge's images lie about 0"),
    }
    faults = []
    for option, (values, why) in allowed.items():
        if option in block and block[option] not in values:
            set_it = f"set it to {' or '.join(map(str, dict.fromkeys(values)))}, or " if values else ""
            faults.append(f"{WHERE}.{option} is {block[option]}, but {why}; {set_it}leave it out")
    if not faults:
        form = next(_forms(cls, block, inputs, out_channels, unshuffle))
        faults = call_faults(cls, form.arguments, WHERE)
    if faults:
        raise InputError("; ".join(faults))


def _forms(
    cls: Callable[..., nn.Module], block: Mapping[str, Any], inputs: int, out_channels: int, unshuffle: int
) -> Iterator[_Form]:
    """Forms that may serve, the cheapest first."""
    takes, gives, scaled = _settings(cls)
    given = {key: value for key, value in block.items() if key != "type"} | {str(takes): inputs}
    if "rgb_mean" in inspect.signature(cls).parameters:
        given["rgb_mean"] = (0.0, 0.0, 0.0)
    scales = [given[scaled]] if scaled in given else [1, unshuffle] if scaled else [1]
    for scale in dict.fromkeys(scales):
        arguments = given | ({scaled: scale} if scaled else {})
        folded = out_channels * (unshuffle // scale) ** 2
        for count in dict.fromkeys([given.get(gives, folded), given.get(gives, inputs)] if gives else [folded]):
            yield _Form(arguments | ({gives: count} if gives else {}), scale, count, exact=gives is not None)


def _settings(cls: Callable[..., nn.Module]) -> tuple[str | None, str | None, str | None]:
    """What the class calls the channels that it takes, those that it gives, if these are apart, and its scale."""
    takes = _first(cls, INPUTS)
    return takes, _first(cls, [option for option in OUTPUTS if option != takes]), _first(cls, SCALES)


def _first(cls: Callable[..., nn.Module], names: Any) -> str | None:
    """The first of ``names`` that the class takes as a whole number."""
    found = inspect.signature(cls).parameters
    usual = (int, type(None), type(inspect.Parameter.empty))
    return next((name for name in names if name in found and isinstance(found[name].default, usual)), None)


def build_inner(cls: Callable[..., nn.Module], arguments: Mapping[str, Any]) -> nn.Module:
    """Build the network, with random weights; one that takes the mean colour of photographs away does so no more."""
    net = cls(**arguments)
    mean = vars(net).get("mean")
    if torch.is_tensor(mean) and mean.shape == (1, 3, 1, 1):  # of three channels, whatever it gets, in EDSR and RCAN
        net.mean = torch.zeros(1, 1, 1, 1)
    return net


def _try(cls: Callable[..., nn.Module], form: _Form, inputs: int) -> Fit:
    """Build a network in this form and call it; raises whatever the network raises, ValueError if it gives no image."""
    net = build_inner(cls, form.arguments).eval()
    least = network_multiple(net)
    multiples = [least * 2**k for k in range(8) if not k or least * 2**k <= _LARGEST]
    with contextlib.suppress(Exception):
        return _fit(cls, net, form, inputs, least)
    _outputs(net, form, inputs, _side(multiples[-1]), multiples[-1])  # what fails here too does not fail for its size
    for multiple in multiples[1:-1]:
        with contextlib.suppress(Exception):
            return _fit(cls, net, form, inputs, multiple)
    return _fit(cls, net, form, inputs, multiples[-1])


def _fit(cls: Callable[..., nn.Module], net: nn.Module, form: _Form, inputs: int, multiple: int) -> Fit:
    """How ``net`` serves for sides that are multiples of ``multiple``; raises what it raises if it does not."""
    smallest = _side(multiple)
    outputs = _outputs(net, form, inputs, smallest, multiple)
    with contextlib.suppress(Exception):
        outputs, smallest = _outputs(net, form, inputs, multiple, 0), multiple
    return Fit(cls, form.arguments, form.scale, outputs, multiple, smallest)


def _side(multiple: int) -> int:
    """A side for a trial: an odd multiple, so that no larger one hides in it."""
    return multiple * (-(-_LEAST // multiple) // 2 * 2 + 1)


def _outputs(net: nn.Module, form: _Form, inputs: int, height: int, multiple: int) -> int:
    """Channels that the network gives for an image of this height, whose width is twice the multiple larger."""
    width = height + 2 * multiple
    with torch.enable_grad():
        found = net(torch.zeros(1, inputs, height, width))
    if not isinstance(found, Tensor):
        raise ValueError(f"it gives no image but a {type(found).__name__}")
    shape, size = tuple(found.shape), (form.scale * height, form.scale * width)
    if len(shape) != 4 or shape[2:] != size or shape[1] < form.needed or (form.exact and shape[1] != form.needed):
        wanted = (1, form.needed, *size)
        raise ValueError(f"it gives {shape} instead of {wanted} (batch, channels, height, width)")
    if not found.requires_grad:
        raise ValueError("what it gives does not depend on its weights; see its options, such as upsampler")
    return shape[1]
