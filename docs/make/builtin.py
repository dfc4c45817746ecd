"""Makes the first picture of the README: a photograph that the built-in network restored without having seen it.

    python -m docs.make.builtin [--work FOLDER]

From left to right: a quarter of the size with its pixels repeated, bicubic, restored, original.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from basicsr_ext import cli
from basicsr_ext.images.decode import decode_image
from basicsr_ext.images.pictures import Picture, write_picture
from i2sb_plugin.data.photographs import prepare
from i2sb_plugin.degradations import build_degradation
from i2sb_plugin.space import lift

PICTURE = Path(__file__).resolve().parents[1] / "images/builtin.jpg"
TOP, LEFT, HEIGHT, WIDTH = 0, 40, 216, 216  # the part that is shown, pixels


def main() -> None:
    """Make the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir(), "builtin"), help="folder for images")
    work = parser.parse_args().work
    original = read(prepare(work / "photographs") / "val/astronaut.png")
    small = build_degradation({"type": "sr4x_bicubic"})(original, torch.Generator()).lq.clamp(0, 1)
    write_picture(work / "astronaut_small.png", Picture(small))
    words = ["restore", "-i", str(work / "astronaut_small.png"), "-o", str(work / "astronaut.png"), "--overwrite"]
    if cli.main(words):
        raise SystemExit("the photograph could not be restored")
    repeated, smooth = (lift(small[None], 4, mode)[0].clamp(0, 1) for mode in ("nearest", "bicubic"))
    show(repeated, smooth, read(work / "astronaut.png"), original)


def read(path: Path) -> Tensor:
    """An image, 3,H,W in [0, 1]."""
    return decode_image(path.read_bytes(), str(path))


def show(*images: Tensor) -> None:
    """Write the same part of images side by side with a white line between them."""
    gap = torch.ones(3, HEIGHT, 4)
    parts = [image[:, TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH] for image in images]
    row = torch.cat([piece for part in parts for piece in (part, gap)][:-1], -1)
    pixels = (row * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(PICTURE, quality=93, optimize=True)


if __name__ == "__main__":
    main()
