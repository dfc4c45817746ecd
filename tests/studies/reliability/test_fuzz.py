"""Mutated option files and images end as accepted or as one message, never in a traceback from the depths."""

import json
from pathlib import Path

import pytest

from basicsr_ext.common.errors import InputError, NonFiniteLoss
from studies.reliability.inputs import campaign, fuzz_images, fuzz_options
from studies.reliability.inputs.zoo_files import zoo

RESULTS = Path(__file__).parents[3] / "studies/reliability/results"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("seed", [11, pytest.param(12, marks=pytest.mark.slow)])
def test_mutated_option_files(seed, weights_at_hand):
    record = campaign.run_cases(fuzz_options.prepare_process(), fuzz_options.run, 60, seed, lambda case: None)
    assert record["faults"] == {}
    assert sum(record["counts"].values()) == 60
    assert record["counts"]["refused"] > 30
    assert record["counts"]["accepted"] > 0


def test_the_unchanged_option_files_are_accepted(weights_at_hand):
    fuzz_options.prepare_process()
    for number, opt in enumerate(fuzz_options.bases()):
        is_train = int("train" in opt["datasets"])
        case = (number, [("none", is_train, 1, None)], [], [])
        assert campaign.outcome(fuzz_options.run, case) == ("accepted", "")


@pytest.mark.parametrize("seed", [11, pytest.param(12, marks=pytest.mark.slow)])
def test_mutated_images(seed):
    record = campaign.run_cases(fuzz_images.prepare_process(), fuzz_images.run, 150, seed, lambda case: None)
    assert record["faults"] == {}
    assert record["counts"]["refused"] > 30
    assert record["counts"]["accepted"] > 15


def test_every_real_image_is_read_or_refused_by_name():
    fuzz_images.prepare_process()
    names = sorted(fuzz_images.files())
    ends = {name: campaign.outcome(fuzz_images.run, (number, []))[0] for number, name in enumerate(names)}
    assert {name for name in names if ends[name] == "refused"} == {file.name for file in zoo() if file.pixels is None}
    assert set(ends.values()) == {"accepted", "refused"}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (KeyError("x"), "KeyError"),
        (InputError("x is wrong"), "refused"),
        (NonFiniteLoss("stopped"), "refused"),
        (InputError(""), "empty message"),
    ],
)
def test_a_fault_is_told_from_a_refusal(error, kind):
    def run(_):
        raise error

    assert campaign.outcome(run, None)[0] == kind


def test_a_hang_is_a_fault():
    def run(_):
        while True:
            pass

    assert campaign.outcome(run, None, seconds=0.1)[0] == "hang"


@pytest.mark.parametrize(("name", "cases"), [("fuzz_options", 10_000), ("fuzz_images", 2_000)])
def test_the_recorded_campaign_found_no_fault(name, cases):
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"no campaign is recorded yet: python -m studies.reliability.inputs.{name}")
    record = json.loads(path.read_text())
    assert record["cases"] >= cases
    assert set(record["outcomes"]) == {"accepted", "refused"}
    assert record["faults"] == {}
    assert record["peak_rss_mib"] < 2048
    assert all("seed" in chunk for chunk in record["chunks"])
