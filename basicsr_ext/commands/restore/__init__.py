"""``basicsr restore``: restore pictures by any registered model; here its arguments, in ``work`` what takes seconds."""

import argparse
import functools
from pathlib import Path

from basicsr_ext.common.errors import InputError
from basicsr_ext.common.text import path_text
from basicsr_ext.images.inventory import DATA_FORMATS, DEEP, FORMATS


def run(argv: list[str]) -> int:
    """Restore the pictures that the command line names; returns 1 if some could not be restored, else 0."""
    parser = _parser()
    if {"-h", "--help"} & set(argv):
        from basicsr_ext.commands.restore import work

        work.add_known_flags(parser)
        parser.print_help()
        return 0
    args, rest = parser.parse_known_args(argv)
    _check(args)
    from basicsr_ext.commands.restore import work

    return work.restore(args, rest, parser)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="basicsr restore",
        description="Restore pictures by a trained model: grey, RGB, RGBA; 8 and 16 bits; any size.",
        epilog="Without --checkpoint the built-in network restores; it says what it does. "
        "Results that are newer than their pictures are skipped, so that an interrupted run goes on where it stopped. "
        "Exit code: 0 done, 1 some pictures could not be restored (they are listed), 2 bad input.",
        add_help=False,
        allow_abbrev=False,
    )
    add, paths = parser.add_argument, functools.partial(parser.add_argument, type=path_text)
    add("-h", "--help", action="store_true", help="show this, with the flags of every model")
    paths("-i", nargs="+", required=True, metavar="INPUT", help="pictures, folders (with sub-folders) or patterns")
    paths("-o", required=True, metavar="OUTPUT", help="folder of the results; a file name for one picture")
    paths(
        "--checkpoint", help="trained network: net_g_*.pth, .safetensors or .onnx (default: the one that is built in)"
    )
    paths("-opt", help="option file; without it, the one inside the checkpoint or of the run that wrote it")
    backends = "what computes: torch, or onnx, onnxruntime (default: torch; onnx for a checkpoint that is an .onnx)"
    add("--backend", choices=("torch", "onnx"), help=backends)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    add("--seed", type=int, default=0, help="of the noise (default: 0)")
    add("--tile", type=int, help="side of the tiles in pixels of the network's input; 0 for none (default: it suits)")
    add("--overlap", type=int, help="pixels that tiles share (default: an eighth of the tile)")
    add("--tile_batch", type=int, default=1, help="tiles of a picture at once (default: 1)")
    add("--batch", type=int, default=1, help="pictures of one size at once (default: 1)")
    paths("--mask", help="mask, white where the picture is to be filled; or a folder of masks of the pictures' names")
    told = "condition images, where the network was trained with some; or folders of them"
    paths("--cond", nargs="+", help=told)
    add("--bits", type=int, choices=(8, 16), help="of the results (default: as the picture)")
    add("--format", choices=(*FORMATS, "npy", "npz"), help="of the results (default: png; of data that of each file)")
    add("--launcher", choices=("none", "pytorch", "slurm"), default="none", help="shares the pictures out over ranks")
    add("--overwrite", action="store_true", help="restore again what is restored already")
    return parser


def _check(args: argparse.Namespace) -> None:
    kind = Path(args.o).suffix[1:].lower()
    kind = {"jpeg": "jpg", "tiff": "tif"}.get(kind, kind)
    args.format = kind if kind in (*FORMATS, *DATA_FORMATS) else args.format
    if args.bits == 16 and args.format not in (None, *DEEP):
        raise InputError(f"--bits is 16, but {args.format} holds 8; give --format {' or '.join(DEEP)}")
    for name, least in (("batch", 1), ("seed", 0)):
        if (value := vars(args)[name]) < least:
            raise InputError(f"--{name} is {value}; it must be a whole number from {least}")
    if args.seed >= 2**32:
        raise InputError(f"--seed is {args.seed}; it must be a whole number from 0 to {2**32 - 1}")
