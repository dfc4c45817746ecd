"""Everything that is made from the records of a benchmark."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from basicsr_ext.benchmark.page import build
from basicsr_ext.benchmark.report import sheets, tables
from basicsr_ext.common.files import write_whole
from basicsr_ext.common.plain_json import json_text


def publish(records: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Write ``records.json``, tables, sheets and the page to ``folder``, and print the table.

    Yields a line for each of them, and for what failed or has no figure.
    """
    for result in records["results"]:
        for name, reason in result.get("refused", {}).items():
            yield f"note: {name} of {result['method']}: {reason}"
    path = folder / "records.json"
    write_whole(path, json_text(records))
    for name, text in (("table.md", tables.markdown), ("table.csv", tables.csv_text), ("table.tex", tables.latex)):
        write_whole(path.with_name(name), text(records))
    print(tables.markdown(records))
    yield f"records: {path}"
    for dataset in records["datasets"]:
        target = path.with_name(f"sheet_{dataset['name']}.png")
        if sheets.sheet(folder, records, dataset["name"], target):
            yield f"sheet: {target}"
    yield f"page: {build.write(path, path.with_name('report'))}"
    for method in records["methods"]:
        if method["status"] == "failed":
            yield f"failed: {method['name']}: {method['reason']}"
