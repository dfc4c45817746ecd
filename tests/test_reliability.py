"""Small versions of the evidence in benchmarks/reliability: kills, damage and disks that are full."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def record(tmp_path, name, *words):
    """Run a script of the evidence; what it found."""
    command = [sys.executable, "-m", f"benchmarks.reliability.{name}", "--out", str(tmp_path / "out.json"), *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((tmp_path / "out.json").read_text())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are started by fork")
def test_killed_runs_lose_nothing_and_end_as_the_unbroken_one(tmp_path):
    found = record(tmp_path, "kills", "--kills", "16")
    assert found["kills"] == 16 and found["lost checkpoints"] == found["manual steps"] == 0
    assert found["runs"] == found["runs that ended bit-equal to the unbroken one"] >= 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are started by fork")
def test_every_damage_to_a_save_is_found(tmp_path):
    found = record(tmp_path, "damage", "--flips", "100", "--step", "400")
    for kind in ("cuts", "bit flips", "wiped ranges"):
        assert set(found[kind]) == {"detected, earlier state taken"}
    assert found["cuts"]["detected, earlier state taken"] >= 90
    assert sum(found["bit flips in a lone network"].values()) == 100
    assert set(found["bit flips in a lone network"]) <= {"refused", "byte without meaning, weights as saved"}


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
