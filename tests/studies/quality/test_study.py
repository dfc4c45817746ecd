"""The runner of a study: what is trained when, and how it goes on."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from studies.quality.study import study
from studies.quality.study.study import STOPPED, Stopped, main

METHODS = {"a": {"network": "i2sb"}, "b": {"network": "late", "flags": {"nfe": [1, 2, 5]}}}
FACTS = ("name", "group", "nfe", "sampler", "parameters", "flops", "seconds_per_image", "status", "reason")
CHANGES = {
    "networks": {"i2sb": {"model_type": "I2SBModel"}, "late": {"like": "i2sb", "after": "i2sb"}},
    "comparisons": {
        "one": {"tasks": ["denoise"], "data": ["crops"], "methods": METHODS},
        "two": {"tasks": ["denoise"], "data": ["crops"], "methods": {"a": {"network": "i2sb"}}, "longer": 2},
    },
}


class Basicsr:
    """Stands in for the processes: notes what was asked for, in its order."""

    def __init__(self, work):
        self.work, self.calls, self.failing, self._lock = work, [], {}, threading.Lock()

    def __call__(self, runner, command, name, options, *flags):
        with self._lock:
            self.calls.append((command, name))
            self.options = getattr(self, "options", {}) | {name: options}
        if name in self.failing:
            raise self.failing[name]
        if command == "benchmark":
            folder = self.work / "results" / name
            folder.mkdir(parents=True, exist_ok=True)
            names = [n for m, b in options["methods"].items() for n in _expanded(m, b["flags"].get("nfe"))]
            methods = [dict.fromkeys(FACTS) | {"name": name} for name in names]
            shown = [block["name"] for block in options["datasets"].values()]
            results = [{"method": names[0], "dataset": name, "summary": {}, "images": [{}]} for name in shown]
            records = {"environment": {}, "protocol": {}, "metrics": [], "methods": methods, "results": results}
            (folder / "records.json").write_text(json.dumps(records))
        iterations = options.get("train", {}).get("total_iter", 0)
        return 5 + iterations * (2.0 if "late" in name else 0.5)  # CPU seconds, those of the start included


def _expanded(name, nfe):
    return [f"{name}_nfe{n}" for n in nfe] if isinstance(nfe, list) else [name]


@pytest.fixture
def run(tmp_path, monkeypatch, sample_photographs):
    """Run a small study with words of the command line; ``run.basicsr`` has what it asked for."""
    plan = yaml.safe_load((Path(study.__file__).parents[1] / "study.yml").read_text())
    (tmp_path / "study.yml").write_text(yaml.safe_dump({**plan, **CHANGES}))
    (tmp_path / "work/data").mkdir(parents=True)
    (tmp_path / "work/data/photographs").symlink_to(sample_photographs)
    basicsr = Basicsr(tmp_path / "work")
    monkeypatch.setattr(study.Runner, "call", lambda *words: basicsr(*words))

    def start(*words):
        basicsr.calls.clear()
        places = ["--study", tmp_path / "study.yml", "--work", tmp_path / "work", "--results", tmp_path / "results"]
        monkeypatch.setattr(sys, "argv", ["study", *map(str, places), *words])
        return main()

    start.basicsr, start.folder = basicsr, tmp_path
    return start


def test_each_network_is_trained_once_and_compared_after_that(run):
    assert run("--iterations", "7") == 0
    calls = run.basicsr.calls
    assert sorted(calls) == [
        ("benchmark", "one-denoise-0"), ("benchmark", "two-denoise-0"),
        ("train", "i2sb-denoise-0"), ("train", "i2sb-denoise-0-x2"), ("train", "late-denoise-0"),
    ]  # fmt: skip
    order = [name for _, name in calls]
    assert order.index("i2sb-denoise-0") < order.index("late-denoise-0") < order.index("one-denoise-0")
    assert order.index("i2sb-denoise-0-x2") < order.index("two-denoise-0")
    options = run.basicsr.options
    assert options["i2sb-denoise-0"]["train"]["total_iter"] == 7
    assert options["i2sb-denoise-0-x2"]["train"]["total_iter"] == 14
    assert options["late-denoise-0"]["path"]["pretrain_network_g"].endswith("i2sb-denoise-0/models/net_g_latest.pth")
    assert json.loads((run.folder / "results/two-denoise-0.json").read_text())["iterations"] == 14


def test_what_is_done_stays_and_a_longer_study_goes_on(run, capsys):
    run("--iterations", "7")
    assert run("--iterations", "7") == 0 and run.basicsr.calls == []
    assert "2 units, 2 done already" in capsys.readouterr().out
    assert run("--iterations", "9", "--only", "two-*") == 0
    assert run.basicsr.calls == [("train", "i2sb-denoise-0-x2"), ("benchmark", "two-denoise-0")]


def test_a_comparison_that_lacks_a_data_set_is_made_again(run):
    run("--iterations", "7")
    path = run.folder / "results/one-denoise-0.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"results": []}))
    assert run("--iterations", "7") == 0 and run.basicsr.calls == [("benchmark", "one-denoise-0")]


def test_a_comparison_that_has_one_more_method_is_made_again(run):
    run("--iterations", "7")
    path = run.folder / "study.yml"
    plan = yaml.safe_load(path.read_text())
    plan["comparisons"]["one"]["methods"]["b"]["flags"]["nfe"].append(10)
    path.write_text(yaml.safe_dump(plan))
    assert run("--iterations", "7") == 0 and run.basicsr.calls == [("benchmark", "one-denoise-0")]


def test_a_unit_that_fails_or_is_stopped_leaves_the_others(run, capsys):
    error = subprocess.CalledProcessError(1, "basicsr", output="late.log")
    run.basicsr.failing = {"late-denoise-0": error, "two-denoise-0": Stopped()}
    assert run("--iterations", "7") == 1
    said = capsys.readouterr().out
    assert "one-denoise-0: failed, see late.log" in said and "two-denoise-0: stopped; the same command goes on" in said
    assert not list((run.folder / "results").glob("*.json"))
    run.basicsr.failing = {"two-denoise-0": Stopped()}
    assert run("--iterations", "7") == STOPPED
    assert sorted(run.basicsr.calls) == [
        ("benchmark", "one-denoise-0"), ("benchmark", "two-denoise-0"), ("train", "late-denoise-0")
    ]  # fmt: skip
    run.basicsr.failing = {}
    assert run("--iterations", "7") == 0 and run.basicsr.calls == [("benchmark", "two-denoise-0")]


def test_a_quick_study_walks_few_steps(run):
    assert run("--quick") == 0
    assert run.basicsr.options["one-denoise-0"]["methods"]["b"]["flags"] == {"nfe": [1, 2]}
    assert run.basicsr.options["i2sb-denoise-0"]["train"]["total_iter"] == study.QUICK["iterations"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "two-*", "thre-*"], "--only 'thre-*' matches none of: one-denoise-0, two-denoise-0"),
        (["--workers", "0"], "--workers is 0; it must be above 0"),
        (["--minutes", "-1"], "--minutes is -1.0; it must be above 0"),
        (["--iterations", "0"], "--iterations is 0; it must be above 0"),
        (["--data", "nowhere"], "nowhere/BSDS500/train is missing"),
    ],
)
def test_words_that_mean_nothing_are_refused(run, capsys, words, said):
    assert run(*words) == 2 and run.basicsr.calls == []
    assert said in capsys.readouterr().err


def test_a_misspelt_option_of_a_network_is_found_before_anything_is_trained(run, capsys):
    path = run.folder / "study.yml"
    plan = yaml.safe_load(path.read_text())
    plan["networks"]["late"]["bridge"] = {"beta_mxa": 1}
    path.write_text(yaml.safe_dump(plan))
    assert run("--iterations", "7") == 2 and run.basicsr.calls == []
    said = capsys.readouterr().err
    assert "networks.late for denoise: bridge.beta_mxa is not an option; did you mean beta_max" in said


def test_a_run_that_the_time_cuts_short_is_told_to_save(tmp_path, monkeypatch):
    script = tmp_path / "basicsr"
    script.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, signal, sys, time\n"
        "def save(*_):\n    pathlib.Path('saved').write_text('yes')\n    sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, save)\npathlib.Path('begun').touch()\ntime.sleep(60)\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(study.sys, "executable", str(script))
    runner = SimpleNamespace(end=time.monotonic() + 2, work=tmp_path, threads=1)
    with pytest.raises(Stopped) as stopped:
        study.Runner.call(runner, "train", "one", {})
    assert 0 < stopped.value.seconds < 10
    assert (tmp_path / "saved").read_text() == "yes"
    (tmp_path / "begun").unlink()
    with pytest.raises(Stopped):
        study.Runner.call(runner, "train", "two", {})
    assert not (tmp_path / "begun").exists(), "after the end nothing begins"


def test_equal_seconds_are_as_many_iterations_as_each_network_makes_in_them(run):
    path = run.folder / "study.yml"
    plan = yaml.safe_load(path.read_text())
    plan["comparisons"] = {"one": {**plan["comparisons"]["one"], "seconds": 100}}
    plan["training"]["train"]["scheduler"] = {
        "type": "CosineAnnealingRestartLR",
        "periods": [1],
        "restart_weights": [1],
    }
    path.write_text(yaml.safe_dump(plan))
    assert run() == 0
    trained = {name: run.basicsr.options[f"{name}-denoise-0-100s"]["train"] for name in ("i2sb", "late")}
    assert {name: train["total_iter"] for name, train in trained.items()} == {"i2sb": 200, "late": 50}
    assert trained["i2sb"]["scheduler"]["periods"] == [200]
    paces = run.folder / "results/paces.json"
    assert json.loads(paces.read_text()) == {"i2sb-denoise": 0.5, "late-denoise": 2.0}
    outcome = json.loads((run.folder / "results/one-denoise-0.json").read_text())
    assert outcome["seconds"] == 100 and outcome["trained"]["late"]["cpu seconds"] == 105
    assert run() == 0 and run.basicsr.calls == []


def test_seconds_that_are_none_are_refused(run, capsys):
    path = run.folder / "study.yml"
    plan = yaml.safe_load(path.read_text())
    plan["comparisons"]["one"]["seconds"] = 0
    path.write_text(yaml.safe_dump(plan))
    assert run() == 2
    said = capsys.readouterr().err
    assert all(word in said for word in ("comparisons.one.seconds", "0", "above 0"))


def test_paces_are_measured_alone_and_kept(run, capsys):
    path = run.folder / "study.yml"
    plan = yaml.safe_load(path.read_text())
    plan["comparisons"]["one"]["seconds"] = 100
    path.write_text(yaml.safe_dump(plan))
    assert run("--paces") == 0
    assert {name.rsplit("-", 1)[0] for _, name in run.basicsr.calls} == {"pace-i2sb-denoise", "pace-late-denoise"}
    assert "late-denoise: 2.0000 CPU s an iteration" in capsys.readouterr().out
    paces = run.folder / "results/paces.json"
    paces.write_text(json.dumps({"i2sb-denoise": 5.0, "late-denoise": 2.0}))  # as a slower machine had it
    assert run("--only", "one-*") == 0
    assert run.basicsr.options["i2sb-denoise-0-100s"]["train"]["total_iter"] == 20
