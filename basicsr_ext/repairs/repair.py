"""One repair of BasicSR: its name, its fault, a probe for the fault and the cure."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

_Result = TypeVar("_Result")
_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Repair:
    """One fault of BasicSR and its cure.

    Attributes:
        name: Short name, as ``basicsr doctor`` prints it.
        fault: What goes wrong without the repair, in one sentence.
        probe: True if the fault is present in the BasicSR that is loaded; looks at source or behaviour, not versions.
        apply: Cures the fault in memory.
    """

    name: str
    fault: str
    probe: Callable[[], bool]
    apply: Callable[[], None]


class Repairs(list[Repair]):
    """The repairs of a module in the order in which they are made, most of them noted where their cure is written."""

    def replaces(
        self, owner: Any, attribute: str, name: str, fault: str, symptom: str, absent: bool = False
    ) -> Callable[[_Function], _Function]:
        """Note that a function takes the place of another one whose source shows the symptom.

        Args:
            owner: A class, on which its method is replaced, or a module, whose function is replaced under every name.
            attribute: What is replaced.
            name: As in :class:`Repair`.
            fault: As in :class:`Repair`.
            symptom: Text in the source of what is faulty.
            absent: The text is missing there.
        """

        def add(replacement: _Function) -> _Function:
            def probe() -> bool:
                done = "unrepaired" in vars(replacement)  # whose source shows the symptom, in this very note
                return not done and source_says(vars(owner)[attribute], symptom) != absent

            def apply() -> None:
                if isinstance(owner, type):
                    replace_method(owner, attribute, replacement)
                else:
                    rebind(vars(owner)[attribute], replacement)

            self.append(Repair(name, fault, probe, apply))
            return replacement

        return add


class Status(NamedTuple):
    """What became of one repair: ``applied`` is False where the fault is absent."""

    name: str
    fault: str
    applied: bool


def rebind(original: Any, replacement: Any) -> None:
    """Replace an object under every name by which a loaded BasicSR module holds it.

    BasicSR spreads its functions by ``from x import y``; replacing the one in its home module would reach few callers.
    The original stays reachable as ``replacement.unrepaired``.
    """
    replacement.unrepaired = original
    for name, module in list(sys.modules.items()):
        if module is None or not (name == "basicsr" or name.startswith("basicsr.")):
            continue
        for key, value in list(vars(module).items()):
            if value is original:
                setattr(module, key, replacement)


def replace_method(cls: type, method: str, replacement: Any) -> None:
    """Replace a method of a class; the original stays reachable as ``replacement.unrepaired``."""
    replacement.unrepaired = vars(cls)[method]
    setattr(cls, method, replacement)


def unrepaired(replacement: Callable[..., _Result]) -> Callable[..., _Result]:
    """What a function that replaces another one has replaced."""
    return vars(replacement)["unrepaired"]


def source_says(thing: Any, text: str) -> bool:
    """True if the source of a function or class contains ``text``, or if there is no source to look at."""
    try:
        return text in inspect.getsource(thing)
    except (OSError, TypeError):
        return True
