"""Statistics, tables and drawings of a benchmark, on records made by hand."""

import csv
import io

import cv2
import numpy as np
import pytest
from scipy import stats

from basicsr_ext.benchmark.report import sheets, tables
from basicsr_ext.benchmark.report.statistics import bootstrap_mean, paired
from basicsr_ext.benchmark.run import measure
from basicsr_ext.benchmark.run.store import Store


def test_the_bootstrap_is_the_percentile_one_and_seeded():
    values = np.random.default_rng(0).normal(30, 2, 40)
    ours = bootstrap_mean(values, 4000, seed=0)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", random_state=1)
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.05)
    assert ours == bootstrap_mean(values, 4000, seed=0) != bootstrap_mean(values, 4000, seed=1)
    assert bootstrap_mean(np.array([3.0]), 100, 0) == (3.0, None, None)


def test_the_interval_covers_the_mean_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    intervals = [bootstrap_mean(generator.normal(0, 1, 30), 300, seed) for seed in range(200)]
    assert 0.88 < np.mean([found.low < 0 < found.high for found in intervals]) < 0.98


def test_pairs_show_what_means_hide():
    images = np.linspace(20, 35, 12)  # the images differ far more than the methods do
    better = images + 0.1 + 0.01 * np.arange(12)
    found = paired(better, images, 500, 0)
    assert found.difference == pytest.approx(0.155) and 0.1 < found.low < found.high < 0.22
    assert found.p == pytest.approx(2 / 2**12)
    assert paired(images[:3] + np.arange(1, 4), images[:3], 500, 0).p == 0.25, "three images prove nothing"
    assert paired(images, images, 500, 0) == (0, 0, 0, 1.0)
    assert paired(images[:1], images[:1], 500, 0).p is None


def made(labels=("a", "b", "c"), psnr=(30.004, 29.996, 28.0), niqe=(5.0, 4.0, None)):
    about = {"unit": "", "set_level": False, "provenance": {}}
    costs = {"nfe": 1, "parameters": 1_500_000, "flops": 2.5e9, "seconds_per_image": 0.5, "group": None}
    methods = [
        {"name": f"m{k}", "label": label, "status": "done", "reason": None, **costs} for k, label in enumerate(labels)
    ]
    methods[1]["group"] = methods[2]["group"] = "curve"
    results = []
    for k, _ in enumerate(labels):
        images = [{"image": "x", "file": f"m{k}.png", "seconds": 0.5, "psnr": psnr[k], "niqe": niqe[k]}]
        summary = {
            "psnr": {"value": psnr[k], "low": 1, "high": 2},
            "niqe": {"value": niqe[k], "low": None, "high": None},
        }
        results.append({"method": f"m{k}", "dataset": "s", "summary": summary, "images": images})
    return {
        "methods": methods,
        "datasets": [
            {"name": "s", "images": [{"name": "x", "gt": "gt.png", "lq": "lq.png", "width": 40, "height": 30}]}
        ],
        "metrics": [
            {"name": "psnr", "label": "PSNR", **about, "unit": "dB", "digits": 2, "higher_is_better": True},
            {"name": "niqe", "label": "NIQE", **about, "digits": 3, "higher_is_better": False},
        ],
        "results": results,
    }


def test_the_best_is_bold_and_the_second_underlined_as_they_are_shown():
    lines = tables.markdown(made()).splitlines()
    assert lines[0] == "s, 1 images:"
    assert lines[2] == "| method | parameters | FLOPs | NFE | s/image | PSNR (dB) ↑ | NIQE ↓ |"
    assert lines[4] == "| a | 1.5 M | 2.5 G | 1 | 0.500 | **30.00** | <u>5.000</u> |"
    assert lines[5] == "| b | 1.5 M | 2.5 G | 1 | 0.500 | **30.00** | **4.000** |"
    assert lines[6] == "| c | 1.5 M | 2.5 G | 1 | 0.500 | <u>28.00</u> |  |"


def test_names_stay_text_in_every_table():
    found = made(labels=("a|b <script>", "50 % & $_{x}\\", "c"))
    found["methods"][2] |= {"status": "failed", "reason": "no | memory\nat all"}
    found["results"].pop()
    markdown, latex = tables.markdown(found), tables.latex(found)
    assert "| a\\|b \\<script\\> |" in markdown and "| c (failed: no \\| memory at all) |" in markdown
    assert r"50 \% \& \$\_\{x\}\textbackslash{} &" in latex
    assert latex.count(r" \\") == 4 and r"\begin{tabular}{lrrrrrr}" in latex and r"\midrule" in latex
    assert r"& \textbf{30.00} & \underline{5.000} \\" in latex and r"PSNR (dB) $\uparrow$" in latex


def test_the_csv_has_a_line_for_each_figure_and_image():
    rows = list(csv.DictReader(io.StringIO(tables.csv_text(made()))))
    assert len(rows) == 3 * 2 * 2
    assert rows[0] == {
        "method": "m0", "dataset": "s", "metric": "psnr", "image": "", "value": "30.004", "low": "1", "high": "2"
    }  # fmt: skip
    assert rows[1]["image"] == "x" and rows[1]["value"] == "30.004" and rows[-1]["value"] == ""


def test_the_sheet_shows_every_method_and_the_original(tmp_path):
    for k, name in enumerate(("m0", "m1", "m2", "gt")):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((30, 40, 3), 60 * k, np.uint8))
    assert sheets.sheet(tmp_path, made(), "s", tmp_path / "sheet.png")
    page = cv2.imread(str(tmp_path / "sheet.png"))
    assert page.shape == (24 + 60, 4 * 66 - 6, 3), "crops are cut to the smallest image"
    assert [int(page[50, 66 * k + 30, 0]) for k in range(4)] == [0, 60, 120, 180]
    assert not sheets.sheet(tmp_path, made() | {"results": []}, "s", tmp_path / "none.png")


def test_what_sets_are_measured_by_is_read_back_as_it_was_kept(tmp_path):
    store = Store(tmp_path)
    record = {"restored": np.arange(6, dtype=np.float32).reshape(2, 3), "digest": "abc"}
    for kept in (record, record["restored"], 0.25):
        entry = measure.kept_record(kept, "key", store, tmp_path / "measured" / "m" / "d" / "i.fid")
        held = measure.held_record(entry, "key", store)
        assert measure.held_record(entry, "another key", store) is None
        if kept is record:
            assert held["digest"] == "abc" and held["restored"].dtype == np.float32
            held, kept = held["restored"], kept["restored"]
        assert np.array_equal(held, kept)
