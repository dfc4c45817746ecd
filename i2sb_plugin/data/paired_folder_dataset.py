"""Degraded and clean images of one's own, in two folders or LMDBs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from basicsr_ext.common.contracts import DatasetContract
from basicsr_ext.common.errors import InputError
from basicsr_ext.images.decode import to_tensor
from basicsr_ext.images.values import Values
from i2sb_plugin.data.bad_images import BadImages, first_readable
from i2sb_plugin.data.crops import View, check_crop, draw_view
from i2sb_plugin.data.image_source import ImageSource, SharedOptions, left_out, read_options
from i2sb_plugin.data.masks_and_conditions import Conditions, Masks, to_mask
from i2sb_plugin.data.pairs import pair_names


@dataclass(frozen=True)
class PairedFolderOptions(SharedOptions):
    """Options of :class:`PairedFolderDataset`; BasicSR's loader keys may stand beside them."""

    dataroot_gt: str  # folder or LMDB of clean images
    dataroot_lq: str  # folder or LMDB of degraded images
    dataroot_cond: str | tuple[str, ...] | None = None  # further images for the network, one folder or LMDB or several
    dataroot_mask: str | None = None  # folder or LMDB of masks for inpainting, white in the hole
    phase: str = "train"  # train, val or test
    scale: int = 1  # size of gt / size of lq
    io_backend: Mapping[str, Any] = field(default_factory=lambda: {"type": "disk"})  # type: disk or lmdb
    filename_tmpl: str = "{}"  # name of an lq file, made from the gt name without extension, such as "{}x4"
    meta_info_file: str | None = None  # lines "name (h,w,c)" of gt images: takes these only, in this order
    gt_size: int | None = None  # side of the training crop in pixels; needed in phase train
    use_hflip: bool = False
    use_rot: bool = False
    channels_gt: int | None = None  # 1, 3 or 4, of data any number; null: as in the first image
    channels_lq: int | None = None  # 1, 3 or 4, of data any number; null: as in the first image
    channels_cond: int | tuple[int, ...] | None = None  # the same, of dataroot_cond; a list has one for each place
    grey_to_rgb: bool = False  # accept grey files where the channels are 3, repeated three times
    skip_bad: float = 0.0  # share of the images that may be unusable in phase train; others stand in for them
    data: Values | None = None  # what the numbers mean where they are no pictures: filled in from the file's data:

    def __post_init__(self) -> None:
        counts = self.channels_cond if isinstance(self.channels_cond, tuple) else (self.channels_cond,)
        channels = [("channels_gt", self.channels_gt), ("channels_lq", self.channels_lq)]
        self.check_shared(*channels, *(("channels_cond", count) for count in counts))
        if isinstance(self.channels_cond, tuple) and len(counts) != len(self.conditions):
            raise InputError(
                f"channels_cond has {len(counts)} numbers but dataroot_cond {len(self.conditions)} places; give one "
                "number for each, or a single one for all"
            )
        if self.scale < 1:
            raise InputError(f"scale is {self.scale}; set a whole number of 1 or more")
        if "{}" not in self.filename_tmpl:
            raise InputError(f"filename_tmpl is {self.filename_tmpl!r}; it needs {{}} where the gt name goes")
        if self.phase == "train" and (self.gt_size is None or self.gt_size < 1 or self.gt_size % self.scale):
            cure = f"set the side of the training crop in pixels, a multiple of scale ({self.scale})"
            raise InputError(f"gt_size is {self.gt_size}; {cure}")

    @property
    def conditions(self) -> list[tuple[str, str, int | None]]:
        """Option, place and channels of each of ``dataroot_cond``."""
        roots, channels = self.dataroot_cond or (), self.channels_cond
        if isinstance(roots, str):
            named = {"dataroot_cond": roots}
        else:
            named = {f"dataroot_cond[{k}]": root for k, root in enumerate(roots)}
        counts = channels if isinstance(channels, tuple) else (channels,) * len(named)
        return list(zip(named.keys(), named.values(), counts))


