"""The methods of a benchmark: what each is made from, how it is known again, and how it restores an image."""

import importlib.util
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from basicsr_ext.benchmark.run.runners import ForeignRunner, Runner, TrainedRunner, load_foreign
from basicsr_ext.checkpoints.networks import best_key, has_weights
from basicsr_ext.common.contracts import restorer_class_of
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.files import known_digest
from basicsr_ext.images.inventory import by_stem, images_below, same_letters
from basicsr_ext.images.values import values_of
from basicsr_ext.options.check import model_class
from basicsr_ext.preflight.networks import LOOSELY, channel_faults, network_faults
from basicsr_ext.restoring.configuration import find_options, with_flags


@dataclass(frozen=True)
class MethodOptions:
    """A method of a benchmark: one of interpolation, options or weights, spandrel and folder."""

    label: str | None = None  # in tables and pictures; default: the name
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = None  # plain enlargement
    options: str | None = None  # option file of a run; default: the one inside `weights` or of the run that wrote them
    weights: str | None = None  # trained network; default: that of the run which `options` names
    flags: Mapping[str, Any] = field(default_factory=dict)  # of `basicsr restore`; a list makes a method of each value
    spandrel: str | None = None  # weights of any architecture that the package spandrel knows
    folder: str | None = None  # images that were restored elsewhere; or its sub-folders named as the data sets
    filename_tmpl: str = "{}"  # name of an image in `folder` from that of the data set, as in BasicSR

    def __post_init__(self) -> None:
        sources = ("interpolation", "options or weights", "spandrel", "folder")
        values = (self.interpolation, self.options or self.weights, self.spandrel, self.folder)
        given = [name for name, value in zip(sources, values) if value is not None]
        if len(given) != 1:
            said = " and ".join(given) or "none of them"
            raise ValueError(f"it has {said}; give exactly one of {', '.join(sources)}")
        if self.flags and not (self.options or self.weights):
            raise ValueError("flags are those of a trained model; leave them out")
        if "{}" not in self.filename_tmpl:
            raise ValueError(f"filename_tmpl is {self.filename_tmpl!r}; it must hold {{}}, such as '{{}}_swinir'")


@dataclass(frozen=True)
class _Row:
    """One row of the tables. ``group`` is shared by the members of one curve over a flag, ``along`` its value."""

    name: str
    label: str
    kind: str
    group: str | None
    along: float | None


@dataclass(frozen=True)
class NetworkMethod(_Row):
    """A network that is loaded and called."""

    identity: Mapping[str, Any]  # everything beside the image that decides what is restored; JSON
    open: Callable[[str, int | None], Runner]  # loads it on a device, in tiles
    opt: Mapping[str, Any] | None = None  # of a registered model

    def data_faults(self, where: str, item: Mapping[str, Any]) -> list[str]:
        """Why the images of a data set, such as ``item``, cannot be restored: another scale, other channels."""
        if self.opt is None:
            return []
        name, scale = f"methods.{self.name}", self.opt.get("scale", 1)
        if (there := item["gt"].shape[-1] / item["lq"].shape[-1]) != scale:
            return [f"{name}: its scale is {scale}, but the clean images of {where} are {there:g} times as large"]
        return [f"{name}: {fault}" for fault in channel_faults(self.opt, where, item, model_class(self.opt))]


@dataclass(frozen=True)
class FolderMethod(_Row):
    """Images that were restored elsewhere, each known by its own digest."""

    folder: Path
    template: str

    @cached_property
    def _there(self) -> dict[str, list[Path]]:
        return by_stem(images_below(self.folder))

    def find(self, dataset: str, image: str) -> list[Path]:
        """The files of an image, with any extension: one if all is well."""
        place = dataset if (self.folder / dataset).is_dir() else ""
        name = PurePosixPath(place, image)
        return self._there.get(same_letters(name.parent / self.template.format(name.name)), [])


Method = NetworkMethod | FolderMethod


