"""What a training run of the bridge leaves for TensorBoard."""

import math
import re

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from basicsr_ext import cli
from tests.support.toolkit import OPTIONS, small

NFES = (1, 3)


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    """A run of twelve iterations, validated at 6 and 12, with the curve at 12; no gradient is clipped."""
    folder = tmp_path_factory.mktemp("run")
    options = [*small("i2sb_sr4x_plain", steps=12, every=6), "logger:print_freq=3", "train:grad_clip=~"]
    options += [f"val:nfe_curve={list(NFES)}", "val:nfe_curve_freq=12", "val:curve_images=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main(["train", "-opt", str(OPTIONS / "i2sb_sr4x_plain.yml"), "--force_yml", *options]) == 0
    found = EventAccumulator(str(folder / "tb_logger" / "i2sb_sr4x_plain"), {"images": 0, "scalars": 0})
    return found.Reload()


def steps(events, tag):
    return [event.step for event in events.Scalars(tag)]


def test_losses_rate_gradient_and_speed_are_shown_at_each_line_of_the_log(events):
    for tag in (
        "losses/l_bridge",
        "lr",
        "grad_norm",
        "speed/images_per_second",
        "speed/data_share",
    ):
        assert steps(events, tag) == [3, 6, 9, 12]
        assert all(event.value > 0 and math.isfinite(event.value) for event in events.Scalars(tag))
    assert all(event.value < 1 for event in events.Scalars("speed/data_share"))


def test_the_loss_by_time_step_agrees_with_the_loss(events):
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("loss_by_time/")]
    assert 4 < len(tags) <= 10 and set(tags) <= {f"loss_by_time/{k / 10:.1f}-{(k + 1) / 10:.1f}" for k in range(10)}
    by_step = {}
    for tag in tags:
        for event in events.Scalars(tag):
            by_step.setdefault(event.step, []).append(event.value)
    for event in events.Scalars("losses/l_bridge"):
        assert min(by_step[event.step]) <= event.value <= max(by_step[event.step])


def test_metrics_and_the_curve_are_shown_for_each_data_set(events):
    assert steps(events, "metrics/photographs_val/psnr_y") == [6, 12]
    values = [events.Scalars(f"curve/photographs_val/psnr_y/nfe_{nfe}") for nfe in NFES]
    assert [[event.step for event in found] for found in values] == [[12], [12]], "at the chosen iterations alone"
    assert values[0][0].value != values[1][0].value and 10 < values[0][0].value < 40


def test_images_are_shown_side_by_side(events):
    images = {tag: events.Images(tag) for tag in events.Tags()["images"]}
    for k in range(3):
        found = images[f"comparison/photographs_val/{k}"]
        assert [(one.step, one.width, one.height) for one in found] == [(step, 3 * 256, 256) for step in (6, 12)]
    assert "walk/photographs_val" in images


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("val:nfe_curve=[0]", r"nfe_curve is \[0\]; it must list whole numbers from 1"),
        ("val:nfe_curve=[2000]", "val.nfe_curve: val.sampler.nfe"),
        ("val:nfe_curve_freq=0", "nfe_curve_freq is 0"),
        ("val:curve_images=0", "curve_images is 0; it must be a whole number from 1"),
    ],
)
def test_a_curve_that_cannot_be_is_refused(capsys, tmp_path, monkeypatch, option, message):
    monkeypatch.chdir(tmp_path)
    code = cli.main(["check", "-opt", str(OPTIONS / "i2sb_sr4x_plain.yml"), "--force_yml", option])
    assert code == 2
    assert re.search(message, capsys.readouterr().err)
