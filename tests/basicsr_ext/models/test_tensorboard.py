"""What a training run shows besides its figures: the loss by time step, images side by side, curves of settings."""

import pytest
import torch

from basicsr_ext.models import tensorboard
from basicsr_ext.models.loss_by_time import LossByTime

rng = torch.Generator().manual_seed(0)


def test_the_loss_of_a_bin_is_the_mean_of_its_images():
    kept = LossByTime()
    position, values = torch.rand(200, generator=rng), torch.rand(200, generator=rng)
    for part in range(0, 200, 50):
        kept.add(position[part : part + 50], values[part : part + 50])
    found = kept.read()
    assert list(found) == [f"loss_by_time/{k / 10:.1f}-{(k + 1) / 10:.1f}" for k in range(10)]
    for k, mean in enumerate(found.values()):
        inside = (position >= k / 10) & (position < (k + 1) / 10)
        assert mean == pytest.approx(values[inside].mean().item(), rel=1e-5)
    assert kept.read() == {}, "the next line begins anew"


def test_ends_belong_to_the_first_and_last_bin_and_empty_bins_are_left_out():
    kept = LossByTime()
    kept.add(torch.tensor([0.0, 1.0, 1.0]), torch.tensor([3.0, 4.0, 6.0], dtype=torch.bfloat16))
    assert kept.read() == {"loss_by_time/0.0-0.1": 3.0, "loss_by_time/0.9-1.0": 5.0}


def test_the_bins_of_two_processes_are_one(monkeypatch):
    def double(tables):
        return {name: 2 * table.double() for name, table in tables.items()}

    monkeypatch.setattr("basicsr_ext.processes.collectives.all_reduce_sum", double)
    kept = LossByTime()
    kept.add(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 2.0]))
    assert kept.read() == {"loss_by_time/0.5-0.6": 1.5}


def test_a_comparison_holds_input_restoration_and_truth():
    gt = torch.rand(3, 12, 16, generator=rng)
    lq, restored = gt[:, ::4, ::4], gt * 0.5
    shown = tensorboard.comparison(lq, restored, gt)
    assert shown.shape == (3, 12, 48)
    assert torch.equal(shown[:, :4, :4], lq[:, :1, :1].expand(3, 4, 4)), "enlarged without smoothing"
    assert torch.equal(shown[:, :, 16:32], restored) and torch.equal(shown[:, :, 32:], gt)
    assert tensorboard.comparison(lq, restored, None).shape == (3, 12, 32)


def test_a_comparison_shows_the_middle_of_large_and_grey_images():
    gt = torch.rand(1, 300, 270, generator=rng)
    shown = tensorboard.comparison(gt, gt, gt)
    assert shown.shape == (3, 256, 3 * 256)
    assert torch.equal(shown[2, :, :256], gt[0, 22:278, 7:263])


class Writer(dict):
    def add_image(self, name, image, iteration):
        self[name] = image.shape, iteration

    def add_scalar(self, name, value, iteration):
        self[name] = value, iteration


def test_the_first_images_of_a_data_set_are_compared():
    writer = Writer()
    batch = {"lq": torch.rand(3, 3, 4, 4), "gt": torch.rand(3, 3, 8, 8)}
    tensorboard.log_comparisons(writer, "set", [2, 3, 4], batch, torch.rand(3, 3, 8, 8), 7)
    assert writer == {f"comparison/set/{k}": ((3, 8, 24), 7) for k in (2, 3)}


class Settings:
    """A model whose metric is its setting."""

    opt = {"value": 1.0}

    def curve(self, iteration):
        return {"two": {"value": 2.0}, "three": {"value": 3.0}} if iteration == 10 else {}

    def take_options(self, opt):
        self.opt = opt


def test_a_curve_measures_each_setting_and_puts_the_model_back():
    model, writer = Settings(), Writer()
    found = tensorboard.log_curve(model, "set", lambda: {"psnr": model.opt["value"]}, writer, 10)
    assert found == {"two": {"psnr": 2.0}, "three": {"psnr": 3.0}} and model.opt == {"value": 1.0}
    assert writer["curve/set/psnr/two"] == (2.0, 10) and writer["curve/set/psnr/three"] == (3.0, 10)
    assert tensorboard.log_curve(model, "set", lambda: 1 / 0, writer, 11) == {}


def test_a_curve_that_fails_puts_the_model_back():
    model = Settings()
    with pytest.raises(ZeroDivisionError):
        tensorboard.log_curve(model, "set", lambda: 1 / 0, None, 10)
    assert model.opt == {"value": 1.0}
