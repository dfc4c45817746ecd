"""Any image-to-image network inside the adapter: which serve, what is refused, and what they see."""

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from basicsr_ext.checkpoints.networks import build_empty, network_channels
from basicsr_ext.common.errors import InputError
from basicsr_ext.restoring.tiling import TiledNetwork
from i2sb_plugin.archs.bridge_adapter_arch import BridgeAdapter
from i2sb_plugin.archs.inner_network import network_class
from i2sb_plugin.plugin import register

# isort: split
from basicsr.utils.registry import ARCH_REGISTRY

register()

SWINIR = {"type": "SwinIR", "img_size": 16, "window_size": 8, "depths": [2], "num_heads": [2], "embed_dim": 12}
RRDBNET = {"type": "RRDBNet", "num_feat": 8, "num_block": 1, "num_grow_ch": 4}
MSRRESNET = {"type": "MSRResNet", "num_feat": 8, "num_block": 1}
EDSR = {"type": "EDSR", "num_feat": 8, "num_block": 1}
COMPACT = {"type": "SRVGGNetCompact", "num_feat": 8, "num_conv": 1}
ECBSR = {"type": "ECBSR", "num_block": 1, "num_channel": 8, "with_idt": False, "act_type": "prelu"}
DAT = {"type": "spandrel.DAT", "embed_dim": 16, "depth": [2], "num_heads": [2], "split_size": [2, 4]}


def image(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def times(batch: int) -> torch.Tensor:
    return torch.linspace(0, 1000, batch)


def awake(network, **options) -> BridgeAdapter:
    """An adapter whose last convolution, which starts at zero, lets the inner network be seen."""
    torch.manual_seed(0)
    net = BridgeAdapter(network, **options)
    nn.init.normal_(net.last.weight)
    return net


@pytest.mark.parametrize(
    ("network", "unshuffle", "multiple", "given"),
    [
        (SWINIR, 1, 8, 7),  # one option for both sides: as many channels as it takes
        (SWINIR, 2, 16, 25),
        (RRDBNET, 1, 4, 3),  # folds pixels itself at scale 1
        ({**RRDBNET, "scale": 4}, 4, 4, 3),
        (MSRRESNET, 2, 2, 25),  # has no scale 1: enlarges what the adapter unshuffled
        (MSRRESNET, 4, 4, 97),
        (EDSR, 1, 1, 3),
        (EDSR, 2, 2, 12),
        (COMPACT, 1, 1, 7),  # adds its input to its output
        (ECBSR, 2, 2, 25),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else str(value),
)
def test_networks_of_basicsr_serve(network, unshuffle, multiple, given):
    net = awake(network, cond_channels=3, unshuffle=unshuffle)
    x, cond = image(2, 3, 19, 13), image(2, 3, 19, 13, seed=2)
    y = net(x, times(2), cond)
    assert y.shape == x.shape and net.multiple == multiple and net.last.in_channels == given
    y.square().mean().backward()
    slopes = [weight.grad for weight in net.network.parameters() if weight.grad is not None]
    assert slopes and all(bool(slope.isfinite().all()) for slope in slopes)
    assert all(bool((y != net(*other)).any()) for other in (
        (x, times(2), -cond), (-x, times(2), cond), (x, times(2).flip(0), cond)
    ))  # fmt: skip


def test_networks_of_spandrel_serve():
    pytest.importorskip("spandrel", reason="needs the extra `foreign`")
    net = awake(DAT, cond_channels=1)
    assert net(image(2, 3, 19, 13), times(2), image(2, 1, 19, 13)).shape == (2, 3, 19, 13)
    assert net.training_faults(1) and type(net.network).__module__.startswith("spandrel.")


@pytest.mark.parametrize("network", [SWINIR, RRDBNET, EDSR], ids=lambda network: network["type"])
def test_an_untrained_adapter_predicts_zero(network):
    assert BridgeAdapter(network)(image(1, 3, 16, 16), times(1)).abs().max() == 0


def test_the_network_sees_xt_the_condition_and_a_map_of_the_time():
    seen = []
    net = awake(COMPACT, cond_channels=1, unshuffle=2)
    net.network.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    x, cond = image(2, 3, 5, 6), image(2, 1, 5, 6, seed=2)
    net(x, torch.tensor([250.0, 1000.0]), cond)
    whole = F.pad(torch.cat([x, cond], 1), (0, 0, 0, 1), mode="replicate")
    assert torch.equal(seen[0][:, :-1], F.pixel_unshuffle(whole, 2))
    assert seen[0][:, -1].flatten(1).unique(dim=1).flatten().tolist() == [0.25, 1.0]


def test_a_convolution_of_full_size_follows_the_unshuffled_network():
    net = awake(COMPACT, cond_channels=1, unshuffle=2, full_size=6)
    x, cond = image(2, 3, 6, 8), image(2, 1, 6, 8, seed=2)
    folded = F.pixel_unshuffle(torch.cat([x, cond], 1), 2)
    expected = net.full(F.pixel_shuffle(net.predict(folded, times(2)), 2))
    assert torch.equal(net(x, times(2), cond), expected)
    untrained = BridgeAdapter(COMPACT, unshuffle=2, full_size=6)
    assert untrained(x, times(2)).abs().max() == 0 and untrained.last.weight.abs().max() > 0


def test_the_result_is_a_map_of_each_pixel_of_what_the_network_gives():
    net, x = awake(EDSR), image(2, 3, 8, 8)
    inside = net.network(torch.cat([x, (times(2) / 1000)[:, None, None, None].expand(2, 1, 8, 8)], 1))
    expected = torch.einsum("oi,bihw->bohw", net.last.weight[..., 0, 0], inside)
    torch.testing.assert_close(net(x, times(2)), expected, rtol=1e-5, atol=1e-6)


def test_the_mean_colour_of_photographs_is_not_taken_away():
    net = awake({**EDSR, "img_range": 1.0})
    assert net.network.mean.abs().max() == 0


def test_options_and_random_stream_stay_as_they_are():
    block = {"type": "EDSR", "num_feat": 8, "num_block": 1}
    torch.manual_seed(3)
    BridgeAdapter(block)
    after = torch.rand(1)
    torch.manual_seed(3)
    network_class("EDSR")(num_in_ch=4, num_out_ch=3, num_feat=8, num_block=1, upscale=1)
    nn.Conv2d(3, 3, 1)
    assert torch.equal(after, torch.rand(1)) and block == {"type": "EDSR", "num_feat": 8, "num_block": 1}


def test_the_toolkit_reads_its_channels_and_builds_it_without_memory():
    options = {"type": "BridgeAdapter", "network": EDSR, "in_channels": 4, "cond_channels": 3}
    assert network_channels(options) == (4, 3)
    assert next(build_empty(options).parameters()).is_meta
    assert build_empty(options).in_channels == 4


def test_tiles_follow_the_unshuffled_network():
    with pytest.raises(InputError, match=r"tile is 30, .* multiple of 4; give 32"):
        TiledNetwork(BridgeAdapter(EDSR, unshuffle=4), tile=30)
    net = awake({**EDSR, "num_block": 0}, unshuffle=2)
    x = image(1, 3, 35, 24)
    with torch.no_grad():
        tiled = TiledNetwork(net, tile=24, overlap=12)(x, times(1))
    assert tiled.shape == x.shape
    torch.testing.assert_close(tiled[..., :6, :6], net(x, times(1))[..., :6, :6], rtol=1e-5, atol=1e-5)


class Pooled(nn.Module):
    """BatchNorm over the mean of an image, as in attention over channels."""

    def __init__(self, in_channels: int = 3, out_channels: int = 3) -> None:
        super().__init__()
        self.weigh = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(in_channels))
        self.last = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x):
        return self.last(x * self.weigh(x))


