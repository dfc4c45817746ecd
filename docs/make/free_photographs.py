"""Lays out the free photographs that the built-in network learns from, as its option file expects them.

    git clone https://github.com/BuddiesOfBudgie/budgie-backgrounds
    git -C budgie-backgrounds checkout 82067426f1dde366e9c9038fdbe457c2527525dd
    python -m docs.make.free_photographs budgie-backgrounds

PNG files are those of ``sample:train``; the others are reduced, which makes them sharp and free of noise.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from PIL import Image

from i2sb_plugin.data.photographs import prepare

NAMES = Path(__file__).resolve().parents[2] / "options/i2sb_sr4x_builtin.txt"
FOLDER = Path("datasets/free")
LONG_SIDE = 1536  # pixels


def lay_out(clone: Path, folder: Path = FOLDER) -> None:
    """Write the photographs of ``NAMES`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        samples = prepare(Path(work, "photographs")) / "train"
        for name in NAMES.read_text().split():
            if name.endswith(".png"):
                shutil.copyfile(samples / name, folder / name)
            else:
                reduced(Image.open(clone / "backgrounds" / name)).save(folder / name, quality=96, subsampling=0)


def reduced(image: Image.Image) -> Image.Image:
    """The picture with a long side of ``LONG_SIDE`` and sides that are multiples of 4."""
    scale = LONG_SIDE / max(image.size)
    size = tuple(round(side * scale / 4) * 4 for side in image.size)
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def main() -> None:
    """Lay them out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clone", type=Path, help="folder of budgie-backgrounds")
    lay_out(parser.parse_args().clone)


if __name__ == "__main__":
    main()
