"""Every comparison of docs/performance.md at a small size, in under two minutes; prints ratios and judges nothing.

OMP_NUM_THREADS=1 python -m studies.speed.quick
"""

import contextlib
import importlib
import io
import time

from studies.speed.tables import MODULES

PARTS = ("unet", "rivals", "degradations", "sampler_loop", "loop", "loading", "validation")
__all__ = ["PARTS", "main"]


def main() -> None:
    """Run ``quick()`` of every part and print what it returns."""
    begun = time.perf_counter()
    for name in PARTS:
        start = time.perf_counter()
        with contextlib.redirect_stderr(io.StringIO()):
            found = importlib.import_module(MODULES[name]).quick()
        print(f"{name} ({time.perf_counter() - start:.0f} s)")
        for row in found:
            print(f"  {row if isinstance(row, str) else _said(row)}", flush=True)
    print(f"{time.perf_counter() - begun:.0f} s")


def _said(row: dict) -> str:
    if "outside_share_overall" in row:
        return f"outside {100 * row['outside_share_overall']:.0f} %, waiting {100 * row['waiting_share_overall']:.0f} %"
    what = ", ".join(str(row[key]) for key in ("what", "way", "reference") if key in row)
    return f"{what}: {row['ratio_median']:.2f}" if "ratio_median" in row else what


if __name__ == "__main__":
    main()
