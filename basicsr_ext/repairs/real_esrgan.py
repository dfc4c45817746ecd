"""Repairs to Real-ESRGAN's models, BasicSR's and those of the published package, which take a GPU for granted."""

import functools
import types
from typing import Any

import torch
from basicsr.models.base_model import BaseModel
from basicsr.models.realesrgan_model import RealESRGANModel
from basicsr.utils import DiffJPEG, USMSharp, img_process_util

from basicsr_ext.common.errors import InputError
from basicsr_ext.repairs.repair import Repairs, source_says, unrepaired

REPAIRS = Repairs()


def _pool(self: Any) -> None:
    """Exchange the batch for one drawn from the last ``queue_size`` pairs, once so many have been seen."""
    size, batch = self.queue_size, len(self.lq)
    if size % batch:
        raise InputError(f"queue_size is {size}, which the batch size {batch} does not divide; set a multiple of it")
    if "queue_lr" not in vars(self):
        self.queue_lr, self.queue_gt = (image.new_zeros(size, *image.shape[1:]) for image in (self.lq, self.gt))
        self.queue_ptr = 0
    if self.queue_ptr < size:
        place = slice(self.queue_ptr, self.queue_ptr + batch)
        self.queue_lr[place], self.queue_gt[place] = self.lq, self.gt
        self.queue_ptr += batch
        return
    chosen = torch.randperm(size)[:batch]
    drawn = self.queue_lr[chosen], self.queue_gt[chosen]
    self.queue_lr[chosen], self.queue_gt[chosen] = self.lq, self.gt
    self.lq, self.gt = drawn


def _follow_the_data(cls: type) -> None:
    """Let a module lie where its input lies, whatever it was told."""
    forward = cls.forward  # type: ignore[attr-defined]

    @functools.wraps(forward)
    def follow(self: Any, image: torch.Tensor, *rest: Any, **named: Any) -> Any:
        return forward(self.to(image.device), image, *rest, **named)

    cls.forward = follow  # type: ignore[attr-defined]
    cls.cuda = lambda self, device=None: self  # type: ignore[attr-defined]


def _needs_gpu() -> bool:
    return source_says(RealESRGANModel, ".cuda()") and "__wrapped__" not in vars(USMSharp.forward)


@REPAIRS.cures("real-esrgan-anywhere",
               "Real-ESRGAN's models die without a CUDA device: their degradation and their pool of pairs call "
               ".cuda().", _needs_gpu)  # fmt: skip
def _apply() -> None:
    for cls in (DiffJPEG, USMSharp):
        _follow_the_data(cls)
    init = BaseModel.__init__

    @functools.wraps(init)
    def with_pool(self: Any, opt: dict) -> None:
        init(self, opt)
        pools = [vars(cls)["_dequeue_and_enqueue"] for cls in type(self).__mro__ if "_dequeue_and_enqueue" in vars(cls)]
        if self.device.type == "cpu" and pools and source_says(pools[0], ".cuda()"):
            self._dequeue_and_enqueue = types.MethodType(_pool, self)

    BaseModel.__init__ = with_pool


@REPAIRS.replaces(img_process_util, "filter2D", "filter-layout",
                  "Real-ESRGAN's degradation dies on the CPU, where resized images do not lie in memory as filter2D "
                  "expects.", "img.view(")  # fmt: skip
def filter2d(img: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Filter B,C,H,W in any memory layout by B,k,k or 1,k,k."""
    return unrepaired(filter2d)(img.contiguous(), kernel)
