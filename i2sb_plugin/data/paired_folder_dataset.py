"""Degraded and clean images of one's own, in two folders or LMDBs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from basicsr_ext.errors import InputError, did_you_mean
from i2sb_plugin.data.image_io import match_channels, to_tensor
from i2sb_plugin.data.image_source import PHASES, ImageSource, read_options
from i2sb_plugin.data.views import check_crop, draw_view

__all__ = ["PairedFolderDataset", "PairedFolderOptions"]


@dataclass(frozen=True)
class PairedFolderOptions:
    """Options of :class:`PairedFolderDataset`; BasicSR's loader keys may stand beside them."""

    dataroot_gt: str  # folder or LMDB of clean images
    dataroot_lq: str  # folder or LMDB of degraded images
    phase: str = "train"  # train, val or test
    scale: int = 1  # size of gt / size of lq
    io_backend: Mapping[str, Any] = field(default_factory=lambda: {"type": "disk"})  # type: disk or lmdb
    filename_tmpl: str = "{}"  # name of an lq file, made from the gt name without extension, such as "{}x4"
    meta_info_file: str | None = None  # lines "name (h,w,c)" of gt images: takes these only, in this order
    gt_size: int | None = None  # side of the training crop in pixels; needed in phase train
    use_hflip: bool = False
    use_rot: bool = False
    channels_gt: int | None = None  # 1, 3 or 4; null: as in the first image
    channels_lq: int | None = None  # 1, 3 or 4; null: as in the first image
    grey_to_rgb: bool = False  # accept grey files where the channels are 3, repeated three times

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise InputError(f"phase is {self.phase!r}; {did_you_mean(self.phase, PHASES)}")
        for option in ("channels_gt", "channels_lq"):
            if getattr(self, option) not in (None, 1, 3, 4):
                raise InputError(f"{option} is {getattr(self, option)}; set 1, 3, 4 or null (as in the first image)")
        if self.scale < 1:
            raise InputError(f"scale is {self.scale}; set a whole number of 1 or more")
        if "{}" not in self.filename_tmpl:
            raise InputError(f"filename_tmpl is {self.filename_tmpl!r}; it needs {{}} where the gt name goes")
        if self.phase == "train" and (self.gt_size is None or self.gt_size < 1 or self.gt_size % self.scale):
            raise InputError(f"gt_size is {self.gt_size}; set the side of the training crop in pixels, "
                             f"a multiple of scale ({self.scale})")


