"""What an option file may name: entries of BasicSR's registries, torch's optimisers, schedules; what classes read."""

import ast
import dataclasses
import functools
import inspect
import re
import sys
from collections.abc import Collection
from types import ModuleType
from typing import Any

_SUFFIX = "_basicsr"
# What an option file cannot give: closures, sparse gradients, matrices alone; functions, other schedules, a metric
_NO_OPTIMIZERS = ("Optimizer", "LBFGS", "SparseAdam", "Muon")
_NO_SCHEDULES = ("LRScheduler", "LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler", "ReduceLROnPlateau")


def find(registry: Any, name: object) -> Any | None:
    """Return what is registered under ``name`` (or under ``name_basicsr``, as BasicSR looks it up), else None."""
    if not isinstance(name, str):
        return None
    entries = dict(iter(registry))
    return entries.get(name, entries.get(f"{name}{_SUFFIX}"))


def names(registry: Any) -> list[str]:
    """The names that an option file may give as ``type``, sorted."""
    keys = set(registry.keys())
    return sorted({k.removesuffix(_SUFFIX) if k.removesuffix(_SUFFIX) not in keys else k for k in keys})


def providers(registry: Any) -> dict[str, str]:
    """Map each usable name to the module that provides it."""
    return {name: getattr(find(registry, name), "__module__", "?") for name in names(registry)}  # a partial has none


def all_registries() -> dict[str, Any]:
    """Every registry in the loaded modules by its own name: BasicSR's five, then those that plugins brought."""
    from basicsr.utils import registry as home

    skipped = ("torch", "torchvision", "numpy", "scipy", "cv2")
    others = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] not in skipped]
    things = [thing for module in (home, *others) if module is not None for thing in list(vars(module).values())]
    return {thing._name: thing for thing in things if isinstance(thing, home.Registry)}


def claim(classes: dict[str, type], name: str, cls: type, kind: str) -> None:
    """Enter a dataclass, whose fields are options, under its ``name``; doing it again is harmless.

    Raises TypeError if the class is no dataclass, ValueError if the name belongs to another class.
    """
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{kind} '{name}': {cls.__name__} must be a dataclass; put @dataclass below its registration")
    taken, own = (f"{one.__module__}.{one.__qualname__}" for one in (classes.get(name, cls), cls))
    if taken != own:
        raise ValueError(f"{kind} '{name}' is registered by {taken}; choose another name for {own}")
    classes[name] = cls


def mentioned_keys(cls: type) -> frozenset[str]:
    """The words that stand as text in the modules of ``cls`` and its bases: the options that it can read among them.

    Classes without a declaration of their options read them as ``opt['key']``; this finds the keys without running.
    """
    modules = {base.__module__ for base in cls.__mro__}
    skipped = ("builtins", "torch", "abc", "typing")
    return frozenset().union(*(_words(name) for name in modules if name.partition(".")[0] not in skipped))


def needed_keys(cls: type) -> dict[str, set[str]]:
    """The keys that a model of BasicSR's kind takes for granted: of the option file ("") and of its block "train".

    Read from the methods that build networks, optimisers and schedules, without running them.
    """
    found: dict[str, set[str]] = {"": set(), "train": set()}
    for name in ("__init__", "init_training_settings", "setup_optimizers", "setup_schedulers"):
        for method in (vars(base)[name] for base in cls.__mro__ if name in vars(base)):
            try:
                text = inspect.getsource(method)
            except (OSError, TypeError):  # written in C, or typed in
                break
            found[""] |= set(re.findall(r"""(?:self\.|\b)opt\[['"](\w+)['"]\]""", text))
            found["train"] |= set(re.findall(r"""(?:train_opt|opt\[['"]train['"]\])\[['"](\w+)['"]\]""", text))
            if f"super().{name}(" not in text and f", self).{name}(" not in text:
                break
    return found


@functools.lru_cache(maxsize=256)
def _words(module: str) -> frozenset[str]:
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (KeyError, OSError, TypeError, SyntaxError):
        return frozenset()
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return frozenset(text for text in texts if isinstance(text, str) and text.isidentifier())


def known_optimizers() -> dict[str, type[Any]]:
    """The optimisers of torch that an option file can build for any network, by name."""
    import torch

    return _subclasses(torch.optim, torch.optim.Optimizer, _NO_OPTIMIZERS)


def known_schedulers() -> dict[str, type[Any]]:
    """Schedules by name; a name that both have means BasicSR's, not torch's. All are stepped once per iteration."""
    from basicsr.models import lr_scheduler
    from torch.optim import lr_scheduler as torch_schedulers

    restart, cosine = lr_scheduler.MultiStepRestartLR, lr_scheduler.CosineAnnealingRestartLR
    ours = {"MultiStepLR": restart, "MultiStepRestartLR": restart, "CosineAnnealingRestartLR": cosine}
    return _subclasses(torch_schedulers, torch_schedulers.LRScheduler, _NO_SCHEDULES) | ours


def _subclasses(module: ModuleType, base: type, without: Collection[str]) -> dict[str, type[Any]]:
    found = {name: thing for name, thing in vars(module).items() if isinstance(thing, type) and issubclass(thing, base)}
    return {name: cls for name, cls in found.items() if not name.startswith("_") and name not in without}