class Scaled(nn.Module):
    """Sides that must be multiples of 8, which no attribute tells."""

    def __init__(self, in_channels: int = 3, out_channels: int = 3, upscale: int = 1) -> None:
        super().__init__()
        self.last = nn.Conv2d(in_channels, out_channels * 64, 8, stride=8)

    def forward(self, x):
        return F.pixel_shuffle(self.last(x), 8)


class Valid(nn.Module):
    """Sides that must be 9 at least: they are cut by a convolution without padding."""

    def __init__(self, in_channels: int = 3, out_channels: int = 3) -> None:
        super().__init__()
        self.last = nn.Conv2d(in_channels, out_channels, 9)

    def forward(self, x):
        return F.interpolate(self.last(x), size=x.shape[2:])


class Idle(nn.Module):
    """Weights that change nothing."""

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.last = nn.Conv2d(in_channels, in_channels, 1)

    def forward(self, x):
        return x / 1.0


@pytest.fixture
def registered():
    """The networks above, as a plugin would register them."""
    classes = {cls.__name__: cls for cls in (Pooled, Scaled, Valid, Idle)}
    for cls in classes.values():
        ARCH_REGISTRY.register(cls)
    yield
    for name in classes:
        ARCH_REGISTRY._obj_map.pop(name)


def test_a_multiple_that_no_attribute_tells_is_found(registered):
    assert awake({"type": "Scaled"}, unshuffle=2).multiple == 16


