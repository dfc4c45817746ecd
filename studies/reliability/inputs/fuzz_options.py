"""Mutate real option files, and see that each ends as accepted or as one message for the user.

Every case goes through all that happens before a run writes anything: reading, overriding, checking, resolving, and the
look at data, networks and checkpoints. A part of those that pass also trains one batch and validates one image.

    python -m studies.reliability.inputs.fuzz_options --cases 10000
"""

import argparse
import copy
import os
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from hypothesis import strategies as st

from basicsr_ext import repairs
from basicsr_ext.common import plugins

ROOT = Path(__file__).parents[3]
NAMES = ("train", "val", "type", "network_g", "scale", "x", "dataroot_gt", "steps", "io_backend", "", "ü")
NASTY = (
    "~", "../..", "/dev/null", "/dev/zero", "/proc/self/mem", "/etc/hostname", "sample:nothing", "sample:val", "1e400",
    "a\0b", "{}", "{0}{1}", "{", "!!python/name:os.system", "x" * 5000, "$HOME", "auto", "latest", "lmdb", "cuda", ".",
    "L1Loss", "ADMUNet", "SRModel", "PairedImageDataset", "sr4x_pool", "MSRResNet", "EDVRModel", "REDSDataset", "AdamW",
)  # fmt: skip
NUMBERS = (0, -1, 1, 2, 3, 4, 7, 64, 1000, 10**6, 10**9, 10**18, -(10**9), 0.5, 1e-30, 1e300, -0.0)
SCALARS = (
    st.none() | st.booleans() | st.integers(-9, 99) | st.floats() | st.sampled_from(NUMBERS) | st.sampled_from(NASTY)
) | st.text(max_size=8)
KEYS = st.sampled_from(NAMES) | st.text(max_size=6) | st.integers(-2, 2) | st.none() | st.booleans()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
STEPS = st.tuples(
    st.sampled_from(
        ("set", "nudge", "nudge", "set", "nudge", "delete", "rename", "insert", "swap", "copy", "wrap", "scale")
    ),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    VALUES,
)
TEXT_EDITS = st.lists(
    st.tuples(st.sampled_from(("cut", "insert", "delete", "double")), st.integers(0, 10**5), st.text(max_size=6)),
    max_size=2,
)
OVERRIDES = st.lists(
    st.tuples(
        st.sampled_from(("train:", "val:", "+", "", "datasets:train:", "network_g:")), st.text(max_size=8), VALUES
    ),
    max_size=1,
)


@lru_cache(maxsize=1)
def home() -> Path:
    """A folder with a few small images, in which the cases run."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-options-"))
    rng = np.random.default_rng(0)
    for side, size in (("gt", 64), ("lq", 16), ("same", 64)):
        (folder / side).mkdir()
        for number in range(3):
            coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / side / f"{number}.png"), cv2.resize(coarse, (size, size)))
    return folder


@lru_cache(maxsize=1)
def bases() -> tuple[dict[str, Any], ...]:
    """The project's option files of runs, on small images and with small networks."""
    found = []
    for file in sorted((ROOT / "options").glob("*.yml")):
        opt = yaml.safe_load(file.read_text())
        # what is no run, the run whose data set makes crops of 400 pixels whatever the images, and that of a student,
        # whose teacher would have to be trained: too slow
        if opt.get("model_type", "RealESRGAN").startswith(("RealESRGAN", "BridgeStudent")):
            continue
        for block in opt["datasets"].values():
            paired = "dataroot_lq" in block
            small = opt.get("scale", 1) == 1
            block["dataroot_gt"] = "gt"
            if paired:
                block["dataroot_lq"] = "same" if small else "lq"
            block.pop("dataroot_cond", None)
            block.pop("meta_info_file", None)
            if "gt_size" in block:
                block |= {"gt_size": 32, "batch_size_per_gpu": 2, "num_worker_per_gpu": 0, "dataset_enlarge_ratio": 10}
        network = opt["network_g"]
        for key, value in (("num_feat", 8), ("num_block", 1), ("depths", [2]), ("num_heads", [2]), ("embed_dim", 12)):
            if key in network:
                network[key] = value
        if "sampler" in opt.get("val", {}):
            opt["val"]["sampler"]["nfe"] = min(2, opt["val"]["sampler"]["nfe"])
        if network.get("preset", "fast") != "fast":
            network["preset"] = "tiny"
        found.append(opt)
    return tuple(found)


