"""What a command costs beside `import torch`, in CPU seconds of its process, now and in an earlier checkout.

python -m studies.speed.cold_start --before ../before --out studies/speed/results/cold_start.json

`git worktree add ../before COMMIT` makes the earlier checkout. Both are run by this Python, whose installed packages
name their plugins. Unix, since it takes the times of ended processes.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from studies.timing import machine, write

__all__ = ["main", "measure", "table"]

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "restore": ["restore", "-i", "small.png", "-o", "large.png", "--overwrite", "--device", "cpu"],
    "list": ["list"],
    "doctor": ["doctor"],
    "check": ["check", "-opt", "i2sb_denoise.yml", "--force_yml", "num_gpu=0"],
}
TORCH = ["-c", "import torch"]
# Restores the same picture twice: the second time costs what the network does, and nothing is imported
NETWORK = """
import time
from i2sb_plugin import Restorer
restorer = Restorer.load(device="cpu")
restorer("small.png")
start = time.process_time()
restorer("small.png")
print(time.process_time() - start)
"""


def run(words: list[str], checkout: Path, folder: Path) -> tuple[float, str]:
    """CPU seconds, user's and system's, of a Python process on a checkout's packages, and what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} in {checkout}: {done.stderr[-2000:]}")
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, done.stdout


def measure(checkouts: dict[str, Path], rounds: int, names: list[str]) -> list[dict[str, Any]]:
    """A row for each command: its seconds over those of `import torch` beside it, in each checkout.

    A first round, which writes the byte code, is not counted.
    """
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(folder)
        for name in names:
            found: dict[str, list[float]] = {key: [] for key in ("torch", "network", *checkouts)}
            for k in range(rounds + 1):
                once = {"torch": run(TORCH, ROOT, folder)[0]}
                once |= {
                    key: run(["-m", "basicsr_ext", *COMMANDS[name]], at, folder)[0] for key, at in checkouts.items()
                }
                once["network"] = float(run(["-c", NETWORK], ROOT, folder)[1]) if name == "restore" else 0.0
                for key, value in once.items() if k else ():
                    found[key].append(value)
            ratios = {key: [a / b for a, b in zip(found[key], found["torch"])] for key in ("network", *checkouts)}
            rows.append({"what": name, "rounds": rounds} | {key: spread(values) for key, values in ratios.items()})
            if "before" in checkouts:
                rows[-1]["faster"] = spread([a / b for a, b in zip(found["before"], found["now"])])
    return rows


def prepare(folder: Path) -> None:
    """Write what the commands read: a picture of 128 x 128 pixels and an option file."""
    from PIL import Image
    from skimage import data

    Image.fromarray(data.astronaut()[:128, :128]).save(folder / "small.png")
    shutil.copy(ROOT / "options" / "i2sb_denoise.yml", folder)


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line for each command."""
    lines = ["| command | before / `import torch` | now / `import torch` | of it the network | before / now |"]
    lines.append("| --- " * 5 + "|")
    for row in rows:
        network = shown(row["network"]) if row["network"]["max"] else ""
        before, faster = (shown(row[key]) if key in row else "" for key in ("before", "faster"))
        lines.append(f"| {row['what']} | {before} | {shown(row['now'])} | {network} | {faster} |")
    return "\n".join(lines)


def shown(found: dict[str, float]) -> str:
    """Median (least to most)."""
    return f"{found['median']:.2f} ({found['min']:.2f} to {found['max']:.2f})"


def main() -> None:
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="folder of an earlier checkout")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each command")
    parser.add_argument("--only", nargs="+", choices=list(COMMANDS), default=list(COMMANDS), help="commands")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    checkouts = {"before": args.before.resolve()} if args.before else {}
    rows = measure(checkouts | {"now": ROOT}, args.rounds, args.only)
    print(table(rows))
    write(args.out, {"machine": machine("basicsr", "torchvision", "scipy"), "rows": rows})


if __name__ == "__main__":
    main()
