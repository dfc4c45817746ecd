"""One repair of BasicSR: its name, its fault, a probe for the fault and the cure."""

import inspect
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

_Result = TypeVar("_Result")
_Function = TypeVar("_Function", bound=Callable[..., Any])


class Status(NamedTuple):
    """What became of one repair: ``applied`` is False where the fault is absent."""

    name: str
    fault: str
    applied: bool


class Repair(NamedTuple):
    """A fault of BasicSR, in one sentence, and its cure in memory; ``name`` is what ``basicsr doctor`` prints.

    ``probe`` is True if the BasicSR that is loaded has the fault; it looks at source or behaviour, not versions.
    """

    name: str
    fault: str
    probe: Callable[[], bool]
    apply: Callable[[], None]

    def make(self) -> Status:
        """Apply the cure if the fault is there."""
        if faulty := self.probe():
            self.apply()
        return Status(self.name, self.fault, faulty)


class Repairs(list[Repair]):
    """The repairs of a module in the order in which they are made, each noted where its cure is written."""

    def cures(self, name: str, fault: str, probe: Callable[[], bool]) -> Callable[[_Function], _Function]:
        """Note that a function, called without arguments, cures the fault; see :class:`Repair`."""

        def add(apply: _Function) -> _Function:
            self.append(Repair(name, fault, probe, apply))
            return apply

        return add

    def replaces(
        self, owner: Any, attribute: str, name: str, fault: str, symptom: str | Callable[[], bool], absent: bool = False
    ) -> Callable[[_Function], _Function]:
        """Note that a function takes the place of ``owner.attribute``, if that shows the symptom.

        A class has its method replaced, a module its function under every name (:func:`rebind`). The symptom is text in
        the source of what is replaced (``absent``: that is missing there), or a probe.
        """

        def add(replacement: _Function) -> _Function:
            def probe() -> bool:
                if "unrepaired" in vars(replacement):  # its own source shows the symptom, in this very note
                    return False
                return symptom() if callable(symptom) else source_says(vars(owner)[attribute], symptom) != absent

            def apply() -> None:
                rebind(vars(owner)[attribute], replacement)
                setattr(owner, attribute, replacement)

            self.append(Repair(name, fault, probe, apply))
            return replacement

        return add


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


def unrepaired(replacement: Callable[..., _Result]) -> Callable[..., _Result]:
    """What a function that replaces another one has replaced."""
    return vars(replacement)["unrepaired"]


def source_says(thing: Any, text: str) -> bool:
    """True if the source of a function or class contains ``text``, or if there is no source to look at."""
    try:
        return text in inspect.getsource(thing)
    except (OSError, TypeError):
        return True
