"""Small versions of the evidence in studies/reliability: kills, damage, full disks, long runs, BasicSR's tests."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from studies.reliability.runs import basicsr_tests, soak

ROOT = Path(__file__).parents[3]


def record(tmp_path, name, *words):
    """Run a script of the evidence; what it found."""
    command = [sys.executable, "-m", f"studies.reliability.runs.{name}", "--out", str(tmp_path / "out.json"), *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((tmp_path / "out.json").read_text())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are started by fork")
@pytest.mark.slow
def test_killed_runs_lose_nothing_and_end_as_the_unbroken_one(tmp_path):
    found = record(tmp_path, "kills", "--kills", "16")
    assert found["kills"] == 16 and found["lost checkpoints"] == found["manual steps"] == 0
    assert found["runs"] == found["runs that ended bit-equal to the unbroken one"] >= 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are started by fork")
@pytest.mark.slow
def test_every_damage_to_a_save_is_found(tmp_path):
    found = record(tmp_path, "damage", "--flips", "100", "--step", "400")
    for kind in ("cuts", "bit flips", "wiped ranges"):
        assert set(found[kind]) == {"detected, earlier state taken"}
    assert found["cuts"]["detected, earlier state taken"] >= 90
    assert sum(found["bit flips in a lone network"].values()) == 100
    assert set(found["bit flips in a lone network"]) <= {"refused", "byte without meaning, weights as saved"}


@pytest.mark.slow
def test_no_earlier_save_is_lost_to_a_disk_that_takes_no_more(tmp_path):
    for obstacle in record(tmp_path, "disk_full", "--step", "8192").values():
        if not isinstance(obstacle, dict) or "saves tried" not in obstacle:
            continue
        assert obstacle["earlier saves lost"] == obstacle["latest lost"] == 0
        assert (
            obstacle["saves that failed, with file and cause"] + obstacle["saves that went well"]
            == (obstacle["saves tried"])
        )
        assert obstacle["saves that failed, with file and cause"] >= 1


@pytest.mark.slow
def test_resumed_runs_give_back_memory_handles_and_workers(tmp_path):
    rounds = record(tmp_path, "soak", "--cycles", "4")["rounds"]
    assert len(rounds) == 4
    assert len({found["handles"] for found in rounds}) == 1
    assert all(found["children"] == found["zombies"] == 0 for found in rounds)
    assert len({found["threads"] for found in rounds}) == 1
    growth = rounds[-1]["own_kib"] - rounds[0]["own_kib"]
    assert growth < 12 * 1024  # the weights, averages and moments of one run that stays are 3 MiB, of a round 12


@pytest.mark.slow
def test_what_passes_leave_behind_is_counted(tmp_path):
    found = record(tmp_path, "heap", "--passes", "4")
    assert all(found[workers]["passes"] == 4 for workers in ("0 workers", "2 workers"))
    assert all(found[workers]["python_blocks"]["mean"] > 1e5 for workers in ("0 workers", "2 workers"))


def test_a_leak_shows_in_the_trend():
    seconds = np.arange(0, 1500, 1.0)
    noise = np.random.default_rng(0).normal(0, 5, seconds.size)
    flat, leaking = soak.trend(seconds, 400 + noise), soak.trend(seconds, 400 + noise + seconds / 3600 * 20)
    assert abs(flat["per_hour"]) < 3 * flat["standard_error"]
    assert leaking["per_hour"] > 5 * leaking["standard_error"]
    assert leaking["per_hour"] == pytest.approx(20, abs=3 * leaking["standard_error"])


@pytest.mark.slow
def test_a_test_of_basicsr_runs_with_the_repairs_and_on_the_cpu(tmp_path):
    folder = tmp_path / "tests" / "test_archs"
    folder.mkdir(parents=True)
    (folder / "test_one.py").write_text(
        "from basicsr.archs.srresnet_arch import MSRResNet\n"
        "def test_network():\n    assert MSRResNet(num_feat=4, num_block=1).cuda().upscale == 4\n"
        "def test_wrong():\n    assert 1 == 2\n"
    )
    found = basicsr_tests.run_tests(tmp_path, "repairs cpu")
    assert found == {
        "test_archs.test_one.test_network": "passed",
        "test_archs.test_one.test_wrong": "assert 1 == 2",
    }
    assert basicsr_tests.reason("RuntimeError: Found no NVIDIA driver") == "needs a CUDA device"


def test_all_tests_of_basicsr_pass_with_the_repairs_but_for_the_device():
    counts = json.loads((ROOT / "studies/reliability/results/basicsr_tests.json").read_text())["counts"]
    assert set(counts["with repairs"]) <= {"passed", "needs a CUDA device"}
    assert counts["with repairs, on the CPU"] == {"passed": 19}


def test_the_page_shows_the_recorded_figures():
    page = (ROOT / "docs" / "reliability.md").read_text()
    results = {path.stem: json.loads(path.read_text()) for path in (ROOT / "studies/reliability/results").glob("*")}
    for name in ("endless_sr", "endless_i2sb", "resumed"):
        found = results["soak"][name]
        memory, handles = found["own_memory_mib"], found["handles"]
        counts = [f"{found.get(key, 0):,}" for key in ("iterations", "validations", "saves", "resumes")]
        slopes = [f"{trend['per_hour']:.2f} ± {trend['standard_error']:.2f}" for trend in (memory, handles)]
        row = [*counts, f"{memory['mean']:.1f}", slopes[0], f"{handles['least']} to {handles['most']}", slopes[1]]
        assert f"| {' | '.join(row)} |" in page
    for workers in ("0 workers", "2 workers"):
        kept = [results["heap"][workers][key] for key in ("python_blocks", "malloc_bytes")]
        slopes = [f"{kept[0]['per_pass']:.2f} ± {kept[0]['standard_error']:.2f}"]
        slopes += [f"{kept[1]['per_pass']:.1f} ± {kept[1]['standard_error']:.1f}"]
        assert f"| {' | '.join(slopes)} |" in page
    images = results["fuzz_images"]
    assert f"{images['outcomes']['accepted']:,} read, {images['outcomes']['refused']:,} refused by name" in page
    assert f"at most {images['peak_rss_mib']} MiB" in page
    options = results["fuzz_options"]
    assert f"{options['outcomes']['accepted']:,} accepted, {options['outcomes']['refused']:,} refused" in page
    assert set(options["outcomes"]) == {"accepted", "refused"} and f"at most {options['peak_rss_mib']:,} MiB" in page
    kills = results["kills"]
    assert f"{kills['runs that ended bit-equal to the unbroken one']} of {kills['runs']} runs bit-equal" in page
    assert f"{kills['lost checkpoints']} checkpoints lost, {kills['manual steps']} manual steps" in page
    seen = results["zoo"]
    assert f"| {seen['files']} image files of every kind, by {seen['readers']} readers |" in page
    for name, row in seen["table"].items():
        counts = [row["read"], row["refused"], len(row["wrong"]), len(row["disagrees"])]
        (line,) = (line for line in page.splitlines() if line.startswith((f"| {name} |", f"| `{name}` |")))
        assert line.endswith(f"| {' | '.join(map(str, counts))} |")
    assert f"{len(results['pickles']['places'])} of {len(results['pickles']['places'])} refused" in page
