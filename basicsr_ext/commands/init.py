"""``basicsr init``: a commented option file for a task, with your folders and network in it, and what to do next."""

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from basicsr_ext.common.errors import InputError
from basicsr_ext.common.files import write_whole
from basicsr_ext.common.text import path_text

_CACHED = 100  # images that a template may keep in memory


def run(rest: list[str]) -> int:
    """Write the option file, or list the tasks; InputError, with nothing written, if something does not fit."""
    parser = _parser()
    args = parser.parse_args(rest)
    if args.task is None and not args.list:
        parser.error("give a TASK, or --list to see them")
    from basicsr_ext.options import templates

    if args.list:
        known = templates.templates()
        width = max(map(len, known), default=0)
        for name, path in known.items():
            print(f"{name:<{width}}  {templates.summary(path)}")
        return 0
    template = templates.template_of(args.task)
    out = _place(args)
    blocks = templates.data_blocks(template)
    values, notes = _data(args, blocks)
    text = templates.changed(template.read_text(encoding="utf-8"), {"name": out.stem} | values)
    if args.network is not None:
        text = _with_network(text, args.network, out)
    given = " ".join(shlex.quote(word) for word in rest).replace("\n", "\\n")  # a comment is one line
    write_whole(out, f"# basicsr init {given}\n{text}")
    print(f"wrote {out} from {template.name}")
    for note in notes + _missing(out):
        print(f"note: {note}")
    action, file = "train" if "train" in blocks else "test", shlex.quote(str(out))
    print(f"next:\n  basicsr check -opt {file}\n  basicsr {action} -opt {file}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="basicsr init", description="Write a commented option file to start from.")
    add = parser.add_argument
    add("task", nargs="?", metavar="TASK", help="what to train, such as denoise; --list names all")
    add("--list", action="store_true", help="name the tasks")
    add("--gt", type=path_text, metavar="DIR", help="folder of clean images, or of their parts train and val")
    add("--lq", type=path_text, metavar="DIR", help="folder of their degraded partners, for tasks that read pairs")
    add("--network", metavar="NAME", help="another network, see basicsr list")
    add("-o", dest="out", type=path_text, metavar="FILE", help="option file to write (default: TASK.yml here)")
    return parser


def _place(args: argparse.Namespace) -> Path:
    """Where the option file goes; InputError if something is there."""
    out = Path(args.out or f"{args.task.removesuffix('.yml').replace('/', '_')}.yml").expanduser()
    if out.suffix not in (".yml", ".yaml"):
        raise InputError(f"-o is {out}; give a file name that ends in .yml")
    if out.exists() or out.is_symlink():
        raise InputError(f"-o: {out} is there already and is left as it is; give another name with -o")
    return out


def _data(args: argparse.Namespace, blocks: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """New values of data options by dotted name, and notes; InputError if the folders do not fit the task."""
    name, block = next(iter(blocks.items()))  # what is trained on, or what a test alone reads
    paired = "dataroot_lq" in block
    if args.lq and not paired:
        pairs = "a task that reads pairs, such as paired"
        made = f"makes the degraded images of {args.task} from the clean ones ({block['type']})"
        raise InputError(f"--lq is {args.lq}, but datasets.{name} {made}; leave --lq out, or take {pairs}")
    if paired and bool(args.gt) != bool(args.lq):
        given, other = ("--gt", "--lq") if args.gt else ("--lq", "--gt")
        raise InputError(f"{given} is given without {other}, but {args.task} reads pairs of images; give both folders")
    if not args.gt:
        return {}, []
    from basicsr_ext.preflight import folders

    gt, lq = folders.look("--gt", args.gt), folders.look("--lq", args.lq) if paired else None
    heads = folders.headers(gt.images)
    values: dict[str, Any] = {f"datasets.{name}.dataroot_gt": str(gt.train)}
    if lq:
        scale = folders.pair_scale(gt, lq)
        values |= {f"datasets.{name}.dataroot_lq": str(lq.train), "scale": scale}
        if (size := block.get("gt_size")) and size % scale:
            values[f"datasets.{name}.gt_size"] = -(-size // scale) * scale
    batch, count = block.get("batch_size_per_gpu", 0), len(gt.images.files)
    if "dataset_enlarge_ratio" in block and count * block["dataset_enlarge_ratio"] < batch:
        values[f"datasets.{name}.dataset_enlarge_ratio"] = -(-batch // count)
    if block.get("cache") and count > _CACHED:
        values[f"datasets.{name}.cache"] = False
    more, notes = _validation(blocks, gt, lq)
    size = values.get(f"datasets.{name}.gt_size", block.get("gt_size")) or 0
    return values | more, [*_left_out(gt, lq), *notes, *_odd_images(heads, name, size)]


def _left_out(*looked: Any) -> list[str]:
    return [f"{folder.train}: {folder.images}" for folder in looked if folder and folder.images.left_out]


def _validation(blocks: Mapping[str, Mapping[str, Any]], gt: Any, lq: Any) -> tuple[dict[str, Any], list[str]]:
    """The folders of the first data set of validation, and a note where its images are not the user's own."""
    name = next((name for name in blocks if name != "train"), None)
    if "train" not in blocks or name is None:
        return {}, []
    cure = f"to keep some of yours for it, put them into {gt.train}/val and the others into {gt.train}/train"
    if gt.val and (lq is None or lq.val) and ("dataroot_lq" in blocks[name]) == (lq is not None):
        values = {f"datasets.{name}.dataroot_gt": str(gt.val)}
        return values | ({f"datasets.{name}.dataroot_lq": str(lq.val)} if lq else {}), []
    if lq is None:
        own = not str(blocks[name]["dataroot_gt"]).startswith("sample:")
        return {}, [] if own else [f"datasets.{name} measures on the photographs that are built in; {cure}"]
    values = {f"datasets.{name}.dataroot_gt": str(gt.train), f"datasets.{name}.dataroot_lq": str(lq.train)}
    return values, [f"datasets.{name} measures on the images of training, which flatters the network; {cure}"]


def _odd_images(heads: list[tuple[Path, Any]], name: str, size: int) -> list[str]:
    """Notes on images that the template, as it stands, does not take."""
    notes = []
    if grey := [path for path, head in heads if head.channels != 3]:
        head = next(head for path, head in heads if path == grey[0])
        said = f"{grey[0]} has {head.channels} channel(s), and the network of the template takes 3"
        notes.append(f"{said}; check says which of its options to change")
    if small := [path for path, head in heads if min(head.height, head.width) < size]:
        said = f"{len(small)} image(s) are smaller than datasets.{name}.gt_size ({size}), such as {small[0]}"
        notes.append(f"{said}; lower it, or take them out")
    return notes


def _missing(out: Path) -> list[str]:
    """What the file names and is not there yet: folders and files of its data, and checkpoints."""
    from basicsr_ext.options.file import load_yaml

    opt, notes = load_yaml(out), []
    blocks = {f"datasets.{name}": block for name, block in opt["datasets"].items()} | {"path": opt.get("path") or {}}
    for where, block in blocks.items():
        for key, value in block.items():
            told = key.startswith(("dataroot", "meta_info", "pretrain_network", "teacher", "resume_state"))
            for place in value if isinstance(value, list) else [value]:
                if told and isinstance(place, str) and ":" not in place[2:] and not Path(place).exists():
                    notes.append(f"{where}.{key} is {place}, which does not exist yet; write yours into {out}")
    return notes


def _with_network(text: str, name: str, out: Path) -> str:
    """The text with another ``network_g``; InputError if there is no such network or it cannot serve."""
    from basicsr_ext import repairs
    from basicsr_ext.common import plugins

    repairs.apply()
    plugins.load_entry_points()
    from basicsr_ext.options.templates import changed
    from basicsr_ext.preflight.other_network import other_network

    return changed(text, {"network_g": other_network(text, name, str(out))})
