"""The page's network passes the check by the command that the page shows, and learns."""

import json
import shlex

import pytest
import torch
import yaml

from basicsr_ext import cli
from tests.support.pages import plugged_in, read_page
from tests.support.toolkit import OPTIONS

PAGE, BLOCKS = read_page("add_a_network.md")


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Do what the page says: save the file where the option file names it as a plugin, and stay there."""
    with plugged_in(BLOCKS, tmp_path_factory.mktemp("page")) as options:
        yield options
    from basicsr.utils.registry import ARCH_REGISTRY

    ARCH_REGISTRY._obj_map.pop("TimedNet")


def check(*changes):
    words = shlex.split(BLOCKS["sh"])
    assert words[0] == "basicsr"
    words[words.index("options/i2sb_sr4x_plain.yml")] = str(OPTIONS / "i2sb_sr4x_plain.yml")
    return cli.main([*words[1:], "datasets:train:gt_size=32", "val:sampler:nfe=2", *changes])


def test_the_network_keeps_the_size_and_sees_the_time(options):
    from basicsr.archs import build_network

    torch.manual_seed(0)
    net = build_network(options["network_g"])
    image = torch.rand(2, 3, 16, 24)
    early, late = (net(image, torch.full((2,), time)) for time in (10.0, 900.0))
    assert early.shape == image.shape and (early - late).abs().max() > 1e-3
    assert net.multiple == 2


def test_the_command_of_the_page_passes(options, capsys):
    assert check() == 0
    said = capsys.readouterr().out
    assert "network_g: TimedNet" in said and "l_bridge" in said


def test_a_misspelt_argument_is_named(options, capsys):
    assert check("network_g={type: TimedNet, widht: 48}") == 2
    said = capsys.readouterr().err
    assert "network_g.widht" in said and "width" in said


def test_wrong_channels_are_compared_with_the_images(options, capsys):
    assert check("network_g={type: TimedNet, in_channels: 1}") == 2
    assert "network_g.in_channels is 1" in capsys.readouterr().err


def test_the_adapter_of_the_page_trains_and_restores_a_batch(options, capsys):
    adapter = yaml.safe_load(BLOCKS["yml"])["network_g"]
    adapter["network"] |= {"depths": [1], "num_heads": [1], "embed_dim": 8}
    assert check("bridge:cond_x1=true", "bridge:predicts=x0", f"network_g={json.dumps(adapter)}") == 0
    said = capsys.readouterr().out
    assert "network_g: BridgeAdapter" in said and "one image restored" in said


def test_the_page_names_what_may_be_called_without_an_adapter(options, capsys):
    assert check("network_g={type: SRVGGNetCompact}") == 2
    said = capsys.readouterr().err
    assert all(f"`{name}`" in PAGE and name in said for name in ("ADMUNet", "ConditionalNAFNet", "BridgeAdapter"))


def test_a_network_that_cannot_serve_is_refused_by_the_check(options, capsys):
    assert check("network_g={type: BridgeAdapter, network: {type: BasicVSR}}") == 2
    assert "network_g.network.type is BasicVSR" in capsys.readouterr().err
