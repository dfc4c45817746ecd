"""`val.tile`: validation, test and benchmark see large images as `basicsr restore` does, in tiles."""

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn

from basicsr_ext import repairs

repairs.apply()

from basicsr_ext.benchmark.run.runners import TrainedRunner  # noqa: E402
from basicsr_ext.checkpoints.storage import atomic_save  # noqa: E402
from basicsr_ext.common.option_blocks import parse_block  # noqa: E402
from basicsr_ext.models.options import ValOptions  # noqa: E402
from basicsr_ext.preflight.networks import network_faults  # noqa: E402
from basicsr_ext.restoring.restorer import Loading, Restorer  # noqa: E402
from basicsr_ext.restoring.tiling import TiledNetwork, tile_windows  # noqa: E402
from tests.support.models import built, generators, model_options  # noqa: E402


class Pointwise(nn.Module):
    """Every pixel by itself, from all that the network is given."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1)
        self.widest = 0

    def forward(self, x, time, cond=None):
        self.widest = max(self.widest, *x.shape[-2:])
        return (self.mix(x) * (1 + time[:, None, None, None] / 1000)).sin()


def photograph(height=200, width=136):
    pixels = np.ascontiguousarray(data.astronaut()[:height, :width])
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255


def restored(model, batch):
    """What the validation gets, and the output of `test()`, which is the same."""
    model.feed_data(batch)
    with torch.no_grad(), model.evaluating() as net:
        found = model.restore(model.batch, net, generators(*range(len(batch["lq"]))))
    model.test()
    assert torch.equal(found, model.output)
    return found


@pytest.mark.parametrize("ema_decay", [0, 0.9])
def test_tiles_give_the_whole_for_a_pointwise_network(ema_decay):
    batch = {"lq": photograph()[:, :, ::2, ::2], "lq_path": ["a.png"]}
    found = []
    for tile in ({}, {"val__tile": 64}, {"val__tile": 48, "val__tile_overlap": 24}):
        model = built("I2SBModel", val__sampler={"nfe": 3, "clip": False}, train__ema_decay=ema_decay, **tile)
        torch.manual_seed(1)
        net = Pointwise()
        setattr(model, "net_g_ema" if ema_decay else "net_g", net)
        found.append(restored(model, batch))
        assert net.widest == (tile.get("val__tile") or 200)
    assert all((other - found[0]).abs().max() < 1e-6 for other in found[1:])


def test_tiles_show_no_seams_on_a_network_with_a_context():
    batch = {"lq": photograph(320, 256), "lq_path": ["a.png"]}
    images = []
    for tile in (0, 128):
        network = {"type": "ADMUNet", "preset": "tiny"}
        options = {"val__sampler": {"nfe": 1}, "val__tile": tile, "val__tile_overlap": 16 if tile else None}
        model = built("I2SBModel", scale=1, network_g=network, train__ema_decay=0, **options)
        generator = torch.Generator().manual_seed(2)
        nn.init.normal_(model.net_g.out[2].weight, std=0.05, generator=generator)
        images.append(restored(model, batch))
    whole, tiles = images
    assert (whole - tiles).abs().max() > 1e-4, "the network looks around"
    for axis, size in ((-2, 320), (-1, 256)):
        step = (tiles - whole).diff(dim=axis).square().mean([k for k in range(4) if k != axis % 4])
        edges = {edge for start, stop, _ in tile_windows(size, 128, 16, 8) for edge in (start, stop)}
        borders = sorted(edges - {0, size})
        assert step[[edge - 1 for edge in borders]].mean() < step.mean(), "no rougher than elsewhere"


def test_training_test_and_restore_have_one_tiling(tmp_path):
    """The same numbers from the validation of a model and from the restorer of its checkpoint."""
    batch = {"lq": photograph(90, 70), "lq_path": ["a.png"]}
    network = {"type": "ADMUNet", "preset": "tiny", "channel_mult": [1, 1]}
    options = {"scale": 1, "network_g": network, "val__tile": 32, "val__tile_overlap": 8, "train__ema_decay": 0}
    model = built("I2SBModel", val__sampler={"nfe": 2}, **options)
    nn.init.normal_(model.net_g.out[2].weight, std=0.05, generator=torch.Generator().manual_seed(2))
    wanted = restored(model, batch)
    atomic_save({"params": model.net_g.state_dict()}, tmp_path / "net.pth")
    opt = model_options("I2SBModel", val__sampler={"nfe": 2}, **options) | {"is_train": False}
    found, _ = Restorer(opt, tmp_path / "net.pth", Loading("cpu", 32, 8)).restore(batch["lq"], seed=[0])
    assert torch.equal(found, wanted)
    runner = TrainedRunner(opt, tmp_path / "net.pth", {}, "cpu", None)  # of a benchmark that says nothing of tiles
    assert (runner.network.tile, runner.network.overlap) == (32, 8)
    assert torch.equal(runner.restore([{"lq": batch["lq"][0]}], [0])[0][0], wanted[0])
    whole = TrainedRunner(opt, tmp_path / "net.pth", {}, "cpu", 0)
    assert whole.network.tile == 0 and not torch.equal(whole.restore([{"lq": batch["lq"][0]}], [0])[0][0], wanted[0])


def test_a_tile_that_memory_could_not_hold_stays_smaller():
    model = built("I2SBModel", val__tile=64, train__ema_decay=0)
    with model.evaluating() as net:
        assert isinstance(net, TiledNetwork) and not net.training
        net.tile = 32
    assert model.net_g.training
    with model.evaluating() as net:
        assert net.tile == 32


@pytest.mark.parametrize(
    "val, said",
    [
        ({"tile": -1}, "val: tile is -1; it must be a number of pixels, or 0 for whole images"),
        ({"tile": 64, "tile_overlap": 40}, "val: tile_overlap is 40; it must be from 0 to half of tile, 32"),
        ({"tile_overlap": 8}, "val: tile_overlap is 8; set tile as well"),
        ({"tile": 64.5}, "val.tile is 64.5 (float), but it must be a whole number"),
    ],
)
def test_wrong_tiles_are_refused(val, said):
    assert parse_block(ValOptions, val, "val")[1] == [said]


def test_a_tile_that_the_network_cannot_take_is_refused_before_the_start():
    opt = model_options("I2SBModel", val__tile=33) | {"is_train": False}
    assert network_faults(opt) == ["val.tile is 33, but this network needs a multiple of 2; give 32, say"]


@pytest.mark.slow
def test_the_memory_of_a_large_test_is_bounded(tmp_path):
    from studies.speed.restore_memory import measure_test

    found = measure_test(640, 1, 128, Path(tmp_path), channel_mult=[1])
    assert found["photograph_mib"] - found["small_mib"] < 200
