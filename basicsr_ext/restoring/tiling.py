"""Overlapping tiles through any callable: images of any size in bounded memory, without seams."""

from collections.abc import Callable, Iterator
from itertools import groupby, islice, product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from basicsr_ext.checkpoints.networks import network_multiple
from basicsr_ext.common.errors import InputError

Window = tuple[int, int, Tensor]
Cell = tuple[Window, ...]  # a tile: its rows and columns


def check_tile(tile: int, overlap: int, multiple: int = 1) -> None:
    """Refuse (InputError) a tile that is no multiple of the network's ``multiple``, or not 0 <= overlap <= tile / 2."""
    if tile < 1 or tile % multiple:
        near = max(multiple, round(tile / multiple) * multiple)
        raise InputError(f"tile is {tile}, but this network needs a multiple of {multiple}; give {near}, say")
    if not 0 <= 2 * overlap <= tile:
        raise InputError(f"overlap is {overlap}; it must be from 0 to half the tile, {tile // 2}")


def tile_windows(size: int, tile: int, overlap: int, multiple: int = 1) -> list[Window]:
    """Cut one axis of ``size`` pixels into tiles that start at multiples of ``multiple`` and lie evenly spread.

    Returns (start, stop, weights) of each: weights (stop - start,) in float64 rise and fall smoothly over what
    neighbours share; those that lie on one pixel sum to one.
    """
    if size <= tile:
        return [(0, size, torch.ones(size, dtype=torch.float64))]
    stride = max(multiple, (tile - overlap) // multiple * multiple)
    count = -(-(size - tile) // stride) + 1
    starts = [-(-k * (size - tile) // ((count - 1) * multiple)) * multiple for k in range(count)]
    bounds = [(start, min(start + tile, size)) for start in starts]
    total = torch.zeros(size, dtype=torch.float64)
    windows = []
    for k, (start, stop) in enumerate(bounds):
        before = bounds[k - 1][1] - start if k else 0
        after = stop - bounds[k + 1][0] if k + 1 < count else 0
        weights = _ramp(stop - start, before) * _ramp(stop - start, after).flip(0)
        total[start:stop] += weights
        windows.append((start, stop, weights))
    return [(start, stop, weights / total[start:stop]) for start, stop, weights in windows]


def _ramp(length: int, rise: int) -> Tensor:
    """Ones after a smooth rise from above 0 over the first ``rise`` pixels."""
    position = (torch.arange(length, dtype=torch.float64) + 0.5) / max(rise, 1)
    return (torch.pi / 2 * position.clamp(max=1)).sin().square() if rise else torch.ones_like(position)


def tiled(
    function: Callable[..., Tensor],
    image: Tensor,
    tile: int,
    overlap: int = 0,
    *extra: Any,
    multiple: int = 1,
    batch: int = 1,
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """Call ``function(image, *extra)`` on overlapping tiles and blend what it returns.

    Args:
        function: takes tiles b,C,h,w and returns b,D,s*h,s*w; the whole number s is read from its first answer.
        image: B,C,H,W, of any size.
        tile: side of a tile in pixels of ``image``; a smaller image is one tile.
        overlap: pixels that neighbours share at least; they are blended there.
        extra: further arguments. Tensors B or 1,*,H,W are cut like the image, other tensors whose first axis is B go
            with their image, anything else goes to every call.
        multiple: tiles start and, but for the last, end at multiples of it.
        batch: tiles of one size that are given to ``function`` at once.
        progress: called after each call with the share of the tiles that is done.

    Returns B,D,s*H,s*W, at least float32; besides it one batch of tiles lies in memory. Raises InputError as
    :func:`check_tile`, ValueError if ``function`` does not enlarge height and width by one whole number.
    """
    check_tile(tile, overlap, multiple)
    report = progress or (lambda share: None)
    cells = list(product(*(tile_windows(size, tile, overlap, multiple) for size in image.shape[-2:])))
    if len(cells) == 1:
        result = function(image, *extra)
        report(1.0)
        return result
    result, done = image.new_empty(0), 0
    for group in _groups(cells, batch):
        answer = function(*_cut_all(group, image, extra))
        scale = _scale(answer, group[0])
        if not done:
            kind = torch.promote_types(answer.dtype, torch.float32)
            height, width = image.shape[-2] * scale, image.shape[-1] * scale
            result = answer.new_zeros(len(image), answer.shape[1], height, width, dtype=kind)
        for part, cell in zip(answer.split(len(image)), group):
            _add(result, part, cell, scale)
        done += len(group)
        report(done / len(cells))
    return result


def _groups(cells: list[Cell], batch: int) -> Iterator[list[Cell]]:
    """Neighbouring tiles of one size, at most ``batch`` of them."""
    for _, same in groupby(cells, key=lambda cell: [window[1] - window[0] for window in cell]):
        while group := list(islice(same, batch)):
            yield group


def _cut_all(group: list[Cell], image: Tensor, extra: tuple[Any, ...]) -> list[Any]:
    arguments = [image, *extra]
    for k, argument in enumerate(arguments):
        if _is_like(argument, image.shape[-2:]):
            whole = argument.expand(len(image), -1, -1, -1)
            arguments[k] = torch.cat([whole[..., y:v, x:u] for (y, v, _), (x, u, _) in group])
        elif _is_for_each(argument, len(image)):
            arguments[k] = argument.repeat(len(group), *[1] * (argument.dim() - 1))
    return arguments


def _is_like(thing: Any, size: torch.Size) -> bool:
    """Whether it is a tensor of the height and width of the image."""
    return torch.is_tensor(thing) and thing.dim() == 4 and thing.shape[-2:] == size


def _is_for_each(thing: Any, count: int) -> bool:
    """Whether it is a tensor with one entry for each of ``count`` images."""
    return torch.is_tensor(thing) and thing.dim() > 0 and len(thing) == count


def _scale(answer: Tensor, cell: Cell) -> int:
    (y, v, _), (x, u, _) = cell
    height, width = answer.shape[-2:]
    scale = height // (v - y)
    if scale < 1 or (height, width) != (scale * (v - y), scale * (u - x)):
        raise ValueError(f"a tile of {v - y} x {u - x} became {height} x {width}; tiles need one whole-numbered scale")
    return scale


def _add(result: Tensor, part: Tensor, cell: Cell, scale: int) -> None:
    (y, v, rows), (x, u, columns) = cell
    down, across = (w.repeat_interleave(scale).to(result.device, result.dtype) for w in (rows, columns))
    place = result[..., scale * y : scale * v, scale * x : scale * u]
    place.addcmul_(part.to(result.dtype) * down[:, None], across)


class TiledNetwork(nn.Module):
    """A network that takes images of any size: in tiles, padded to the network's multiple and cropped back.

    Stands wherever ``net`` stands: what calls it sees one network call on the whole image, so a sampler walks with one
    noise field over it. Where a GPU has too little memory, tiles go one by one, then fewer images of a batch go
    together, then the tile is halved, for later calls too, and ``say`` is told.

    ``net(x, *rest)`` returns b,D,s*h,s*w for x b,C,h,w. Arguments are those of :func:`tiled`, but a ``tile`` of 0 is
    the whole image, an ``overlap`` of None an eighth of the tile, and ``progress`` is told of the share of a call.
    Raises InputError as :func:`check_tile`; in a call, for memory that is too small for the smallest tile.
    """

    def __init__(
        self,
        net: nn.Module,
        tile: int = 0,
        overlap: int | None = None,
        batch: int = 1,
        progress: Callable[[float], None] | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        super().__init__()
        self.net, self.multiple = net, network_multiple(net)
        if tile:
            check_tile(tile, overlap or 0, self.multiple)
        if batch < 1:
            raise InputError(f"tile_batch is {batch}; it must be a whole number from 1")
        self.tile, self.batch = tile, batch
        self.overlap, self.progress, self.say = overlap, progress, say
        self.images: int | None = None  # of a batch at once; None for all

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        """Call the network on x: B,C,H,W of any size."""
        down, right = (-size % self.multiple for size in x.shape[-2:])
        if not (down or right):
            return self._call(x, *rest)
        size = x.shape[-2:]
        border = (0, right, 0, down)
        given = (F.pad(part, border, mode="replicate") if _is_like(part, size) else part for part in (x, *rest))
        result = self._call(*given)
        scale = result.shape[-2] // (size[0] + down)
        return result[..., : scale * size[0], : scale * size[1]]

    def _call(self, x: Tensor, *rest: Any) -> Tensor:
        while True:
            tile = self.tile or -(-max(x.shape[-2:]) // self.multiple) * self.multiple
            overlap = tile // 8 if self.overlap is None else min(self.overlap, tile // 2)
            try:
                return self._in_parts(tile, overlap, x, *rest)
            except torch.cuda.OutOfMemoryError as error:
                cause = str(error).split(". ")[0]
            # outside of `except`, whose traceback holds on to the memory of the failed call
            self._halve(min(tile, max(x.shape[-2:])), len(x), cause)

    def _in_parts(self, tile: int, overlap: int, x: Tensor, *rest: Any) -> Tensor:
        """Call the network on as many images at once as memory was found to hold."""
        count = len(x)
        size = min(count, self.images or count)
        parts = range(0, count, size)
        results, report = [], self.progress or (lambda share: None)
        sizes: dict[str, Any] = {"multiple": self.multiple, "batch": self.batch}
        for k, start in enumerate(parts):

            def progress(share: float, done: int = k) -> None:
                report((done + share) / len(parts))

            images = slice(start, start + size)
            part = [thing[images] if _is_for_each(thing, count) else thing for thing in (x, *rest)]
            results.append(tiled(self.net, part[0], tile, overlap, *part[1:], **sizes, progress=progress))
        return torch.cat(results) if len(results) > 1 else results[0]

    def _halve(self, tile: int, images: int, cause: str) -> None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.batch > 1:
            self.batch = 1
            self.say(f"out of memory: goes on with one tile at a time ({cause})")
            return
        if (images := min(images, self.images or images)) > 1:
            self.images = images // 2
            self.say(f"out of memory with {images} images at once: goes on with {self.images} ({cause})")
            return
        half = -(-tile // 2 // self.multiple) * self.multiple
        if half < max(32, self.multiple) or half >= tile:  # pixels; a smaller tile is nothing but border
            said = f"out of memory with tiles of {tile} pixels, and smaller ones make no sense ({cause})"
            raise InputError(f"{said}; free the device, or use another one (--device cpu)")
        self.tile = half
        self.say(f"out of memory with tiles of {tile} pixels: goes on with {half} ({cause})")
