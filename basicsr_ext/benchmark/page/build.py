"""From ``records.json`` to ``index.html``: the style, the script and the records in one file, pictures beside it.

The page never asks a network for anything, and its content security policy lets it run no script but its own: names
that come from users travel as JSON and are shown as text.
"""

import base64
import hashlib
import html
import json
from pathlib import Path
from string import Template
from typing import Any

from basicsr_ext.benchmark import FORMAT
from basicsr_ext.benchmark.page.pictures import gather
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.files import write_whole

PARTS = Path(__file__).parent / "parts"
SCRIPTS = ("base.js", "table.js", "charts.js", "stage.js", "images.js", "main.js")


def read(path: str | Path) -> dict[str, Any]:
    """The records of a benchmark, or raises InputError if the file is missing, no JSON, or of another format."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; `basicsr benchmark -opt FILE` writes it")
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {error}; run the benchmark again") from None
    found = records.get("format") if isinstance(records, dict) else None
    if found != FORMAT:
        raise InputError(f"{path} has format {found!r}; this version reads format {FORMAT}; run the benchmark again")
    if missing := [key for key in ("title", "methods", "datasets", "metrics", "results") if key not in records]:
        raise InputError(f"{path} has no {', '.join(missing)}; run the benchmark again")
    return records


def write(records: str | Path, folder: str | Path, quality: int | None = None) -> Path:
    """Write ``index.html`` and its pictures to ``folder``; returns the path of the page.

    ``records`` is the records.json of a benchmark, beside which its pictures lie: they are copied as they are, or
    stored as WebP of ``quality``, 1 to 100, for a small page. What an earlier page left in ``folder`` is replaced.
    Raises InputError if the records cannot be read, a picture is missing, unreadable or cannot be written, or
    ``quality`` is out of range.
    """
    if quality is not None and not 1 <= quality <= 100:
        raise InputError(f"quality is {quality}; it must be from 1 to 100, or left out for exact pictures")
    page = Path(folder) / "index.html"
    write_whole(page, render(gather(read(records), Path(records).parent, page.parent, quality)))
    return page


def render(records: dict[str, Any]) -> str:
    """The text of the page; ``records`` as from :func:`gather`, with paths relative to the page."""
    style = (PARTS / "page.css").read_text(encoding="utf-8")
    scripts = [(PARTS / name).read_text(encoding="utf-8") for name in SCRIPTS]
    script = '"use strict";\n(() => {\n' + "\n".join(scripts) + "\n})();\n"
    page = Template((PARTS / "page.html").read_text(encoding="utf-8"))
    title = html.escape(str(records["title"] or records.get("name") or "Benchmark"))
    parts = {"title": title, "style": style, "records": _json_in_html(records), "script": script}
    return page.substitute(parts, style_hash=_hash(style), script_hash=_hash(script))


def _json_in_html(value: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _hash(text: str) -> str:
    """What the page's policy knows an allowed text by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