def options() -> st.SearchStrategy:
    """Cases: the number of a base, the steps that change it, edits of its text, and overrides."""
    count = len(bases())
    texts = st.just([]) | st.just([]) | st.just([]) | TEXT_EDITS
    overrides = st.just([]) | st.just([]) | OVERRIDES
    return st.tuples(st.integers(0, count - 1), st.lists(STEPS, min_size=1, max_size=3), texts, overrides)


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) below ``tree``."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    found = []
    for key, value in items:
        found += [(tree, key), *_places(value)]
    return found


def nudge(value: Any, number: int) -> Any:
    """Return a value near ``value``, such as a slip of the pen gives."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return (value + 1, value - 1, value * 2, value * 3, value / 2, -value, str(value), [value])[number % 8]
    if isinstance(value, str) and value:
        place = number % len(value)
        return value[:place] + value[place + 1 :]
    if isinstance(value, list):
        return value[1:] if number % 2 else [*value, *value[:1]]
    return None


def mutate(opt: dict[str, Any], steps: list[tuple[str, int, int, Any]]) -> dict[str, Any]:
    """Apply ``steps`` to a copy of ``opt``."""
    opt = copy.deepcopy(opt)
    for name, first, second, value in steps:
        places = _places(opt)
        if not places:
            break
        (tree, key), (other, other_key) = places[first % len(places)], places[second % len(places)]
        value = copy.deepcopy(value)
        if name == "set":
            tree[key] = value
        elif name == "nudge":
            tree[key] = nudge(tree[key], second)
        elif name == "delete":
            del tree[key]
        elif name == "rename" and isinstance(tree, dict):
            new = value if isinstance(value, (str, int, type(None))) else f"{key}s"
            tree[new] = tree.pop(key)
        elif name == "insert" and isinstance(tree, dict):
            tree[NAMES[second % len(NAMES)]] = value
        elif name == "swap":
            one, two = copy.deepcopy(tree[key]), copy.deepcopy(other[other_key])
            tree[key], other[other_key] = two, one
        elif name == "copy":
            other[other_key] = copy.deepcopy(tree[key])
        elif name == "wrap":
            tree[key] = [tree[key]] if second % 2 else {str(key): tree[key]}
        elif name == "scale" and isinstance(tree[key], (int, float)):
            tree[key] = tree[key] * NUMBERS[second % len(NUMBERS)]
    return opt


def edit(text: str, edits: list[tuple[str, int, str]]) -> str:
    """Apply ``edits`` to the text of an option file."""
    for name, place, piece in edits:
        place %= len(text) + 1
        if name == "cut":
            text = text[:place]
        elif name == "insert":
            text = text[:place] + piece + text[place:]
        elif name == "delete":
            text = text[:place] + text[place + 1 + len(piece) :]
        else:
            text = text[:place] + text[max(0, place - 200) :]
    return text


def run(case: Any) -> None:
    """Do with one case all that happens before a run writes, and then, for some, one batch."""
    from basicsr_ext.commands import check
    from basicsr_ext.options.arguments import add_arguments
    from basicsr_ext.preflight.checks import check_run
    from basicsr_ext.preflight.start import prepare
    from basicsr_ext.processes.launch import Launch

    number, steps, edits, overrides = case
    os.chdir(home())
    opt = mutate(bases()[number], steps)
    text = edit(yaml.safe_dump(opt, sort_keys=False, allow_unicode=True), edits)
    file = home() / "fuzzed.yml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    words = [
        f"{where}{key}={yaml.safe_dump(value, default_flow_style=True).strip()}" for where, key, value in overrides
    ]
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["-opt", str(file)])
    args.force_yml = words or None
    is_train = steps[0][1] % 4 != 0
    opt, _ = prepare(args, home(), is_train, Launch())
    check_run(opt, is_train, Launch())
    if steps[0][2] % 4 == 0 and _cheap(opt):
        with tempfile.TemporaryDirectory() as folder:
            check._move_paths(opt, folder)
            check._rehearse(opt, is_train)


def _cheap(opt: dict[str, Any]) -> bool:
    """Whether one batch is a matter of seconds."""
    train = opt["datasets"].get("train") or {}
    size = train.get("batch_size_per_gpu", 1) * (train.get("gt_size") or 64) ** 2
    return size < 8 * 64**2 and opt.get("scale", 1) <= 4


def prepare_process() -> st.SearchStrategy:
    repairs.apply()
    plugins.load_entry_points()
    return options()


if __name__ == "__main__":
    from studies.reliability.inputs.campaign import main

    sys.exit(main("studies.reliability.inputs.fuzz_options", 10_000, prepare_process, run))
