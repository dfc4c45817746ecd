"""``basicsr report``: from the ``metrics.json`` of test runs to a table, and from their images to a sheet."""

import argparse

from basicsr_ext.common.errors import InputError
from basicsr_ext.common.text import path_text


def run(rest: list[str]) -> int:
    """Print the table, say where the images are, and write a sheet if asked."""
    parser = argparse.ArgumentParser(prog="basicsr report", description="Compare finished tests in a table.")
    told = "results folder of a test, such as results/bicubic"
    parser.add_argument("runs", type=path_text, nargs="+", metavar="RESULTS", help=told)
    parser.add_argument("--sheet", metavar="PNG", help="also write a picture of the restored images side by side")
    parser.add_argument("--originals", metavar="FOLDER", help="the original photographs, for --sheet")
    parser.add_argument("--crop", type=int, default=160, help="side of the part shown in the sheet, in pixels")
    args = parser.parse_args(rest)
    if (args.sheet is None) != (args.originals is None):
        raise InputError("--sheet needs --originals FOLDER, the folder of the original photographs, and that --sheet")
    from basicsr_ext.benchmark.report.runs import gaps, load_runs, sheet, table

    runs = load_runs(args.runs)
    print(table(runs), *gaps(runs), sep="\n")
    for run in runs:
        print(f"images of {run['name']}: {run['folder'] / 'visualization'}")
    if args.sheet:
        sheet(runs, args.originals, args.sheet, args.crop)
        print(f"sheet: {args.sheet}")
    return 0
