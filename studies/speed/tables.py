"""Write the tables of docs/performance.md from the results in studies/speed/results, between their markers.

python -m studies.speed.tables
"""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
__all__ = ["main", "written"]


def written(page: str) -> str:
    """The page with the table of every marker ``<!-- table: NAME -->`` made again from ``NAME.json``, if any."""

    def fill(match: re.Match) -> str:
        name, file = match[1], ROOT / "benchmarks" / "results" / f"{match[1]}.json"
        made = "No figure yet."
        if file.is_file():
            made = importlib.import_module(f"benchmarks.{name}").table(json.loads(file.read_text())["rows"])
        return f"<!-- table: {name} -->\n{made}\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end -->", fill, page, flags=re.DOTALL)


def main() -> None:
    """Write the page."""
    PAGE.write_text(written(PAGE.read_text()))


if __name__ == "__main__":
    main()
