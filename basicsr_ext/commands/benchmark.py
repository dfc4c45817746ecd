"""``basicsr benchmark``: restore, measure and write the records, tables, pictures and the page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from basicsr_ext.common import folder_lock
from basicsr_ext.common.errors import InputError
from basicsr_ext.processes import launch

__all__ = ["run"]

_DESCRIPTION = "Compare methods on data sets by metrics. An interrupted run goes on where it stopped."


def run(argv: list[str]) -> int:
    """Run a benchmark; returns 1 if a method failed, else 0.

    Raises:
        InputError: the option file or what it names is wrong; lists every fault, before anything is restored.

    """
    parser = argparse.ArgumentParser(prog="basicsr benchmark", description=_DESCRIPTION)
    arguments = parser.add_argument
    arguments("-opt", type=str, required=True, help="option file of the benchmark (YAML)")
    arguments("--launcher", choices=["none", "pytorch", "slurm"], default="none", help="job launcher")
    arguments("--local_rank", "--local-rank", type=int, default=0, help="accepted; the environment decides")
    arguments("--force_yml", nargs="+", action="extend", metavar="a:b=v", help="set options, as manual_seed=1")
    args = parser.parse_args(argv)
    try:
        return _benchmark(args)
    finally:
        folder_lock.release_all()


def _benchmark(args: argparse.Namespace) -> int:
    from basicsr_ext import repairs

    repairs.apply()
    here = launch.find_launch(args.launcher)
    from basicsr_ext.benchmark.run import settings

    bench = settings.read(args.opt, here, args.force_yml)
    if here.is_main:
        for note in [here.note, *bench.notes, folder_lock.hold(bench.folder)]:
            _say(f"note: {note}" if note else None)
    _join(here, bench)
    records = _records(bench)
    if not here.is_main:
        return 0
    failed = [method for method in records["methods"] if method["status"] == "failed"]
    _publish(bench, records)
    for method in failed:
        _say(f"failed: {method['name']}: {method['reason']}")
    return 1 if failed else 0


def _join(here: launch.Launch, bench: Any) -> None:
    if here.launcher == "none":
        return
    from basicsr.utils.dist_util import init_dist

    init_dist(here.launcher, **({"backend": "gloo"} if bench.options.num_gpu == 0 else {}))


def _records(bench: Any) -> dict[str, Any]:
    from basicsr_ext.benchmark.report.records import compose
    from basicsr_ext.benchmark.run.inputs import folder_faults, prepare
    from basicsr_ext.benchmark.run.measure import measure
    from basicsr_ext.benchmark.run.store import Store
    from basicsr_ext.benchmark.run.work import restore_all
    from basicsr_ext.processes import collectives

    store = Store(bench.folder)
    images = prepare(bench.datasets, store)
    if faults := folder_faults(bench.methods, images):
        raise InputError("\n  - ".join(["folders of restored images", *faults]))
    outcome = restore_all(bench, store, images)
    collectives.barrier()
    found = {}
    for method in bench.methods:
        for dataset in bench.datasets if method.name not in outcome.reasons else ():
            chosen = [image for image in images if image.dataset == dataset]
            found[method.name, dataset] = measure(bench, store, method, chosen, outcome.facts.get(method.name))
    records = compose(bench, store, images, outcome, found)
    refused = {(r["method"], name): reason for r in records["results"] for name, reason in r.get("refused", {}).items()}
    for (method, name), reason in refused.items() if collectives.is_main() else ():
        _say(f"note: no {name} of {method}: {reason}")
    return records


def _publish(bench: Any, records: dict[str, Any]) -> None:
    """Write records.json, then everything that is made from it."""
    import json

    from basicsr_ext.benchmark.report import tables
    from basicsr_ext.common.files import atomic_write_text

    path = Path(bench.folder) / "records.json"
    atomic_write_text(json.dumps(records, indent=1, allow_nan=False, ensure_ascii=False) + "\n", path)
    for name, text in (("table.md", tables.markdown), ("table.csv", tables.csv_text), ("table.tex", tables.latex)):
        atomic_write_text(text(records), path.with_name(name))
    print(tables.markdown(records))
    _say(f"records: {path}")
    from basicsr_ext.benchmark.report import plots

    for made in plots.draw(path, records):
        _say(made)
    from basicsr_ext.benchmark import page

    _say(f"page: {page.write(path, path.with_name('report'))}")


def _say(text: str | None) -> None:
    if text:
        print(text, file=sys.stderr, flush=True)
