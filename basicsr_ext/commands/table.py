"""The sub-commands by name, ours and those of plugins; none is imported before it runs."""

from dataclasses import dataclass
from importlib import metadata

GROUP = "basicsr.commands"  # entry points of plugins: name of the sub-command = module:function(rest) -> exit code


@dataclass(frozen=True)
class Command:
    """One sub-command, imported when it runs: ``target`` is ``module:function``, which takes the remaining arguments.

    It returns the exit code. ``help`` is its line in ``--help``; if ``shared``, several processes may run it together.
    """

    help: str
    target: str
    shared: bool = False


_ROOM = "basicsr_ext.commands"
COMMANDS = {
    "init": Command("write a commented option file for a task, to start from", f"{_ROOM}.init:run"),
    "train": Command("train a model by an option file", f"{_ROOM}.train:train", shared=True),
    "test": Command("restore and measure the test images (val ones for a training file)", f"{_ROOM}.train:test", True),
    "restore": Command("restore pictures by a trained model", f"{_ROOM}.restore:run", shared=True),
    "check": Command("build everything and push one batch through; trains nothing", f"{_ROOM}.check:run"),
    "prepare": Command("pack a folder of images, cut into crops, for fast training", f"{_ROOM}.prepare:run"),
    "export": Command("put a trained network and its options into one file, to give away", f"{_ROOM}.export:run"),
    "list": Command("name everything that is registered, and who provides it", f"{_ROOM}.list:run"),
    "doctor": Command("show versions, device, repairs and plugins, and what is wrong", f"{_ROOM}.doctor:run"),
    "benchmark": Command("compare methods on data sets by metrics: tables, pictures, a page", f"{_ROOM}.benchmark:run",
                         shared=True),
    "report": Command("compare finished tests in a table", f"{_ROOM}.report:run"),
    "completion": Command("print a script that completes commands and flags in a shell", f"{_ROOM}.completion:run"),
}  # fmt: skip


def all_commands() -> dict[str, Command]:
    """All commands; those of plugins cannot take the place of one of ours."""
    known = dict(COMMANDS)
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name):
        owner = point.dist.name if point.dist else "a plugin"
        known.setdefault(point.name, Command(f"added by {owner}", point.value))
    return known