@pytest.mark.parametrize("size", [(1, 1), (3, 20), (40, 2)])
def test_an_image_that_is_too_small_is_padded(registered, size):
    assert awake({"type": "Valid"})(image(1, 3, *size), times(1)).shape == (1, 3, *size)
    assert awake(SWINIR)(image(1, 3, *size), times(1)).shape == (1, 3, *size)


def test_batch_norm_is_not_trained_on_one_image_and_restores_one(registered):
    net = awake({"type": "Pooled"})
    (fault,) = net.training_faults(1)
    assert all(word in fault for word in ("Pooled", "BatchNorm", "batch_size_per_gpu to 2 or more"))
    assert not net.training_faults(2) and not awake(EDSR).training_faults(1)
    assert net(image(2, 3, 8, 8), times(2)).shape == (2, 3, 8, 8)
    assert net.eval()(image(1, 3, 8, 8), times(1)).shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("network", "options", "says"),
    [
        ({}, {}, r"network_g\.network\.type is missing"),
        ({"type": "SwinIIR"}, {}, r"network_g\.network\.type is 'SwinIIR'.* did you mean SwinIR\?"),
        ({"type": "ADMUNet"}, {}, r"network\.type is ADMUNet, which takes \(x, t, cond\).* is network_g\.type"),
        ({"type": "BridgeAdapter"}, {}, r"network\.type is BridgeAdapter, which takes \(x, t, cond\)"),
        ({"type": "SpyNet"}, {}, r"network\.type is SpyNet, which takes \(ref, supp\)"),
        ({"type": "BasicVSR"}, {}, r"network\.type is BasicVSR, which has no option for the channels"),
        ({"type": "StyleGAN2Generator", "out_size": 32}, {}, r"StyleGAN2Generator, which has no option for the chan"),
        ({"type": "EDVR", "num_feat": 8}, {}, r"EDVR, which the adapter cannot use: not enough"),
        ({"type": "VGGStyleDiscriminator", "num_feat": 4}, {}, r"VGGStyleDiscriminator, which the adapter cannot use"),
        ({"type": "Idle"}, {}, r"Idle, which the adapter cannot use: .* does not depend on its weights"),
        (MSRRESNET, {}, r"MSRResNet, which the adapter cannot use: .*network_g\.unshuffle: 2 or 4"),
        ({**EDSR, "num_in_ch": 3}, {}, r"network_g\.network\.num_in_ch is 3, .* set it to 4, or leave it out"),
        ({**EDSR, "num_out_ch": 5}, {}, r"network_g\.network\.num_out_ch is 5, .* set it to 3 or 4, or leave it out"),
        ({**EDSR, "upscale": 4}, {"unshuffle": 2}, r"network_g\.network\.upscale is 4, .*unshuffle is 2.* 1 or 2, or"),
        ({**EDSR, "upscale": 0}, {}, r"network_g\.network\.upscale is 0, .* set it to 1, or leave it out"),
        ({**EDSR, "rgb_mean": [0.5, 0.5, 0.5]}, {}, r"network_g\.network\.rgb_mean is .*leave it out"),
        ({**EDSR, "num_feats": 8}, {}, r"network_g\.network\.num_feats is not an option of EDSR.*num_feat"),
        ({"type": "ECBSR"}, {}, r"network_g\.network\.num_block is missing"),
        (EDSR, {"unshuffle": 3}, r"network_g\.unshuffle is 3; it must be 1, 2 or 4"),
        (EDSR, {"in_channels": 0}, r"network_g\.in_channels is 0"),
    ],
    ids=lambda value: value.get("type") if isinstance(value, dict) else None,
)
def test_what_cannot_serve_is_named(registered, network, options, says):
    with pytest.raises(InputError, match=says):
        BridgeAdapter(network, **options)


def test_inputs_that_do_not_fit_are_named():
    with pytest.raises(InputError, match=r"network_g\.in_channels is 3 .*\(1, 4, 8, 8\)"):
        BridgeAdapter(EDSR)(image(1, 4, 8, 8), times(1))


def test_without_spandrel_its_networks_name_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    monkeypatch.setitem(sys.modules, "spandrel.architectures", None)
    with pytest.raises(InputError, match=r"spandrel\.DAT, which needs .*pip install 'basicsr-i2sb\[foreign\]'"):
        BridgeAdapter(DAT)


def test_unknown_networks_of_spandrel_list_the_known_ones():
    pytest.importorskip("spandrel", reason="needs the extra `foreign`")
    with pytest.raises(InputError, match=r"'spandrel\.Dat', .* known: spandrel\.DAT"):
        BridgeAdapter({"type": "spandrel.Dat"})
