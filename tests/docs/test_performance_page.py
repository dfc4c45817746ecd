"""The tables of docs/performance.md are those of the results, and the scripts behind them run."""

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from studies.speed import quick, tables
from studies.speed.training import gpu, scaling

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "studies/speed/results"
PAGE = (ROOT / "docs" / "performance.md").read_text()


def test_tables_between_markers_are_those_of_the_results():
    assert PAGE.count("<!-- table: ") >= 3
    for page in tables.PAGES:
        text = page.read_text()
        assert tables.written(text) == text, f"{page.name}: run python -m studies.speed.tables"


@pytest.mark.parametrize("name", ["degradations", "loading", "validation"])
def test_tables_without_markers_are_those_of_the_results(name):
    module, result = importlib.import_module(tables.MODULES[name]), RESULTS / f"{name}.json"
    head = module.table([]).splitlines()[0]
    if head not in PAGE or not result.is_file():
        pytest.skip(f"the page has no table of {name} yet")
    assert module.table(json.loads(result.read_text())["rows"]) in PAGE


def test_a_changed_result_changes_the_page(tmp_path, monkeypatch):
    results = tmp_path / "results"
    results.mkdir()
    found = json.loads((RESULTS / "loop.json").read_text())
    found["rows"][0]["outside_share_overall"] = 0.5
    (results / "loop.json").write_text(json.dumps(found))
    monkeypatch.setattr(tables, "RESULTS", results)
    page = tables.written("<!-- table: loop -->\nold\n<!-- end -->\n")
    assert "| 50.0 % |" in page and "old" not in page


@pytest.mark.slow
def test_one_exchange_of_the_gradients_an_iteration_whatever_the_number_of_parts():
    found = scaling.counted_bytes(ranks=2, parts=3)
    assert found["counted_bytes"] == found["formula_bytes"] and found["same_on_all_ranks"]
    if found["sent_bytes"] is not None:  # other traffic of the machine may come on top
        assert found["sent_bytes"] > 0.98 * scaling.ring_bytes(found["counted_bytes"], 2)
    recorded = json.loads((RESULTS / "scaling.json").read_text())["counted"]
    for row in recorded:
        assert row["sent_bytes"] == pytest.approx(scaling.ring_bytes(row["counted_bytes"], row["ranks"]), rel=0.01)
    assert {(c["ranks"], c["counted_bytes"] == found["counted_bytes"]) for c in recorded} == {
        (1, True),
        (2, True),
        (4, True),
    }


def test_an_iteration_on_paper():
    assert scaling.ring_bytes(100, 1) == 0 and scaling.ring_bytes(100, 2) == 100 and scaling.ring_bytes(100, 4) == 150
    found = scaling.iteration(parameters=10**9, operations=9 * 10**14, gpus=16, images=16, between=50)
    assert found["compute_s"] == pytest.approx(2.0)
    assert found["exchange_s"] == pytest.approx(2 * 15 / 16 * 4e9 / 50e9)
    assert found["iteration_s"] == pytest.approx(2.0), "the exchange fits under the backward pass"
    slow = scaling.iteration(parameters=10**9, operations=9 * 10**14, gpus=16, images=16, between=5)
    assert slow["iteration_s"] == pytest.approx(2.0 + 1.5 - 4 / 3)
    assert slow["breaks_first"].startswith("gradient exchange")


@pytest.mark.slow
def test_the_kit_for_a_gpu_runs_at_small_sizes_without_basicsr(tmp_path):
    start = (
        "import sys, runpy; sys.modules['basicsr'] = None; "
        "runpy.run_module('studies.speed.training.gpu', run_name='__main__')"
    )
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-c", start, "--quick", "--out", str(out)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment)
    assert run.returncode == 0, run.stderr[-2000:]
    rows = json.loads(out.read_text())["rows"]
    assert [row["what"] for row in rows] == [
        "ceiling",
        "sampling",
        "sampling",
        "sampling",
        "training",
        "training",
        "training",
        "training",
        "training",
        "floor",
        "profile",
    ]
    floor = next(row for row in rows if row["what"] == "floor")
    assert floor["training_tflop"] == pytest.approx(3 * floor["forward_tflop"], rel=0.05)
    assert min(floor["times_the_floor"].values()) > 0
    assert len(gpu.table(rows).splitlines()) == 2 + 3 + 5


@pytest.mark.slow
def test_a_way_that_fails_on_a_gpu_leaves_the_others_alone():
    bench = gpu.Bench(argparse.Namespace(guided=None, quick=True, repeats=1, batch=1), basicsr=False)

    def no_compiler(_):
        raise RuntimeError("no compiler here")

    ways = {"first": no_compiler, "second": lambda net: lambda: None}
    first, second = gpu.each_way(bench, "sampling", "tiny", 2, ways)
    assert (first["what"], first["tried"], first["way"]) == ("failed", "sampling", "first")
    assert first["error"] == "no compiler here" and second["way"] == "second" and second["ms_per_image"] >= 0


@pytest.mark.slow
def test_the_quick_round_prints_the_ratios_of_every_part_in_under_two_minutes():
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "studies.speed.quick"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment)
    assert run.returncode == 0, run.stderr[-2000:]
    parts = re.split(r"^(\w+) \(\d+ s\)$", run.stdout, flags=re.MULTILINE)[1:]
    assert parts[::2] == list(quick.PARTS)
    ratio = re.compile(r": \d+\.\d\d$|^  outside \d+ %, waiting \d+ %$", re.MULTILINE)
    assert [name for name, said in zip(parts[::2], parts[1::2]) if not ratio.search(said)] == []
