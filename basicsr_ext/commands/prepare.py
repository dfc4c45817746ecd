"""``basicsr prepare``: pack a folder of images, cut into crops if wanted, so that training reads them fast."""

import argparse
import sys
from collections.abc import Sequence

from basicsr_ext.common.text import path_text
from basicsr_ext.images.packing import KINDS


def run(argv: Sequence[str]) -> int:
    """Run the command with its arguments; returns 1 if an image could not be packed, else 0; or raises InputError."""
    parser = argparse.ArgumentParser(prog="basicsr prepare", description=__doc__)
    add, told = parser.add_argument, "folder to make; for lmdb and raw a name that ends in .lmdb"
    add("-i", type=path_text, required=True, metavar="FOLDER", help="images, with those in sub-folders")
    add("-o", type=path_text, required=True, metavar="OUTPUT", help=told)
    add("--to", choices=KINDS, default="lmdb", help="lmdb: PNG in an LMDB of BasicSR's layout; raw: the same "
        "uncompressed, grey or RGB of 8 bits; folder: PNG files (default: lmdb)")  # fmt: skip
    add("--crop", type=int, help="side of the squares in pixels (default: whole images)")
    add("--step", type=int, help="pixels from one square to the next (default: --crop, without overlap)")
    add("--threshold", type=int, default=0, help="add a last square at the border where more pixels than this are left")
    add("--compression", type=int, default=1, help="of PNG, 0 (large, fast) to 9 (default: 1)")
    add("--suffix", default="", help="taken off the ends of names, such as x4, so that pairs get equal keys")
    add("--skip_small", action="store_true", help="leave out images smaller than --crop, instead of refusing them")
    add("--workers", type=int, help="processes (default: one for each core)")
    args = parser.parse_args(argv)
    from basicsr_ext.images.packing.crops import Cutting
    from basicsr_ext.images.packing.pack import not_packed, prepare

    step = args.crop if args.step is None else args.step
    cutting = Cutting(args.crop, step, args.threshold, args.to == "raw", args.compression, args.skip_small)
    prepare(args.i, args.o, args.to, cutting, args.suffix, args.workers)
    failures = not_packed(args.o)
    for failure in failures:
        print(f"not packed: {failure}", file=sys.stderr)
    return 1 if failures else 0
