"""What ``basicsr restore`` does once its arguments are read."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from basicsr_ext import repairs
from basicsr_ext.checkpoints.storage import read_safetensors_metadata
from basicsr_ext.commands.export import ABOUT
from basicsr_ext.commands.model_flags import read_flags
from basicsr_ext.common import plugins, registries
from basicsr_ext.common.batching import in_groups
from basicsr_ext.common.contracts import restorer_class_of
from basicsr_ext.common.errors import InputError
from basicsr_ext.images.inventory import DATA_FORMATS, DEEP, FORMATS
from basicsr_ext.images.pictures import Picture, check_sides, write_picture
from basicsr_ext.images.values import Values, values_of
from basicsr_ext.processes import collectives
from basicsr_ext.processes.group import init_dist
from basicsr_ext.processes.launch import Launch, find_launch
from basicsr_ext.restoring import files
from basicsr_ext.restoring.configuration import find_options
from basicsr_ext.restoring.files import Given, Job
from basicsr_ext.restoring.loading import is_onnx, load_restorer
from basicsr_ext.restoring.restorer import Loading, Restorer, load_for_graph

Companions = tuple[Mapping[Path, Path], Mapping[Path, list[Path]]]  # masks and condition images of the pictures
Failure = tuple[Path, str]  # a picture, and why it could not be restored
_FAILURES = (InputError, RuntimeError, ValueError, OSError)  # of one picture, which spoil no other


def restore(args: argparse.Namespace, rest: list[str], parser: argparse.ArgumentParser) -> int:
    """Restore the pictures of ``args``, checked; ``rest`` are the model's flags. Returns 1 if some failed, else 0."""
    here = find_launch(args.launcher)
    _load_toolkit()
    _join(here, args)
    opt = _options(args)
    values = values_of(opt)
    _settle_format(args, values)
    jobs = files.find_jobs(args.i, args.o, args.format, _say, values)
    args.targets = {job.target for job in jobs}
    args.checkpoint = args.checkpoint or _built_in(args)
    how = {name: vars(args)[name] for name in ("device", "tile", "overlap", "tile_batch")}
    restorer = _loaded(args, opt, Loading(**how, say=_say))
    flags = read_flags(restorer.offers.restore_flags, rest, parser)
    restorer.take(**flags)
    if args.backend == "onnx" and not is_onnx(args.checkpoint):
        from basicsr_ext.restoring.onnx_graph import by_onnx

        restorer = by_onnx(restorer, Loading(**how, say=_say), masked=bool(args.mask))
    companions = _companions(restorer, args, jobs)
    mine = [jobs[k] for k in collectives.shard_indices(len(jobs))]  # of all, since a quick rank has results already
    waiting = [job for job in mine if args.overwrite or not files.is_done(job, values)]
    done = sum(collectives.gather_objects(len(mine) - len(waiting)))
    if done:
        _say(f"{done} of {len(jobs)} are restored already (--overwrite restores them again)")
    deep = args.bits == 8 or args.format in DEEP
    for lost in files.find_losses(jobs, args.format, deep, restorer.channels[1]) if values is None else ():
        _say(f"note: {lost}")
    failed = _restore_all(restorer, waiting, companions, args, flags)
    order = {job.source: k for k, job in enumerate(jobs)}
    failed = sorted(sum(collectives.gather_objects(failed), []), key=lambda entry: order[entry[0]])
    for path, reason in failed:
        _say(f"not restored: {reason if str(path) in reason else f'{path}: {reason}'}")
    if failed:
        _say(f"{len(failed)} of {len(jobs)} could not be restored")
    return 1 if failed else 0


