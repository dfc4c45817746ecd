"""Makes the sheet of docs/builtin.md: a face, fur and text, restored by the built-in network along its dial.

    python -m docs.make.dial

From left to right: bicubic, dial 1, 0.75, 0.5, 0.25, 0, original. None of the three was in its training.
"""

from importlib import resources
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from basicsr_ext.images.decode import decode_image
from i2sb_plugin import Restorer
from i2sb_plugin.degradations import build_degradation
from i2sb_plugin.space import lift

SHEET = Path(__file__).resolve().parents[1] / "images/dial.jpg"
PARTS = (("astronaut.png", 64, 164), ("chelsea.png", 84, 220), ("page.png", 16, 36))  # of scikit-image: top, left
SIDE, GAP = 128, 4  # of a part, and between parts: pixels
DIALS = (1, 0.75, 0.5, 0.25, 0)


def main() -> None:
    """Make the sheet."""
    restorer = Restorer.load(device="cpu")
    rows = [torch.cat(between(row(restorer, *part), vertical=False), 2) for part in PARTS]
    pixels = (torch.cat(between(rows, vertical=True), 1) * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(SHEET, quality=93, optimize=True)


def row(restorer: Restorer, file: str, top: int, left: int) -> list[Tensor]:
    """The part of a photograph as bicubic enlarges it, along the dial, and as it was: 3,SIDE,SIDE in [0, 1] each."""
    data = (resources.files("skimage") / "data" / file).read_bytes()
    whole = decode_image(data, file, channels=3, grey_to_rgb=True)
    original = whole[:, : whole.shape[1] // 4 * 4, : whole.shape[2] // 4 * 4]
    small = build_degradation({"type": "sr4x_bicubic"})(original, torch.Generator()).lq.clamp(0, 1)
    restored = [restorer(small, dial=dial) for dial in DIALS]
    images = [lift(small[None], 4, "bicubic")[0].clamp(0, 1), *restored, original]
    return [image[:, top : top + SIDE, left : left + SIDE] for image in images]


def between(parts: list[Tensor], vertical: bool) -> list[Tensor]:
    """The parts with white between them."""
    _, height, width = parts[0].shape
    gap = torch.ones(3, GAP, width) if vertical else torch.ones(3, height, GAP)
    return [piece for part in parts for piece in (part, gap)][:-1]


if __name__ == "__main__":
    main()