@DATASET_REGISTRY.register()
class PairedFolderDataset(DatasetContract, Dataset):
    """Reads pairs: dict of ``lq`` (C,h,w) and ``gt`` (C',H,W), float32 in [0,1], and their paths.

    With ``dataroot_cond`` also ``cond``, the condition images one after another (Cc,H,W in [0,1]); with
    ``dataroot_mask`` also ``mask`` (1,H,W): 1 in the hole, 0 where the image is known.

    Files are paired by name, whatever their extensions; grey, RGB or RGBA with 8 or 16 bits, any size. In every phase
    H = scale*h and W = scale*w exactly: nothing is cut silently. Phase ``train``: a random crop of ``gt_size``, flips
    and turns, the same for all images that belong together, drawn from torch's default generator, which is seeded
    anew in every worker and epoch; with masks, crops are drawn until one shows a part of the hole, 20 times at most.
    ``skip_bad`` lets other pairs stand in for a few unusable ones, see :class:`~i2sb_plugin.data.bad_images.BadImages`.
    Raises InputError naming the option or the file.
    """

    Options = PairedFolderOptions

    def __init__(self, opt: Mapping[str, Any]) -> None:
        self.opt = opt  # read by BasicSR's loops
        self.options = options = read_options(PairedFolderOptions, opt)
        self.scale = options.scale
        subset = options.meta_info_file is not None
        backend, values = options.io_backend, options.data
        self.gt = ImageSource(options.dataroot_gt, "dataroot_gt", backend, options.meta_info_file, values)
        self.lq = ImageSource(options.dataroot_lq, "dataroot_lq", backend, values=values)
        self._pairs = pair_names(self.gt, self.lq, options.filename_tmpl, subset)
        self.paths = [{"lq_path": self.lq.path(lq), "gt_path": self.gt.path(gt)} for gt, lq in self._pairs]
        self._bad = BadImages(options.skip_bad, [self.gt.describe(name) for name, _ in self._pairs])
        self.channels_gt = options.channels_gt or self._first_channels(self.gt, 0)
        self.channels_lq = options.channels_lq or self._first_channels(self.lq, 1)
        self.masks: Masks | None = None
        if options.dataroot_mask is not None:
            self.masks = Masks(options.dataroot_mask, "dataroot_mask", self.gt, options.io_backend, subset)
        self.conditions = [
            Conditions(root, option, self.gt, options.io_backend, subset, channels, options.grey_to_rgb)
            for option, root, channels in options.conditions
        ]
        self._companions = [*self.conditions, *([self.masks] if self.masks else [])]

    def __len__(self) -> int:
        return len(self.paths)

    def header_faults(self, index: int) -> list[str]:
        """Say why the pair number ``index`` would be refused, as far as its files' headers tell."""
        (gt_name, lq_name), to_rgb = self._pairs[index], self.options.grey_to_rgb
        faults = self.gt.header_faults(gt_name, self.channels_gt, to_rgb, "channels_gt")
        faults += self.lq.header_faults(lq_name, self.channels_lq, to_rgb, "channels_lq")
        return faults + [fault for companion in self._companions for fault in companion.header_faults(gt_name)]

    @property
    def left_out(self) -> list[str]:
        """What the folders hold that is not read, and why."""
        return left_out(self.gt, self.lq, *(companion.source for companion in self._companions))

    def _first_channels(self, source: ImageSource, side: int) -> int:
        return first_readable(lambda index: source.load(self._pairs[index][side]), len(self._pairs)).shape[2]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the pair number ``index``."""
        index, (gt, lq, conditions, hole) = self._bad.readable(index, self.read)
        if self.options.phase == "train":
            view = self._draw_view(lq, hole)
            gt, lq = view.of(gt, self.scale), view.of(lq)
            conditions = [view.of(condition, self.scale) for condition in conditions]
            hole = None if hole is None else view.of(hole, self.scale)
        values = self.options.data
        item = {"lq": to_tensor(lq, values), "gt": to_tensor(gt, values), **self.paths[index]}
        if conditions:
            item["cond"] = torch.cat([to_tensor(condition, values) for condition in conditions])
        return item if hole is None else {**item, "mask": to_mask(hole)}

    def clean(self, index: int) -> np.ndarray:
        """Return the clean image number ``index``, H,W,C as it is stored; raises InputError if it cannot be used."""
        return self._pixels(self.gt, self._pairs[index][0], self.channels_gt, "channels_gt")

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], np.ndarray | None]:
        """Return what belongs to pair ``index``: clean, degraded, conditions (all H,W,C) and the hole (H,W,1) or None.

        Raises InputError if any of them cannot be used.
        """
        gt_name, lq_name = self._pairs[index]
        gt = self._pixels(self.gt, gt_name, self.channels_gt, "channels_gt")
        lq = self._pixels(self.lq, lq_name, self.channels_lq, "channels_lq")
        self._check_sizes(gt, lq, gt_name, lq_name)
        conditions = [condition.load(gt_name, gt.shape[:2]) for condition in self.conditions]
        hole = self.masks.load(gt_name, gt.shape[:2]) if self.masks else None
        if self.options.phase == "train":
            check_crop(gt, self.options.side, self.gt.describe(gt_name))
        return gt, lq, conditions, hole

    def _draw_view(self, lq: np.ndarray, hole: np.ndarray | None) -> View:
        """Draw a view of ``lq``, again while it misses the hole."""
        options, (height, width), size = self.options, lq.shape[:2], self.options.side // self.scale
        for _ in range(20):
            view = draw_view(height, width, size, options.use_hflip, options.use_rot, torch.default_generator)
            if hole is None or view.of(hole, self.scale).any():
                break
        return view

    def _pixels(self, source: ImageSource, name: str, channels: int, option: str) -> np.ndarray:
        return source.matched(name, channels, self.options.grey_to_rgb, option)

    def _check_sizes(self, gt: np.ndarray, lq: np.ndarray, gt_name: str, lq_name: str) -> None:
        (gt_height, gt_width), (height, width) = gt.shape[:2], lq.shape[:2]
        if (gt_height, gt_width) != (height * self.scale, width * self.scale):
            raise InputError(
                f"{self.gt.describe(gt_name)} is {gt_height}x{gt_width} (height x width) but "
                f"{self.lq.describe(lq_name)} is {height}x{width}: with scale {self.scale}, "
                f"{height * self.scale}x{width * self.scale} is expected; crop one of them or set scale"
            )
