"""The options of a restoration model: the blocks `train` and `val`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainOptions:
    """Keys of ``train:``; those of BasicSR first, then ours.

    Attributes:
        accumulate: parts that a batch is cut into; their gradients add up to those of the whole batch.
        grad_clip: largest L2 norm of the gradient; None leaves it alone.
        precision: of the network's forward pass; auto is bf16 on a GPU that has it, fp32 elsewhere. fp16 scales
            the loss.
        channels_last: keep images pixel by pixel in memory; auto does on a CPU, and on a GPU where it compiles.
        compile: compile the repeated parts of the network; auto does on a GPU where Triton and a C compiler are.
        tf32: let a GPU round the factors of fp32 products to 10 bits; auto does.
        ema_decay: 0 turns the average off.
        nonfinite: what becomes of a step whose loss or gradient is NaN or infinite: ``stop`` ends the run, ``skip``
            leaves the step out, for which a GPU is waited for at every step.
        max_skipped: so many bad steps in a row end the run all the same.
        ema_warmup: use min(ema_decay, (1 + k) / (10 + k)) for update k, so that early weights are forgotten soon.
    """

    total_iter: int
    optim_g: dict
    scheduler: dict
    warmup_iter: int = -1
    ema_decay: float = 0.0
    pixel_opt: dict | None = None
    accumulate: int = 1
    grad_clip: float | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: bool | Literal["auto"] = "auto"
    compile: bool | Literal["auto"] = "auto"
    tf32: bool | Literal["auto"] = "auto"
    ema_warmup: bool = False
    nonfinite: Literal["stop", "skip"] = "stop"
    max_skipped: int = 10

    def __post_init__(self) -> None:
        if self.max_skipped < 1:
            raise ValueError(f"max_skipped is {self.max_skipped}; it must be a whole number from 1")
        if self.accumulate < 1:
            raise ValueError(f"accumulate is {self.accumulate}; it must be a whole number from 1")
        if self.grad_clip is not None and self.grad_clip <= 0:
            raise ValueError(f"grad_clip is {self.grad_clip}; it must be above 0, or left out for no clipping")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; it must be in [0, 1)")


@dataclass(frozen=True)
class ValOptions:
    """Keys of ``val:``; those of BasicSR first, then ours.

    Attributes:
        batch_size: number of equally large images that are restored at once.
        cuda_graph: does nothing any more; files of former versions may still have it.
        curve_images: images of a data set on which the curve of a model's settings is measured.
        tile: side of the tiles in pixels of what the network sees, a multiple of what it needs; 0 for whole images.
        tile_overlap: pixels that tiles share at least; None for an eighth of the tile.
    """

    val_freq: float = 5000
    save_img: bool = False
    suffix: str | None = None
    pbar: bool = True
    metrics: dict | None = None
    batch_size: int = 8
    cuda_graph: bool | Literal["auto"] = "auto"
    curve_images: int = 8
    tile: int = 0
    tile_overlap: int | None = None

    def __post_init__(self) -> None:
        if self.tile < 0:
            raise ValueError(f"tile is {self.tile}; it must be a number of pixels, or 0 for whole images")
        if self.tile_overlap is not None and not 0 <= 2 * self.tile_overlap <= self.tile:
            allowed = f"it must be from 0 to half of tile, {self.tile // 2}" if self.tile else "set tile as well"
            raise ValueError(f"tile_overlap is {self.tile_overlap}; {allowed}")
        for name in ("val_freq", "batch_size", "curve_images"):
            if (value := vars(self)[name]) < 1:
                raise ValueError(f"{name} is {value}; it must be a whole number from 1")