def _settle_format(args: argparse.Namespace, values: Values | None) -> None:
    """Choose the format of the results; InputError for one that cannot hold what the network gives."""
    if values is None:
        args.format = args.format or "png"
        if args.format not in FORMATS:
            cure = f"the network restores pictures; give {', '.join(FORMATS)}"
            raise InputError(f"results cannot be {args.format}: {cure}")
        return
    if args.bits is not None:
        raise InputError(
            f"--bits is {args.bits}, but results keep the numbers of the data, {values.dtype}; leave it out"
        )
    if args.format not in (None, *DATA_FORMATS):
        said = f"{args.format} cannot hold {values.dtype} data, which the network restores"
        raise InputError(f"{said}; give {', '.join(DATA_FORMATS)}")


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Those of the network that is given; none of the one that is built in, nor of a graph, which restores pictures."""
    if args.opt and is_onnx(args.opt):
        raise InputError(f"-opt {args.opt} is a network, which has its options built in; give it as --checkpoint")
    if is_onnx(args.checkpoint) and args.backend == "torch":
        raise InputError(f"--backend is torch, but {args.checkpoint} is a graph for onnxruntime; leave --backend out")
    if not args.checkpoint or is_onnx(args.checkpoint):
        return {}
    return find_options(args.checkpoint, args.opt)[0]


def _loaded(args: argparse.Namespace, opt: dict[str, Any], how: Loading) -> Restorer:
    """The network of ``args``; on the CPU and in float32 where a graph is made of it."""
    if is_onnx(args.checkpoint):
        return load_restorer(args.checkpoint, args.opt, **vars(how))
    opt = opt or find_options(args.checkpoint, args.opt)[0]
    return load_for_graph(opt, args.checkpoint) if args.backend == "onnx" else Restorer(opt, args.checkpoint, how)


def _built_in(args: argparse.Namespace) -> Path:
    """The file of the network that is there without --checkpoint; says which. InputError if it cannot serve."""
    cure = "give --checkpoint, a network's file such as net_g_latest.pth"
    point = plugins.built_in()
    if point is None:
        raise InputError(f"no installed package brings a network; {cure}")
    for flag, given in (("-opt", args.opt), ("--mask", args.mask), ("--cond", args.cond)):
        if given:
            what = f"{point.name}, the network that is built in, takes pictures alone and has its own options"
            raise InputError(f"{flag} is given without --checkpoint, but {what}; {cure}")
    path = Path(point.load()())
    about = read_safetensors_metadata(path).get(ABOUT, "")
    _say(f"note: no --checkpoint, so the built-in {point.name} restores: {about}")
    return path


def _companions(restorer: Restorer, args: argparse.Namespace, jobs: Sequence[Job]) -> Companions:
    """Masks and condition images of the pictures; InputError if the model takes none, or needs some."""
    if args.mask and not restorer.offers.takes_mask:
        raise InputError("--mask is given, but the model of this checkpoint does not look at masks; leave it out")
    if bool(args.cond) != restorer.offers.takes_cond:
        needs, takes_none = "needs condition images: give --cond", "takes no condition images: leave out --cond"
        raise InputError(f"the network of this checkpoint {needs if restorer.offers.takes_cond else takes_none}")
    masks = files.find_masks(args.mask, jobs, restorer.values) if args.mask else {}
    return masks, files.find_conditions(args.cond, jobs, restorer.values) if args.cond else {}


def _join(here: Launch, args: argparse.Namespace) -> None:
    """Join the other processes, if there are any; each one takes the GPU of its local rank."""
    if here.launcher == "none":
        return
    init_dist(here.launcher, backend="gloo")
    if args.device in ("auto", "cuda") and torch.cuda.is_available():
        args.device = f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"


def _load_toolkit() -> None:
    """Make BasicSR and every plugin known."""
    repairs.apply()
    plugins.load_entry_points()
    for plugin in plugins.failures():
        _say(f"note: plugin {plugin.name} failed to load: {plugin.error}")


def add_known_flags(parser: argparse.ArgumentParser) -> None:
    """Show the flags of all models in the help."""
    _load_toolkit()
    from basicsr.utils.registry import MODEL_REGISTRY

    shown: set[str] = set()
    for name in registries.names(MODEL_REGISTRY):
        flags = restorer_class_of(registries.find(MODEL_REGISTRY, name)).restore_flags
        group = parser.add_argument_group(f"with {name}")
        for flag in [flag for flag in flags if flag not in shown]:
            _, option, text = flags[flag]
            group.add_argument(f"--{flag}", help=f"{text} (default: {option} of the options)")
        shown |= set(flags)


def _restore_all(
    restorer: Restorer, jobs: Sequence[Job], companions: Companions, args: argparse.Namespace, flags: Mapping[str, Any]
) -> list[Failure]:
    """Restore pictures, those of one size together; returns those that could not be, and why."""
    sizes = {job.source: files.size_of(job.source, restorer.values) or (1, 1) for job in jobs}
    failed: list[Failure] = []
    progress = _Progress(restorer, sizes)
    with progress.bar:
        for group in progress.over(in_groups(jobs, lambda job: sizes[job.source], args.batch, most=len(jobs))):
            given: list[Given] = []
            for job in group:
                try:
                    check_sides(job.target, *(restorer.scale * side for side in sizes[job.source]))
                    given.append(files.read_given(job, *companions, restorer.values))
                except _FAILURES as error:
                    failed.append((job.source, str(error) or type(error).__name__))
            for alike in in_groups(given, lambda one: one.shapes(restorer.channels[0]), args.batch):
                failed += _restore_group(restorer, alike, args, flags)
    return failed


def _restore_group(
    restorer: Restorer, given: Sequence[Given], args: argparse.Namespace, flags: Mapping[str, Any]
) -> list[Failure]:
    """Restore pictures at once and write them; where that fails, one by one, so that one spoils no other."""
    masks = [one.mask for one in given if one.mask is not None] or None  # all have one, or none has
    conds = [one.cond for one in given if one.cond is not None] or None
    try:
        made = restorer.restore_pictures([one.picture for one in given], masks, args.seed, conds, **flags)
    except _FAILURES as error:
        if len(given) == 1:
            return [(given[0].job.source, str(error) or type(error).__name__)]
        made = None
    if made is None:  # outside of `except`, whose traceback holds on to the memory of the failed call
        return sum([_restore_group(restorer, [one], args, flags) for one in given], [])
    failed = []
    for one, results in zip(given, made):
        try:
            _write(one.job.target, *results, args)
        except _FAILURES as error:
            failed.append((one.job.source, str(error)))
    return failed


def _write(target: Path, restored: Picture, extras: Mapping[str, Picture], args: argparse.Namespace) -> None:
    """Write what a model left beside its result as well: ``name_std.png`` beside ``name.png``, say; the result last."""
    bits = args.bits or (restored.bits if args.format in DEEP else 8)  # of pictures
    for name, picture in extras.items():
        place = target.with_name(f"{target.stem}_{name}.png")
        if place in args.targets:
            raise InputError(f"cannot save {place}: another picture is restored to it; rename one of the two")
        write_picture(place, replace(picture, bits=bits))
    write_picture(target, replace(restored, bits=bits))


class _Progress:
    """A bar over all pixels, so that the time left is right for pictures of different sizes and within a large one."""

    def __init__(self, restorer: Restorer, sizes: Mapping[Path, tuple[int, int]]) -> None:
        self._network_calls = restorer.offers.network_calls
        self._weights = {source: height * width for source, (height, width) in sizes.items()}
        layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
        shown = sizes and collectives.is_main()
        self.bar = tqdm(total=sum(self._weights.values()), bar_format=layout, disable=not shown)
        self._done = self._calls = 0
        self._now = 1
        restorer.network.progress = self._step

    def over(self, groups: Iterable[list[Job]]) -> Iterator[list[Job]]:
        """Pass on groups of pictures, and follow them."""
        count = 0
        for jobs in groups:
            count += len(jobs)
            self._calls, self._now = 0, sum(self._weights[job.source] for job in jobs)
            self.bar.set_description_str(f"{count}/{len(self._weights)} {jobs[-1].name}", refresh=False)
            yield jobs
            self._done += self._now
            self.bar.update(self._done - self.bar.n)

    def _step(self, share: float) -> None:
        part = min(1.0, (self._calls + share) / self._network_calls)
        self._calls += share >= 1
        self.bar.update(max(0, self._done + round(part * self._now) - self.bar.n))


def _say(text: str) -> None:
    if collectives.is_main():
        tqdm.write(text, file=sys.stderr)
