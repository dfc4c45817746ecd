"""Write the page of a benchmark again: ``python -m basicsr_ext.benchmark.page RECORDS FOLDER [--quality 90]``."""

import argparse
import sys

from basicsr_ext.common.errors import InputError


def main() -> int:
    """Run the command line; 0 done, 2 bad input."""
    program = "python -m basicsr_ext.benchmark.page"
    parser = argparse.ArgumentParser(prog=program, description="Write the page of a benchmark.")
    parser.add_argument("records", metavar="RECORDS", help="records.json of a benchmark")
    parser.add_argument("folder", metavar="FOLDER", help="where index.html and its pictures go")
    parser.add_argument("--quality", type=int, help="1 to 100: store pictures as WebP, for a small page; else exactly")
    args = parser.parse_args()
    from basicsr_ext.benchmark.page.build import write

    try:
        print(write(args.records, args.folder, args.quality))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
