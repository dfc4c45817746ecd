"""The benchmark that the README shows is the one whose records are kept, and its page holds the same."""

import json
import re
from pathlib import Path

from basicsr_ext.benchmark.page.build import read
from basicsr_ext.benchmark.report import tables
from basicsr_ext.benchmark.run.methods import MethodOptions

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "studies/quality/results" / "benchmark_sr4x.json"
PAGE = ROOT / "docs" / "benchmark" / "index.html"


def test_the_readme_shows_the_table_of_the_records():
    table = tables.markdown(json.loads(RECORDS.read_text(encoding="utf-8")))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [line for line in table.splitlines() if line.startswith("|") and line not in readme] == []
    assert "make benchmark" in readme and "docs/benchmark/index.html" in readme


def test_the_page_is_that_of_the_records_and_small():
    records = json.loads(RECORDS.read_text(encoding="utf-8"))
    assert read(RECORDS)["name"] == "benchmark_sr4x"
    text = PAGE.read_text(encoding="utf-8")
    embedded = json.loads(re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)[1])
    assert [r["summary"] for r in embedded["results"]] == [r["summary"] for r in records["results"]]
    assert sum(path.stat().st_size for path in PAGE.parent.rglob("*") if path.is_file()) < 3_000_000


def test_the_manual_names_every_option_of_a_method():
    text = (ROOT / "docs" / "benchmark.md").read_text(encoding="utf-8")
    assert [
        name for name in MethodOptions.__dataclass_fields__ if f"`{name}`" not in text and f"{name}:" not in text
    ] == ["label"]
