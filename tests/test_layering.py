"""Imports point downwards: one table of rooms for all packages, held against the import graph."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("basicsr_ext", "i2sb_plugin", "studies", "docs")

# Room -> (floor, what it says). A file belongs to the room with the longest matching name. A file may import rooms of
# lower floors and its own room. `python -m docs.make.architecture` writes the table into docs/architecture.md.
ROOMS = {
    "basicsr_ext.common": (1, "Small things that every room uses: errors, option blocks, registries, plugins, seeds, safe file writes. Knows no run."),
    "basicsr_ext.processes": (2, "Who the processes of a run are; how they wait, add up and end together."),
    "basicsr_ext.images": (2, "What image files are: headers, decoding, pictures, packed crops."),
    "basicsr_ext.checkpoints": (2, "Saves that are whole or absent, whether weights fit, which save to resume."),
    "basicsr_ext.metrics": (3, "The contract of a metric and the plain ones; `learned/` looks through pretrained networks."),
    "basicsr_ext.training": (3, "What watches the training loop: state, sample order, signals, bad steps, memory, progress."),
    "basicsr_ext.options": (4, "From YAML to checked, complete options. Builds nothing."),
    "basicsr_ext.models": (4, "One model for every restorer: hooks, options, acceleration, validation."),
    "basicsr_ext.preflight": (5, "What would fail later, found before anything is written; then the run starts."),
    "basicsr_ext.restoring": (5, "A trained network restores pictures of any kind and size."),
    "basicsr_ext.repairs": (6, "BasicSR mended in memory: one entry, one fault, one probe, one test."),
    "basicsr_ext.benchmark": (6, "Methods x data sets x metrics, by one option file; tables, plots, a page."),
    "basicsr_ext.commands": (7, "One file for each sub-command: arguments in, exit code out."),
    "basicsr_ext.cli": (8, "The door: `basicsr COMMAND`."),
    "basicsr_ext.__main__": (8, ""),
    "basicsr_ext.install": (8, ""),
}  # fmt: skip


def module(path):
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imports(path):
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                p = ROOT.joinpath(*full.split("."))
                yield full if p.with_suffix(".py").exists() or (p / "__init__.py").exists() else node.module
