"""Clean images, degraded on the fly."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
import torch
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from basicsr_ext.common.contracts import DatasetContract
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.seeds import seed_from
from basicsr_ext.images.decode import to_tensor
from basicsr_ext.images.values import Values
from i2sb_plugin.data.bad_images import BadImages, first_readable
from i2sb_plugin.data.crops import centre_square, check_crop, draw_view
from i2sb_plugin.data.image_source import ImageSource, SharedOptions, left_out, read_options
from i2sb_plugin.degradations import DEGRADATIONS, Degradation, build_degradation
from i2sb_plugin.degradations.base import Numbered, data_refusal

STATE = "random_state"  # key of a deferred item: the state of the CPU's random stream behind the draws of the crop


@dataclass(frozen=True)
class PairedDegradationOptions(SharedOptions):
    """Options of :class:`PairedDegradationDataset`; BasicSR's loader keys may stand beside them."""

    dataroot_gt: str  # folder, LMDB, sample:train or sample:val
    degradation: Mapping[str, Any] = field(metadata={"blocks": DEGRADATIONS})  # {type: name, its options}
    phase: str = "train"  # train, val or test
    scale: int | None = None  # default: the degradation's
    io_backend: Mapping[str, Any] = field(default_factory=lambda: {"type": "disk"})  # type: disk or lmdb
    meta_info_file: str | None = None  # lines "name (h,w,c)": takes these images only, in this order
    meta_info: str | None = None  # the same, by its other name in BasicSR
    resize: int | None = None  # pixels: resizes the shorter side to this, then takes the centre square, as I2SB does
    gt_size: int | None = None  # side of the training crop in pixels; needed in phase train
    use_hflip: bool = False
    use_rot: bool = False
    channels: int | None = 3  # 1, 3 or 4, of data any number; null: as in the first image
    grey_to_rgb: bool = False  # accept grey files where channels is 3, repeated three times
    seed: int = 0  # of the degradation's draws outside phase train
    degrade_on: Literal["worker", "device"] = "worker"  # device: in training whole batches are degraded, on the GPU
    clamp: bool = True  # lq to [0,1], as an image file would hold it; the release leaves it as it comes
    cache: bool = False  # keep the decoded images in memory, in every worker process
    skip_bad: float = 0.0  # share of the images that may be unusable in phase train; others stand in for them
    data: Values | None = None  # what the numbers mean where they are no pictures: filled in from the file's data:

    def __post_init__(self) -> None:
        self.check_shared(("channels", self.channels))
        if self.meta_info and self.meta_info_file:
            raise InputError("meta_info and meta_info_file are both set; they are the same option: keep one")
        if self.phase == "train" and (self.gt_size is None or self.gt_size < 1):
            raise InputError(f"gt_size is {self.gt_size}; set the side of the training crop in pixels, such as 128")
        if self.resize is not None and self.resize < (self.gt_size or 1):
            cure = f"set the side of the square in pixels, such as 256, at least gt_size ({self.gt_size})"
            raise InputError(f"resize is {self.resize}; {cure}")
        built = _build_at_scale(self.degradation, self.scale)
        if self.data is not None:
            if self.resize is not None:
                raise InputError(f"resize is {self.resize}, but only pictures are resized; resize the data beforehand")
            if why := data_refusal(built, self.data.bounded):
                raise InputError(f"degradation.type is {self.degradation['type']}, but the images are data: {why}")
        scale = built.scale
        if self.phase == "train" and self.side % scale:
            cure = f"set gt_size to {-(-self.side // scale) * scale}"
            raise InputError(f"gt_size is {self.gt_size}, which scale {scale} does not divide; {cure}")


