"""The study at its smallest: one comparison from training to the page; slowly all of them, with every picture drawn."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from basicsr_ext import cli
from studies.quality import pages
from studies.quality.study import study
from studies.quality.study.plan import read
from tests.support.toolkit import apart

ROOT = Path(__file__).parents[3]
UNITS = {
    "claims-sr4x-0", "claims-jpeg10-0", "claims-deblur-0", "claims-inpaint_center-0", "claims-inpaint_freeform-0",
    "claims-denoise-0", "longer-sr4x-0", "super_resolution-sr4x-0", "ablations-sr4x-0", "samplers-sr4x-0",
    "samplers-inpaint_center-0", "solvers-sr4x-0", "solvers-inpaint_center-0", "one_step-sr4x-0",
    "conditioning-sr4x-0", "conditioning-inpaint_center-0", "trained_ot_ode-jpeg10-0",
    "equal_seconds-sr4x-0", "equal_seconds-inpaint_center-0", "rivals-sr4x-0", "any_network-sr4x-0",
    "options-sr4x-0",
}  # fmt: skip


def forked(runner, command, name, options, *flags):
    """What ``Runner.call`` does, without the seconds in which a fresh interpreter imports everything; counts none."""
    file = runner.work / f"{name}.yml"
    file.write_text(yaml.safe_dump(json.loads(json.dumps(options)), sort_keys=False))
    done = apart(cli.main, [command, "-opt", str(file), *flags], folder=runner.work)
    assert done.returncode == 0, done.stderr
    return 0.0


def test_one_comparison_goes_from_training_to_the_page(tmp_path, monkeypatch, capsys):
    """The one with a single network, with the metrics that need no weights."""
    words = ["--work", str(tmp_path / "work"), "--results", str(tmp_path / "results")]
    monkeypatch.delenv("BASICSR_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(study.Runner, "call", forked)
    monkeypatch.setattr("sys.argv", ["study", "--quick", "--only", "solvers-inpaint_center-0", *words])
    assert study.main() == 0
    outcome = json.loads((tmp_path / "results/solvers-inpaint_center-0.json").read_text())
    assert {metric["name"] for metric in outcome["metrics"]} >= {"psnr", "ssim"}
    assert {method["status"] for method in outcome["methods"]} == {"done"}
    assert all(0 < value["summary"]["ssim"]["value"] <= 1 for value in outcome["results"])
    assert study.main() == 0
    assert capsys.readouterr().out.endswith("1 units, 1 done already\n")
    monkeypatch.setattr("sys.argv", ["pages", "--docs", str(tmp_path / "docs"), *words])
    assert pages.main() == 0
    assert "Missing: " in (tmp_path / "docs/results/longer.md").read_text(), "of the comparisons that were left out"


@pytest.mark.slow
def test_a_quick_study_goes_from_training_to_the_page(tmp_path, random_weights):
    work, results, docs = (tmp_path / name for name in ("work", "results", "docs"))

    def run(module, *words):
        environment = os.environ | {"BASICSR_WEIGHTS": str(random_weights)}
        command = [sys.executable, "-m", f"studies.quality.{module}", "--results", results, *words]
        done = subprocess.run([*map(str, command)], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("study", "--quick", "--work", work)
    assert {path.stem for path in results.iterdir()} == UNITS
    plan, _ = read(ROOT / "studies/quality/study.yml")
    trained = {path.stem.split("-")[0] for path in (work / "trained").iterdir()}
    assert trained == set(plan.networks), "every network is trained"
    for path in results.iterdir():
        outcome = json.loads(path.read_text())
        assert [metric["name"] for metric in outcome["metrics"]] == ["psnr", "ssim", "lpips", "dists", "patch_fid"]
        assert {method["status"] for method in outcome["methods"]} == {"done"}, path.name
        assert all(0 < value["summary"]["ssim"]["value"] <= 1 for value in outcome["results"]), path.name
    assert run("study", "--quick", "--work", work).endswith(f"{len(UNITS)} units, {len(UNITS)} done already\n")

    run("questions.texture", "--work", work)
    run("questions.time_to_quality", "--work", work)
    run("questions.robustness", "--work", work, "--images", docs / "images")
    run("pages", "--work", work, "--docs", docs)
    page = {path.stem: path.read_text() for path in (docs / "results").iterdir()}
    for name in ("super_resolution", "texture", "one_step", "ablations", "time_to_quality", "robustness"):
        assert "Missing: " not in page[name], "of the rest it does one seed"
    unknown = [line for line in page["claims"].splitlines() if "not known yet" in line]
    assert all(line.startswith("| Few steps lose little") for line in unknown), "it walks two steps at most"
    for name in ("results_sr4x.png", "results_inpaint_center.png", "results_robustness.jpg", "results_samplers.png"):
        assert (docs / "images" / name).stat().st_size > 1000, name