@DATASET_REGISTRY.register()
class PairedFolderDataset(Dataset):
    """Reads pairs: dict of ``lq`` (C,h,w) and ``gt`` (C',H,W), float32 in [0,1], and their paths.

    Files are paired by name, whatever their extensions; grey, RGB or RGBA with 8 or 16 bits, any size. In every phase
    H = scale*h and W = scale*w exactly: nothing is cut silently. Phase ``train``: a random crop of ``gt_size``, flips
    and turns, drawn from torch's default generator, which is seeded anew in every worker and epoch.
    Raises InputError naming the option or the file.
    """

    Options = PairedFolderOptions

    def __init__(self, opt: Mapping[str, Any]) -> None:
        self.opt = opt  # read by BasicSR's loops
        self.options = options = read_options(PairedFolderOptions, opt)
        self.scale = options.scale
        self.gt = ImageSource(options.dataroot_gt, "dataroot_gt", options.io_backend, options.meta_info_file)
        self.lq = ImageSource(options.dataroot_lq, "dataroot_lq", options.io_backend)
        self._pairs = _pair_names(self.gt, self.lq, options.filename_tmpl, subset=options.meta_info_file is not None)
        self.paths = [{"lq_path": self.lq.path(lq), "gt_path": self.gt.path(gt)} for gt, lq in self._pairs]
        first_gt, first_lq = self._pairs[0]
        self.channels_gt = options.channels_gt or self.gt.load(first_gt).shape[2]
        self.channels_lq = options.channels_lq or self.lq.load(first_lq).shape[2]

    def __len__(self) -> int:
        return len(self.paths)

    def header_faults(self, index: int) -> list[str]:
        """Say why the pair number ``index`` would be refused, as far as its files' headers tell."""
        gt_name, lq_name = self._pairs[index]
        convert = self.options.grey_to_rgb
        faults = self.gt.header_faults(gt_name, self.channels_gt, convert, "channels_gt")
        return faults + self.lq.header_faults(lq_name, self.channels_lq, convert, "channels_lq")

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the pair number ``index``."""
        gt_name, lq_name = self._pairs[index]
        gt = self._pixels(self.gt, gt_name, self.channels_gt, "channels_gt")
        lq = self._pixels(self.lq, lq_name, self.channels_lq, "channels_lq")
        self._check_sizes(gt, lq, gt_name, lq_name)
        options = self.options
        if options.phase == "train":
            check_crop(gt, options.gt_size, self.gt.describe(gt_name))
            height, width = lq.shape[:2]
            view = draw_view(height, width, options.gt_size // self.scale, options.use_hflip, options.use_rot,
                             torch.default_generator)  # fmt: skip
            gt, lq = view.of(gt, self.scale), view.of(lq)
        return {"lq": to_tensor(lq), "gt": to_tensor(gt), **self.paths[index]}

    def _pixels(self, source: ImageSource, name: str, channels: int, option: str) -> np.ndarray:
        return match_channels(source.load(name), source.describe(name), channels, self.options.grey_to_rgb, option)

    def _check_sizes(self, gt: np.ndarray, lq: np.ndarray, gt_name: str, lq_name: str) -> None:
        (gt_height, gt_width), (height, width) = gt.shape[:2], lq.shape[:2]
        if (gt_height, gt_width) != (height * self.scale, width * self.scale):
            raise InputError(f"{self.gt.describe(gt_name)} is {gt_height}x{gt_width} (height x width) but "
                             f"{self.lq.describe(lq_name)} is {height}x{width}: with scale {self.scale}, "
                             f"{height * self.scale}x{width * self.scale} is expected; crop one of them or set scale")


def _pair_names(gt: ImageSource, lq: ImageSource, template: str, subset: bool) -> list[tuple[str, str]]:
    """Pair the names of ``gt`` with those of ``lq``; ``subset`` allows more of ``lq``. Raises InputError otherwise."""
    gt_stems = {_expected_stem(name, template, gt.kind): name for name in _unique_stems(gt)}
    lq_stems = {_stem(name, lq.kind): name for name in _unique_stems(lq)}
    lonely_gt = [name for stem, name in gt_stems.items() if stem not in lq_stems]
    lonely_lq = [] if subset else [name for stem, name in lq_stems.items() if stem not in gt_stems]
    faults = [f"{len(lonely)} in {source.option} ({source.root}) without a partner: {_first(lonely)}"
              for source, lonely in ((gt, lonely_gt), (lq, lonely_lq)) if lonely]  # fmt: skip
    if faults:
        raise InputError(f"gt and lq images do not match by name (filename_tmpl '{template}'): {'; '.join(faults)}")
    return [(name, lq_stems[stem]) for stem, name in gt_stems.items()]


def _unique_stems(source: ImageSource) -> list[str]:
    """Return the names of ``source``; raises InputError if two differ in nothing but the extension."""
    counts = Counter(_stem(name, source.kind) for name in source.names)
    double = [name for name in source.names if counts[_stem(name, source.kind)] > 1]
    if double:
        raise InputError(f"{source.option}: {source.root} has images that differ only in their extension: "
                         f"{_first(double)}; keep one of each")
    return source.names


def _stem(name: str, kind: str) -> str:
    return name if kind == "lmdb" else os.path.splitext(name)[0]


def _expected_stem(name: str, template: str, kind: str) -> str:
    if kind == "lmdb":  # BasicSR uses the same key on both sides
        return name
    folder, _, stem = _stem(name, kind).rpartition("/")
    return f"{folder}/{template.format(stem)}" if folder else template.format(stem)


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
