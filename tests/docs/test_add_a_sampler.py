"""The page's code works as it stands, as a function and through the command and the option block that it shows."""

import shlex

import pytest
import torch

from basicsr_ext import cli
from basicsr_ext.common.errors import InputError
from i2sb_plugin.bridge import Bridge
from i2sb_plugin.models.bridge_options import SamplerOptions, read_block
from i2sb_plugin.samplers import SAMPLERS, step_grid
from tests.support.pages import plugged_in, read_page
from tests.support.toolkit import OPTIONS, small

PAGE, BLOCKS = read_page("add_a_sampler.md")
BRIDGE = Bridge.one_clock(100)


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Do what the page says: save the file where the option file names it as a plugin, and stay there."""
    with plugged_in(BLOCKS, tmp_path_factory.mktemp("page")) as options:
        yield options
    SAMPLERS.pop("redraw")


def images(count=1, side=64):
    x0, x1 = torch.rand(2, count, 3, side, side, generator=torch.Generator().manual_seed(0)).mul(2).sub(1)
    return x0, x1


def test_the_code_has_about_twenty_lines():
    assert len(BLOCKS["python"].splitlines()) <= 22


@pytest.mark.parametrize("nfe", [1, 5])
def test_a_perfect_prediction_is_the_result(options, nfe):
    x0, x1 = images()
    before = x1.clone()
    result = SAMPLERS["redraw"](lambda xt, step: x0, BRIDGE, x1, step_grid(BRIDGE, nfe))
    torch.testing.assert_close(result, x0, rtol=0, atol=1e-6)
    assert torch.equal(x1, before)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_node_has_the_mean_and_the_share_of_the_noise_that_the_page_says(options, eta):
    x0, x1 = images(4)
    points = {}
    SAMPLERS["redraw"](
        lambda xt, step: x0,
        BRIDGE,
        x1,
        [100, 40, 0],
        generator=torch.Generator().manual_seed(1),
        callback=lambda node, xt, _: points.update({node: xt}),
        eta=eta,
    )
    weight, std = float(BRIDGE.weight_x0[40]), float(BRIDGE.marginal_std[40])
    noise = points[40] - (weight * x0 + (1 - weight) * x1)
    assert noise.std().item() == pytest.approx(eta * std, rel=0.02, abs=1e-6)
    assert noise.mean().item() == pytest.approx(0, abs=4 * std / noise.numel() ** 0.5)


def test_an_image_is_restored_alike_alone_and_in_a_batch_and_the_known_part_is_kept(options):
    _, x1 = images(2)
    mask = torch.zeros(2, 1, 64, 64)
    mask[..., 16:48, 16:48] = 1
    steps = step_grid(BRIDGE, 4)

    def walk(index):
        generators = [torch.Generator().manual_seed(k) for k in index]
        return SAMPLERS["redraw"](
            lambda xt, _: xt / 2, BRIDGE, x1[index], steps, generator=generators, mask=mask[index]
        )

    together = walk([0, 1])
    assert torch.equal(torch.cat([walk([0]), walk([1])]), together)
    known = mask.expand_as(x1) == 0
    assert torch.equal(together[known], x1[known])
    assert not torch.equal(together[~known], x1[~known])


def test_the_option_block_is_accepted_and_a_wrong_option_of_it_refused(options):
    block = options["val"]["sampler"]
    assert read_block(SamplerOptions, block, "val.sampler").own == {"eta": 0.5}
    with pytest.raises(InputError, match="order .*redraw"):
        read_block(SamplerOptions, {**block, "order": 2}, "val.sampler")


def test_the_command_of_the_page_restores_with_it(options, capsys):
    words = shlex.split(BLOCKS["sh"])
    assert words[0] == "basicsr"
    words[words.index("options/i2sb_sr4x_plain.yml")] = str(OPTIONS / "i2sb_sr4x_plain.yml")
    quick = [*small("i2sb_sr4x_plain"), "datasets:train:gt_size=32", "val:sampler:nfe=2", "val:sampler:eta=0.5"]
    assert cli.main([*words[1:], *quick]) == 0
    assert "datasets.val: one image restored and measured" in capsys.readouterr().out