def expand(name: str, options: MethodOptions, scale: int, folder: Path, faults: list[str]) -> list[Method]:
    """The methods of one block, several where a flag has a list of values; adds what is wrong to ``faults``.

    ``scale`` is that of the benchmark, for ``interpolation``; paths are looked for in the current folder, then in the
    ``folder`` of the option file.
    """
    label = options.label or name
    try:
        if options.interpolation is not None:
            mode = "nearest-exact" if options.interpolation == "nearest" else options.interpolation
            network = {"type": "Interpolation", "scale": scale, "mode": mode}
            opt = {"name": name, "model_type": "RestorationModel", "scale": scale, "network_g": network}
            opt |= {"path": {}, "train": {}, "val": {}, "is_train": False}
            return [NetworkMethod(name, label, "interpolation", None, None, *_model(opt, None, {}))]
        if options.folder is not None:
            place = Path(options.folder).expanduser()
            if not place.is_dir():
                raise InputError(f"folder is {options.folder}, but there is no such folder; correct the path")
            return [FolderMethod(name, label, "folder", None, None, place, options.filename_tmpl)]
        if options.spandrel is not None:
            path = _foreign(options.spandrel, folder)
            identity = {"spandrel": known_digest(path)}
            return [NetworkMethod(name, label, "model", None, None, identity, partial(ForeignRunner, path))]
        return _trained(name, label, options, folder)
    except InputError as error:
        faults.append(f"methods.{name}: {error}")
        return []


def _file(name: str, folder: Path, option: str) -> Path:
    """A file of the current folder or of the option file's."""
    path = Path(name).expanduser()
    for place in (path, folder / path):
        if place.is_file():
            return place
    raise InputError(f"{option} is {name}, but there is no such file; correct the path")


def _foreign(name: str, folder: Path) -> Path:
    if importlib.util.find_spec("spandrel") is None:
        cure = "run: pip install 'basicsr-i2sb[foreign]' or, where it is there already, pip install spandrel"
        raise InputError(f"spandrel: the package spandrel is not installed; {cure}")
    path = _file(name, folder, "spandrel")
    load_foreign(path)
    return path


def _model(opt: Mapping[str, Any], weights: Path | None, flags: Mapping[str, Any]) -> tuple[dict, Callable, Mapping]:
    """Identity, loader and options of a registered model with weights, None for a network without any, and flags."""
    kept = {key: value for key, value in opt.items() if key not in ("name", "num_gpu", "manual_seed")}
    identity = {"opt": kept, "weights": known_digest(weights) if weights else None, "flags": dict(flags)}
    return identity, partial(TrainedRunner, opt, weights, dict(flags)), opt


def _trained(name: str, label: str, options: MethodOptions, folder: Path) -> list[Method]:
    option_file = _file(options.options, folder, "options") if options.options else None
    weights = _file(options.weights, folder, "weights") if options.weights else None
    opt, _ = find_options(weights, option_file)
    if (data := values_of(opt)) is not None:
        said = f"it was trained on {data.dtype} data, but a benchmark compares pictures"
        raise InputError(f"{said}; measure it by `basicsr test`, and compare tests by `basicsr report`")
    if weights is None and has_weights(opt):
        weights = Path("experiments", str(opt["name"]), "models", "net_g_latest.pth")
        if not weights.is_file():
            raise InputError(f"weights are not given, and there is no {weights}; train {options.options} first")
    path = {"pretrain_network_g": str(weights), "param_key_g": best_key(str(weights))} if weights else {}
    if wrong := network_faults({**opt, "path": path}):
        said = "; ".join(wrong).replace("path.pretrain_network_g is", "weights are")
        said = said.replace("path.pretrain_network_g", "weights").replace(LOOSELY.format("g"), "")
        raise InputError(said)
    several = {key: value for key, value in options.flags.items() if isinstance(value, list)}
    curve = _curve(several)
    found: list[Method] = []
    for values in itertools.product(*several.values()):
        chosen = dict(zip(several, values))
        flags = {**options.flags, **chosen}
        _check_flags(opt, flags)
        suffix = "".join(f"_{key}{value}" for key, value in chosen.items())
        said = "".join(f", {key} {value}" for key, value in chosen.items())
        rest = [f"{key} {value}" for key, value in chosen.items() if key != curve]
        group, along = (", ".join([name, *rest]), chosen[curve]) if curve else (None, None)
        model = _model(opt, weights, flags)
        found.append(NetworkMethod(name + suffix, label + said, "options", group, along, *model))
    if not found:
        raise InputError("a flag has an empty list of values; give values or leave it out")
    return found


def _curve(several: Mapping[str, list]) -> str | None:
    """The flag whose values are points of one curve: the evaluations, or else the first with several numbers."""
    numbers = [
        key
        for key, values in several.items()
        if len(values) > 1 and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    ]
    return "nfe" if "nfe" in several else numbers[0] if numbers else None


def _check_flags(opt: Mapping[str, Any], flags: Mapping[str, Any]) -> None:
    """Refuse flags that the model does not have, and values that it does not allow."""
    model = model_class(opt)
    try:
        changed = with_flags(opt, model, flags)  # type: ignore[arg-type]
    except InputError as error:
        raise InputError(f"flags: {error}") from None
    if wrong := restorer_class_of(model).option_faults(changed):
        raise InputError(f"flags: {'; '.join(wrong)}")
