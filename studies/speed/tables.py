"""Write the tables of docs/performance.md and docs/export.md from studies/speed/results, between their markers.

python -m studies.speed.tables
"""

import importlib
import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / f"{name}.md" for name in ("performance", "export")]
RESULTS = Path(__file__).parent / "results"
# The module behind each table, by the name of its results.
MODULES = {
    "cold_start": "studies.speed.cold_start",
    **{name: f"studies.speed.network.{name}" for name in ("graphs", "rivals", "sampler_loop", "unet")},
    **{
        name: f"studies.speed.training.{name}"
        for name in ("degradations", "gpu", "loading", "loop", "scaling", "training_log", "validation")
    },
}
__all__ = ["MODULES", "main", "written"]


def written(page: str) -> str:
    """The page with the table of every marker ``<!-- table: NAME -->`` made again from ``NAME.json``, if any."""

    def fill(match: re.Match) -> str:
        name, file = match[1], RESULTS / f"{match[1]}.json"
        made = "No figure yet."
        if file.is_file():
            made = importlib.import_module(MODULES[name]).table(json.loads(file.read_text())["rows"])
        return f"<!-- table: {name} -->\n{made}\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end -->", fill, page, flags=re.DOTALL)


def main() -> None:
    """Write the pages."""
    for page in PAGES:
        page.write_text(written(page.read_text()))


if __name__ == "__main__":
    main()
