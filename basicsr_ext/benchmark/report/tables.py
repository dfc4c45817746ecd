"""Tables from the records of a benchmark: Markdown, CSV, LaTeX. The best figure is bold, the second underlined."""

import csv
import io
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Records = Mapping[str, Any]
_COSTS = (("parameters", "parameters"), ("flops", "FLOPs"), ("nfe", "NFE"), ("seconds_per_image", "s/image"))
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "↑": r"$\uparrow$", "↓": r"$\downarrow$",
}  # fmt: skip


class _Style(NamedTuple):
    """How a kind of table writes a text, a best and a second figure."""

    text: Callable[[str], str]
    best: str
    second: str


def _escaped_markdown(text: str) -> str:
    return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", " ".join(text.split()))


def _escaped_latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))


_MARKDOWN = _Style(_escaped_markdown, "**{}**", "<u>{}</u>")
_TEX = _Style(_escaped_latex, r"\textbf{{{}}}", r"\underline{{{}}}")


def _places(results: Mapping[str, Any], metric: Mapping[str, Any]) -> dict[str, int]:
    """Place of each method, 1 the best, by the figures as they are shown; equal ones share a place."""
    values = {method: result["summary"][metric["name"]]["value"] for method, result in results.items()}
    shown = {method: round(value, metric["digits"]) for method, value in values.items() if value is not None}
    order = sorted(set(shown.values()), reverse=metric["higher_is_better"])
    return {method: order.index(value) + 1 for method, value in shown.items()}


def _cost(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name not in ("parameters", "flops"):
        return f"{value:.3f}" if name == "seconds_per_image" else str(value)
    sizes = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"))
    size, sign = next((pair for pair in sizes if value >= pair[0]), (1, ""))
    return f"{value / size:.3g}{sign}"


def _rows(records: Records, dataset: str, style: _Style) -> list[list[str]]:
    """Head and body of the table of one data set, ready to be joined."""
    metrics = records["metrics"]
    arrows = {True: "↑", False: "↓"}
    units = [f" ({metric['unit']})" if metric["unit"] else "" for metric in metrics]
    heads = [f"{m['label']}{unit} {arrows[m['higher_is_better']]}" for m, unit in zip(metrics, units)]
    rows = [[style.text(cell) for cell in ("method", *(label for _, label in _COSTS), *heads)]]
    results = {result["method"]: result for result in records["results"] if result["dataset"] == dataset}
    places = {m["name"]: _places(results, m) for m in metrics}
    for method in records["methods"]:
        cells = [style.text(method["label"]), *(style.text(_cost(name, method[name])) for name, _ in _COSTS)]
        if method["status"] == "failed":
            reason = " ".join((method["reason"] or "").split())
            cells[0] += " " + style.text(f"(failed: {reason if len(reason) <= 120 else reason[:117] + '...'})")
        summary = results.get(method["name"], {}).get("summary", {})
        for m in metrics:
            value = summary.get(m["name"], {}).get("value")
            text = "" if value is None else f"{value:.{m['digits']}f}"
            frame = {1: style.best, 2: style.second}.get(places[m["name"]].get(method["name"], 0), "{}")
            cells.append(frame.format(text))
        rows.append(cells)
    return rows


def markdown_lines(head: list[str], rows: list[list[str]], texts: int = 1) -> str:
    """A table whose first ``texts`` columns are aligned to the left, the others to the right."""
    lines = [head, ["---"] * texts + ["---:"] * (len(head) - texts), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def markdown(records: Records) -> str:
    """A table for each data set."""
    parts = []
    for dataset in records["datasets"]:
        head, *body = _rows(records, dataset["name"], _MARKDOWN)
        name, count = _escaped_markdown(dataset["name"]), len(dataset["images"])
        results = [result for result in records["results"] if result["dataset"] == dataset["name"]]
        refused = ((result["method"], *pair) for result in results for pair in result.get("refused", {}).items())
        gaps = [_escaped_markdown(f"{metric} of {method}: {reason}") for method, metric, reason in refused]
        parts.append("\n\n".join([f"{name}, {count} images:", markdown_lines(head, body), *gaps]) + "\n")
    return "\n".join(parts)


def latex(records: Records) -> str:
    """A ``tabular`` for each data set, for the package booktabs."""
    parts = []
    for dataset in records["datasets"]:
        rows = _rows(records, dataset["name"], _TEX)
        head, *body = (" & ".join(row) + r" \\" for row in rows)
        lines = [rf"% {dataset['name']}, {len(dataset['images'])} images; needs \usepackage{{booktabs}}"]
        lines += [rf"\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}", r"\toprule", head, r"\midrule"]
        parts.append("\n".join([*lines, *body, r"\bottomrule", r"\end{tabular}"]) + "\n")
    return "\n".join(parts)


def csv_text(records: Records) -> str:
    """A line for each method, data set and metric: the set's figure with its interval, then those of each image."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["method", "dataset", "metric", "image", "value", "low", "high"])
    for result in records["results"]:
        place = [result["method"], result["dataset"]]
        for name, figure in result["summary"].items():
            writer.writerow([*place, name, "", figure["value"], figure["low"], figure["high"]])
            for image in result["images"] if name in (result["images"] or [{}])[0] else ():
                writer.writerow([*place, name, image["image"], image[name], "", ""])
    return out.getvalue()