@DATASET_REGISTRY.register()
class PairedDegradationDataset(DatasetContract, Dataset):
    """Reads clean images and degrades them: dict of ``lq`` (C,h,w), ``gt`` (C,H,W), float32 in [0,1], and their paths.

    ``lq`` keeps its own size, H = scale*h, and is clamped unless ``clamp`` is false; ``mask`` (1,h,w) is there if the
    degradation makes one. ``resize`` comes first of all (antialiased bilinear filter, then the centre square): PIL's
    numbers, of 8-bit images in phase ``train`` at most one grey level away.
    Phase ``train``: a random crop of ``gt_size``, flips and turns; every draw takes torch's default generator, which
    is seeded anew in every worker and epoch. Other phases: the whole image, cut at right and bottom to a multiple of
    the scale, with draws that depend on ``seed`` and the index only, so that validation inputs never change; masks of
    a file and the members of a mixture are taken in order, the first image getting number ``seed`` * 1000003.
    With ``degrade_on: device`` the training loop leaves the degradation to :meth:`defer`, with the same draws.
    ``skip_bad`` lets other images stand in for a few unusable ones, see :mod:`i2sb_plugin.data.bad_images`.
    Raises InputError naming the option or the file.
    """

    Options = PairedDegradationOptions

    def __init__(self, opt: Mapping[str, Any]) -> None:
        self.opt = opt  # read by BasicSR's loops
        self.options = options = read_options(PairedDegradationOptions, opt)
        self.degradation = _build_at_scale(options.degradation, options.scale)
        self.scale = self.degradation.scale
        listed = options.meta_info_file or options.meta_info
        self.source = ImageSource(options.dataroot_gt, "dataroot_gt", options.io_backend, listed, options.data)
        self.paths = [{"lq_path": path, "gt_path": path} for path in map(self.source.path, self.source.names)]
        self._cache: dict[str, np.ndarray] = {}
        self._deferred = False
        names = self.source.names
        self._bad = BadImages(options.skip_bad, [self.source.describe(name) for name in names])
        self.channels = options.channels or first_readable(lambda k: self.source.load(names[k]), len(names)).shape[2]

    def __len__(self) -> int:
        return len(self.paths)

    def header_faults(self, index: int) -> list[str]:
        """Say why the image number ``index`` would be refused, as far as its file's header tells."""
        options, name = self.options, self.source.names[index]
        return self.source.header_faults(name, self.channels, options.grey_to_rgb, "channels")

    @property
    def left_out(self) -> list[str]:
        """What the folder holds that is not read, and why."""
        return left_out(self.source)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the pair number ``index``."""
        index, pixels = self._bad.readable(index, self.read)
        degradation, options, (height, width) = self.degradation, self.options, pixels.shape[:2]
        if options.phase == "train":
            generator = torch.default_generator
            view = draw_view(height, width, options.side, options.use_hflip, options.use_rot, generator)
            gt = to_tensor(view.of(pixels), options.data)
            if self._deferred:
                return {"gt": gt, STATE: generator.get_state(), **self.paths[index]}
        else:
            number = options.seed * 1_000_003 + index
            # not the number itself: a restoration seeded by it would draw the noise that is to be removed
            generator = torch.Generator().manual_seed(seed_from("degradation", number))
            gt = to_tensor(pixels[: height - height % self.scale, : width - width % self.scale], options.data)
            if isinstance(degradation, Numbered) and degradation.index is None:
                degradation = degradation.at(number)
        return {**self._degraded(degradation, gt, generator), **self.paths[index]}

    def _degraded(self, degradation: Degradation, gt: torch.Tensor, generator: torch.Generator) -> dict[str, Any]:
        degraded = degradation(gt, generator)
        expected = (*gt.shape[:-2], gt.shape[-2] // self.scale, gt.shape[-1] // self.scale)
        if degraded.lq.shape != expected:
            raise InputError(
                f"degradation {self.options.degradation['type']} turned {tuple(gt.shape)} into "
                f"{tuple(degraded.lq.shape)}; its scale is {self.scale}, so {expected} is expected"
            )
        clamp = self.options.clamp and (self.options.data is None or self.options.data.bounded)
        lq = degraded.lq.clamp(0, 1) if clamp else degraded.lq
        item = {"lq": lq.contiguous(), "gt": gt}
        return item if degraded.mask is None else {**item, "mask": degraded.mask}

    def defer(self, device: torch.device) -> Callable[[dict[str, Any]], dict[str, Any]] | None:
        """Leave the degradation out from now on, if ``degrade_on`` is device; returns what makes it up on ``device``.

        Items then hold ``gt`` and the state of their random stream. The function takes a batch of them to ``device``
        and adds what the workers would have added: each image draws from its own stream, on the CPU as there. Images
        are degraded together where nothing is drawn, on a CPU one after another: there the numbers are equal to the
        last bit, on a GPU within its rounding.
        """
        if self.options.degrade_on != "device" or self.options.phase != "train":
            return None
        self._deferred = True
        together = device.type != "cpu" and not self._draws()
        return lambda batch: self.degrade_batch(batch, device, together)

    def _draws(self) -> bool:
        """Whether the degradation draws anything, tried on a grey image."""
        generator = torch.Generator().manual_seed(0)
        before = generator.get_state()
        self.degradation(torch.full((self.channels, self.options.side, self.options.side), 0.5), generator)
        return not torch.equal(before, generator.get_state())

    def degrade_batch(self, batch: dict[str, Any], device: torch.device, together: bool) -> dict[str, Any]:
        """Degrade the images of a batch of deferred items on ``device``, all ``together`` or one after another."""
        gt = batch["gt"].to(device, non_blocking=True)
        rest = {key: value for key, value in batch.items() if key not in ("gt", STATE)}
        generators = []
        for state in batch[STATE]:
            generators.append(torch.Generator())
            generators[-1].set_state(state.clone())  # of a view, torch reads beside it
        with _full_precision():
            if together:
                return {**self._degraded(self.degradation, gt, generators[0]), **rest}
            items = [self._degraded(self.degradation, image, generator) for image, generator in zip(gt, generators)]
        return {key: torch.stack([item[key] for item in items]) for key in items[0]} | rest

    def read(self, index: int) -> np.ndarray:
        """Return the pixels (H,W,C) of image number ``index``; raises InputError if they cannot be used."""
        name = self.source.names[index]
        pixels = self._pixels(name)
        option, size = ("gt_size", self.options.side) if self.options.phase == "train" else ("scale", self.scale)
        check_crop(pixels, size, self.source.describe(name), option)
        return pixels

    def clean(self, index: int) -> np.ndarray:
        """Return the image number ``index``, H,W,C as it is stored; raises InputError if it cannot be used."""
        return self._pixels(self.source.names[index])

    def _pixels(self, name: str) -> np.ndarray:
        if name in self._cache:
            return self._cache[name]
        options = self.options
        pixels = self.source.matched(name, self.channels, options.grey_to_rgb, "channels")
        if options.resize is not None:
            pixels = centre_square(pixels, options.resize, fast=options.phase == "train")
        if options.cache:
            self._cache[name] = pixels
        return pixels


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Let no GPU round the factors of a product, as the training step may: a worker does not."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _build_at_scale(degradation: Mapping[str, Any], scale: int | None) -> Degradation:
    """Build the degradation at the data set's scale, unless it states one; raises InputError if the two differ."""
    built = build_degradation(degradation)
    takes_scale = "scale" in {option.name for option in fields(DEGRADATIONS.get(degradation["type"]))}
    if scale is not None and takes_scale and "scale" not in degradation:
        built = build_degradation({**degradation, "scale": scale})
    if scale is not None and built.scale != scale:
        cure = "set both to the same number" if takes_scale else f"set scale: {built.scale}"
        raise InputError(f"scale is {scale} but degradation {degradation['type']} has scale {built.scale}; {cure}")
    return built
