"""Do tiles leave seams? Compares a restoration in tiles with that of the whole image, at the borders and elsewhere.

    python -m studies.quality.seams --checkpoint experiments/i2sb_sr4x_plain/models/net_g_latest.pth --out seams.png

The energy of a column (or row) is the mean squared step to the next one, of the tiled image over that of the whole one.
It is printed for the columns where tiles end, and, since pictures vary, for the same number of columns elsewhere: the
borders moved by 4, 8, 12, ... pixels, mean and range. The figure shows the whole image, tiles that only touch and tiles
that are blended; below them four times their difference from the whole.
"""

import argparse

import numpy as np
import torch
from PIL import Image
from skimage import data
from torch.nn import functional as F

from basicsr_ext.restoring.tiling import tile_windows
from i2sb_plugin import Restorer

MULTIPLE = 8  # of preset tiny


def border_energy(image: torch.Tensor, whole: torch.Tensor, tile: int, overlap: int) -> tuple[float, list[float]]:
    """Energy of ``image`` (C,H,W) over that of ``whole`` at the borders of tiles, and at these borders moved."""

    def energy(picture: torch.Tensor, axis: int, moved: int) -> torch.Tensor:
        steps = picture.diff(dim=axis).square().movedim(axis, 0).flatten(1).mean(1)
        windows = tile_windows(picture.shape[axis], tile, overlap, MULTIPLE)
        borders = sorted({edge - 1 for start, stop, _ in windows for edge in (start, stop)} - {-1, len(steps)})
        return steps[[(border + moved) % len(steps) for border in borders]]

    def ratio(moved: int) -> float:
        sums = [sum(float(energy(p, axis, moved).sum()) for axis in (-1, -2)) for p in (image, whole)]
        return sums[0] / sums[1]

    return ratio(0), [ratio(moved) for moved in range(4, tile - overlap - 3, 4)]


def figure(whole: torch.Tensor, pictures: list[torch.Tensor], path: str, crop: int = 160) -> None:
    """Save the sheet, enlarged twice."""
    middle = [(size - crop) // 2 for size in whole.shape[-2:]]
    cut = [p[:, middle[0] : middle[0] + crop, middle[1] : middle[1] + crop] for p in (whole, *pictures)]
    changes = [(0.5 + 4 * (p - cut[0])).clamp(0, 1) for p in cut]
    sheet = torch.cat([torch.cat(cut, 2), torch.cat(changes, 2)], 1)
    sheet = sheet.repeat_interleave(2, 1).repeat_interleave(2, 2)
    Image.fromarray((sheet * 255).round().byte().permute(1, 2, 0).numpy()).save(path)


def main() -> None:
    """Restore in tiles, and measure along their seams."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--options")
    parser.add_argument("--tile", type=int, default=128)
    parser.add_argument("--nfe", type=int, default=10)
    parser.add_argument("--out", default="seams.png")
    args = parser.parse_args()
    photograph = torch.from_numpy(np.ascontiguousarray(data.astronaut())).permute(2, 0, 1)[None] / 255

    def restore(tile: int, overlap: int) -> torch.Tensor:
        restorer = Restorer.load(args.checkpoint, args.options, tile=tile, overlap=overlap)
        small = F.interpolate(photograph, scale_factor=1 / restorer.scale, mode="bicubic", antialias=True).clamp(0, 1)
        return restorer(small[0], nfe=args.nfe)

    whole, pictures = restore(0, 0), []
    print("| overlap | at borders | elsewhere: mean (least, most) |\n| --- | --- | --- |")
    for overlap in (0, args.tile // 8, args.tile * 3 // 8):
        tiles = restore(args.tile, overlap)
        pictures.append(tiles)
        there, moved = border_energy(tiles, whole, args.tile, overlap)
        mean = sum(moved) / len(moved)
        print(f"| {overlap} | {there:.2f} | {mean:.2f} ({min(moved):.2f}, {max(moved):.2f}) |", flush=True)
    figure(whole, pictures[:2], args.out)


if __name__ == "__main__":
    main()
