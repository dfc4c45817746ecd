"""``degrade_on: device`` gives what the workers give: each image draws from its own stream, whoever degrades it."""

import re

import basicsr_ext  # noqa: F401  (makes basicsr importable)

# isort: split
import pytest
import torch
from torch.utils.data import default_collate

from basicsr_ext import cli, repairs
from basicsr_ext.checkpoints.storage import load_weights
from basicsr_ext.common.errors import InputError
from basicsr_ext.training.sample_order import SeededSamples
from i2sb_plugin.data.paired_degradation_dataset import STATE, PairedDegradationDataset
from i2sb_plugin.degradations import Degraded
from i2sb_plugin.degradations.kinds.jpeg import Jpeg
from tests.end_to_end import test_resume
from tests.support.cli_runs import bridge_options, write
from tests.support.degradation_examples import NAMES, example, image
from tests.support.image_files import write_image

CPU = torch.device("cpu")
PLACES = [(0, 5), (1, 6), (0, 70)]  # index and position


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(2):
        smooth = torch.nn.functional.interpolate(image(1, 3, 9, 12, seed=number), (72, 96), mode="bicubic")[0]
        write_image(folder / f"{number}.png", smooth.clamp(0, 1))
    return folder


def samples(folder, degradation, **options):
    block = {"name": "a", "type": "PairedDegradationDataset", "dataroot_gt": str(folder), "phase": "train"}
    block |= {"gt_size": 48, "use_hflip": True, "use_rot": True, "degradation": degradation, **options}
    return SeededSamples(PairedDegradationDataset(block), seed=3)


def goes_together(dataset):
    """Whether a device other than the CPU degrades a batch at once."""
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "degrade_batch", lambda batch, device, together: asked.append(together))
        dataset.defer(torch.device("meta"))({})
    return asked[0]


@pytest.mark.parametrize("name", NAMES)
def test_batches_degraded_later_are_those_of_the_workers(photographs, name):
    degradation = example(name, (48, 48)) if name != "inpaint_masks" else {**example(name), "resize": True}
    wanted = default_collate([samples(photographs, degradation)[place] for place in PLACES])
    later = samples(photographs, degradation, degrade_on="device")
    complete = later.dataset.defer(CPU)
    items = [later[place] for place in PLACES]
    assert all(item.keys() == {"gt", STATE, "lq_path", "gt_path"} for item in items)
    stream = torch.default_generator.get_state()
    found = complete(default_collate(items))
    assert torch.equal(torch.default_generator.get_state(), stream), "the training step's stream is left alone"
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.equal(found[key], value) if torch.is_tensor(value) else found[key] == value, key
    if goes_together(later.dataset):
        together = later.dataset.degrade_batch(default_collate(items), CPU, together=True)
        torch.testing.assert_close(together["lq"], wanted["lq"], rtol=0, atol=1e-5)
        assert together.get("mask", torch.ones(1)).equal(wanted.get("mask", torch.ones(1)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["sr4x_bicubic", "sr4x_pool", "blur_gauss", "blur_released_gauss", "noise_gauss"])
def test_a_gpu_gives_the_same_within_its_rounding(photographs, name):
    wanted = default_collate([samples(photographs, example(name))[place] for place in PLACES])
    later = samples(photographs, example(name), degrade_on="device")
    found = later.dataset.defer(torch.device("cuda"))(default_collate([later[place] for place in PLACES]))
    assert found["lq"].is_cuda and found["gt"].is_cuda
    torch.testing.assert_close(found["lq"].cpu(), wanted["lq"], rtol=0, atol=1e-4)


def test_what_draws_is_told_from_what_does_not(photographs):
    drawn = {"jpeg": False, "sr4x_bicubic": False, "blur_released_gauss": False, "noise_poisson": True,
             "noise_gauss": True, "compose": True, "inpaint_freeform": True, "mixture": True}  # fmt: skip
    for name, draws in drawn.items():
        assert goes_together(samples(photographs, example(name), degrade_on="device").dataset) != draws, name


def test_products_are_not_rounded_as_those_of_the_training_step_may_be(photographs, monkeypatch):
    seen = []

    def watching(self, image, generator=None):
        seen.append(torch.get_float32_matmul_precision())
        return Degraded(image)

    monkeypatch.setattr(Jpeg, "__call__", watching)
    later = samples(photographs, {"type": "jpeg"}, degrade_on="device")
    complete = later.dataset.defer(CPU)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        complete(default_collate([later[place] for place in PLACES]))
        assert seen == ["highest"] * 3 and torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_only_the_training_loop_asks_for_it(photographs):
    dataset = samples(photographs, {"type": "jpeg"}, degrade_on="device").dataset
    assert "lq" in dataset[0], "checks and others see whole items"
    val = samples(photographs, {"type": "jpeg"}, degrade_on="device", phase="val").dataset
    assert val.defer(CPU) is None and "lq" in val[0]
    assert samples(photographs, {"type": "jpeg"}).dataset.defer(CPU) is None
    with pytest.raises(InputError, match="degrade_on"):
        samples(photographs, {"type": "jpeg"}, degrade_on="gpu")


def test_a_run_that_degrades_on_the_device_ends_with_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    repairs.apply()
    opt = bridge_options(tmp_path)
    opt["network_g"] |= {"channel_mult": [1], "attention_ds": []}
    opt["datasets"]["train"]["degradation"] = {"type": "compose", "of": [
        {"type": "sr4x_bicubic", "scale": 2}, {"type": "noise_gauss", "sigma": [0.0, 0.1]}]}  # fmt: skip
    path = write(tmp_path, opt)
    for where, workers in (("worker", 0), ("device", 2)):
        words = [f"name={where}", f"+datasets:train:degrade_on={where}", f"datasets:train:num_worker_per_gpu={workers}"]
        assert cli.main(["train", "-opt", str(path), "--force_yml", *words]) == 0
    weights = [load_weights(tmp_path / f"experiments/{where}/models/net_g_latest.pth", "params")
               for where in ("worker", "device")]  # fmt: skip
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    repairs.apply()
    opt = bridge_options(tmp_path)
    opt["network_g"] |= {"channel_mult": [1], "attention_ds": []}
    opt["datasets"]["train"] |= {"degradation": {"type": "noise_gauss", "sigma": [0.0, 0.2]}, "degrade_on": "device"}
    opt["datasets"]["val"]["degradation"] = {"type": "noise_gauss"}
    opt["scale"] = 1
    path = write(tmp_path, opt)
    assert test_resume.train(path, "name=unbroken", resume=False) == 0
    test_resume.stop_at(monkeypatch, path, 4, "name=stopped")
    assert test_resume.train(path, "name=stopped") == 0
    log = capsys.readouterr().err
    assert re.search(r"Resuming training from epoch: \d, iter: 2", log), "it did not begin anew"
    unbroken, stopped = (test_resume.final(tmp_path, name) for name in ("unbroken", "stopped"))
    assert unbroken.keys() == stopped.keys() and all(value.equal(stopped[key]) for key, value in unbroken.items())
