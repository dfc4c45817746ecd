"""Milliseconds of a training image from a file, against PIL's path, and of crops that ``basicsr prepare`` packed.

PIL's path: open, convert to RGB, torchvision's Resize and CenterCrop to 256 pixels, ToTensor. Ours: what the data set
does to the same JPEG of 500 x 375 pixels with ``resize: 256``, and to the same squares prepared as PNG and raw. Files
are read from disk (the system keeps them in memory), in the order A B A B ..., in one process.

    python -m studies.speed.training.loading --threads 1 --out studies/speed/results/loading.json
"""

import argparse
import contextlib
import io
import itertools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from basicsr_ext.images.decode import decode_pixels, to_tensor
from basicsr_ext.images.packing.crops import Cutting
from basicsr_ext.images.packing.pack import prepare
from i2sb_plugin.data import photographs as sample_photographs
from i2sb_plugin.data.crops import centre_square
from i2sb_plugin.data.image_source import ImageSource
from studies.timing import machine, paired, write

SIZE = (500, 375)  # width and height of the JPEGs
SIDE = 256
QUALITY = 92
Load = Callable[[str], np.ndarray | torch.Tensor]


def make_images(root: Path, count: int) -> Path:
    """Write ``count`` JPEGs cut from the bundled photographs, and their squares as PNG."""
    photographs = sample_photographs.prepare(root / "photographs")
    pictures = [cv2.imread(str(path)) for path in sorted((photographs / "train").glob("*.png"))]
    (root / "jpeg").mkdir()
    (root / "squares").mkdir()
    for number, picture in zip(range(count), itertools.cycle(pictures)):
        height, width = picture.shape[:2]
        shift = 0.2 * (number // len(pictures)) / max(1, count // len(pictures))
        cut = picture[int(shift * height) :, int(shift * width) :]
        path = root / "jpeg" / f"{number:03d}.jpg"
        cv2.imwrite(str(path), cv2.resize(cut, SIZE, interpolation=cv2.INTER_AREA), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        square = centre_square(decode_pixels(path.read_bytes(), str(path)), SIDE)
        cv2.imwrite(str(root / "squares" / f"{number:03d}.png"), square)
    return root


def pil_path(folder: Path) -> Callable[[str], torch.Tensor]:
    """JPEG to a square by PIL and torchvision's transforms."""
    turn = transforms.Compose([transforms.Resize(SIDE), transforms.CenterCrop(SIDE), transforms.ToTensor()])
    return lambda name: turn(Image.open(folder / f"{name}.jpg").convert("RGB"))


def our_path(source: ImageSource, ending: str) -> Callable[[str], torch.Tensor]:
    """What the training data set does: read, decode, resize where the image is no square of that size, to float."""
    return lambda name: to_tensor(centre_square(source.load(name + ending), SIDE, fast=True))


def sources(root: Path) -> dict[str, tuple[ImageSource, str]]:
    """The same images in every kind of storage, with the ending of their names."""
    for kind in ("lmdb", "raw"):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            prepare(root / "squares", root / f"{kind}.lmdb", kind, Cutting(raw=kind == "raw"), workers=1)
    lmdb = {"type": "lmdb"}
    return {
        "JPEG 500 x 375, resized": (ImageSource(str(root / "jpeg"), "dataroot_gt"), ".jpg"),
        "prepared, PNG in an LMDB": (ImageSource(str(root / "lmdb.lmdb"), "dataroot_gt", lmdb), ""),
        "prepared, raw in an LMDB": (ImageSource(str(root / "raw.lmdb"), "dataroot_gt", lmdb), ""),
    }


def measure(count: int = 40, pairs: int = 9) -> list[dict[str, object]]:
    """One row for each kind of storage."""
    cv2.setNumThreads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = make_images(Path(folder), count)
        names = [path.stem for path in sorted((root / "jpeg").iterdir())]
        pil = pil_path(root / "jpeg")
        for what, (source, ending) in sources(root).items():
            rows.append(row_of(what, source, ending, names, pil, our_path(source, ending), pairs))
            if ending == ".jpg":
                rows.append(
                    row_of(f"{what.split(',')[0]}, decoded only", source, ending, names, *decoders(source), pairs)
                )
    return rows


def decoders(source: ImageSource) -> tuple[Load, Load]:
    """JPEG to H,W,C of uint8 in OpenCV's order by PIL, and as the data set does it."""

    def pil(name: str) -> np.ndarray:
        return np.asarray(Image.open(f"{source.root}/{name}.jpg").convert("RGB"))[:, :, ::-1]

    return pil, lambda name: source.load(f"{name}.jpg")


def row_of(
    what: str,
    source: ImageSource,
    ending: str,
    names: list[str],
    pil: Load,
    ours: Load,
    pairs: int,
) -> dict[str, object]:
    """Compare two ways of loading the same images."""
    levels = max(float(np.abs(np.asarray(pil(n), np.float32) - np.asarray(ours(n), np.float32)).max()) for n in names)
    levels *= 255 if torch.is_tensor(pil(names[0])) else 1
    row = {"what": what, "reference": "PIL", "images": len(names), "largest_grey_levels": round(levels, 3)}
    row["bytes_per_image"] = sum(len(source.read(name + ending)) for name in names) / len(names)
    return row | paired(partial(run, pil, names), partial(run, ours, names), pairs)


def run(load: Load, names: list[str]) -> None:
    """Load one image after another."""
    for name in names:
        load(name)


def quick() -> list[dict[str, object]]:
    """What a check of a few seconds needs."""
    return measure(count=6, pairs=3)


def table(rows: list[dict[str, object]]) -> str:
    """The rows as Markdown."""
    head = "| images | PIL, ms | ours, ms | images/s, one core | kB | ratio (least to most) | grey levels from PIL |"
    lines = [
        f"| {r['what']} | {1000 * r['reference_seconds'] / r['images']:.2f} | {1000 * r['seconds'] / r['images']:.2f} "
        f"| {r['images'] / r['seconds']:.0f} | {r['bytes_per_image'] / 1000:.0f} "
        f"| {r['ratio_median']:.1f} ({r['ratio_min']:.1f} to {r['ratio_max']:.1f}) | {r['largest_grey_levels']:.0f} |"
        for r in rows
    ]
    return "\n".join([head, "| --- | --- | --- | --- | --- | --- | --- |", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=9, help="measured pairs per figure")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = measure(args.images, args.pairs)
    print(table(rows))
    write(args.out, {"machine": machine("torchvision", "pillow", "opencv-python", "lmdb"), "rows": rows})


if __name__ == "__main__":
    main()
