"""What ConditionalNAFNet promises, whatever its options."""

import pytest
import torch
import torch.nn.functional as F

from basicsr_ext.common.errors import InputError
from basicsr_ext.restoring.tiling import TiledNetwork
from i2sb_plugin.archs.nafnet_arch import PRESETS, ConditionalNAFNet, _centred, _means

# isort: split
from basicsr.utils.registry import ARCH_REGISTRY

SMALL = {"width": 4, "encoder_blocks": [1, 2], "middle_blocks": 1, "decoder_blocks": [2, 1]}


def awake(**options) -> ConditionalNAFNet:
    """A network whose parameters are all random, so that nothing hides behind a zero."""
    torch.manual_seed(0)
    net = ConditionalNAFNet(**{**SMALL, **options}).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net


def image(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def times(batch: int) -> torch.Tensor:
    return torch.linspace(0, 1000, batch)


def test_registered_under_its_class_name():
    assert ARCH_REGISTRY.get("ConditionalNAFNet") is ConditionalNAFNet


@pytest.mark.parametrize(
    ("preset", "parameters", "multiple"),
    [("fast", 7_080_876, 32), ("small", 7_075_683, 16), ("base", 34_266_147, 16), ("large", 136_329_283, 16)],
)
def test_size_of_each_preset(preset, parameters, multiple):
    with torch.device("meta"):
        net = ConditionalNAFNet(preset=preset)
        assert net(torch.zeros(2, 3, 70, 50), torch.ones(2)).shape == (2, 3, 70, 50)
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert net.multiple == multiple


def test_every_preset_is_measured_above():
    assert set(PRESETS) == {"fast", "small", "base", "large"}


def test_options_override_the_preset_one_by_one():
    with torch.device("meta"):
        net = ConditionalNAFNet(preset="fast", middle_blocks=0)
        assert ConditionalNAFNet(preset="fast", unshuffle=1).multiple == 16
    assert net.layout.middle_blocks == 0 and net.layout.unshuffle == 2


def test_an_untrained_network_predicts_zero():
    assert ConditionalNAFNet(**SMALL)(image(1, 3, 16, 16), times(1)).abs().max() == 0


@pytest.mark.parametrize(("unshuffle", "full_size"), [(1, 0), (2, 0), (4, 0), (2, 6)])
@pytest.mark.parametrize(("channels", "size"), [(1, (8, 8)), (3, (13, 6)), (4, (1, 9))])
def test_any_channels_and_sizes_give_finite_outputs_and_gradients(unshuffle, full_size, channels, size):
    net = awake(in_channels=channels, out_channels=channels, unshuffle=unshuffle, full_size=full_size)
    y = net(image(2, channels, *size), times(2))
    assert y.shape == (2, channels, *size)
    y.square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name
        assert float(parameter.grad.abs().max()) > 0, name


def test_odd_sizes_are_padded_by_repeating_the_border_and_cropped_back():
    net, x = awake(), image(1, 3, 10, 13)
    whole = net(F.pad(x, (0, 3, 0, 2), mode="replicate"), times(1))
    torch.testing.assert_close(net(x, times(1)), whole[:, :, :10, :13], rtol=0, atol=0)


def test_the_condition_is_seen_after_the_image():
    net, joint = awake(cond_channels=2), awake(in_channels=5)
    joint.load_state_dict(net.state_dict(), strict=True)
    x, cond = image(2, 3, 8, 8), image(2, 2, 8, 8, seed=2)
    assert torch.equal(net(x, times(2), cond), joint(torch.cat([x, cond], 1), times(2)))
    assert not torch.equal(net(x, times(2), cond), net(x, times(2), -cond))


def test_time_changes_the_output_of_each_image_alone():
    net, x, t = awake(), image(3, 3, 8, 8), times(3)
    alone = torch.cat([net(x[k : k + 1], t[k : k + 1]) for k in range(3)])
    torch.testing.assert_close(net(x, t), alone, rtol=1e-5, atol=1e-5)
    assert float((net(x, t) - net(x, t.flip(0)))[0].detach().abs().max()) > 1e-3


def test_a_block_is_the_formula_of_the_paper_between_scale_and_shift():
    block, x, emb = awake().encoder[0][0].double(), image(2, 4, 5, 3).double(), image(2, 16, seed=2).double()
    scale, shift, more, again = (part[..., None, None] for part in F.linear(emb, *block.time.parameters()).chunk(4, 1))

    def norm(x, layer):
        spread = ((x - x.mean(1, keepdim=True)).square().mean(1, keepdim=True) + 1e-6).sqrt()
        return (x - x.mean(1, keepdim=True)) / spread * layer.weight[:, None, None] + layer.bias[:, None, None]

    left, right = block.mix_near(block.mix_in(norm(x, block.mix_norm) * (1 + scale) + shift)).split(4, 1)
    gated = left * right
    y = x + block.mix_gain * block.mix_out(gated * block.weigh(F.adaptive_avg_pool2d(gated, 1)))
    left, right = block.feed_in(norm(y, block.feed_norm) * (1 + more) + again).split(4, 1)
    expected = y + block.feed_gain * block.feed_out(left * right)
    torch.testing.assert_close(block(x, emb), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("window", [4, 5])
def test_the_mean_around_a_pixel_is_that_of_the_window_moved_into_the_image(window):
    x = image(2, 3, 12, 9)
    found = _centred(_means(x, window), x)
    for row, column in ((0, 0), (1, 4), (6, 4), (7, 8), (11, 8)):
        top, left = (min(max(k - window // 2, 0), size - window) for k, size in ((row, 12), (column, 9)))
        naive = x[..., top : top + window, left : left + window].mean((2, 3))
        torch.testing.assert_close(found[..., row, column], naive, rtol=1e-5, atol=1e-6)
    narrow = _centred(_means(x, 10), x)
    torch.testing.assert_close(narrow[..., 6, :], x[:, :, 1:11].mean((2, 3))[..., None].expand(-1, -1, 9))


def test_images_up_to_the_size_of_the_crops_are_left_as_they_are():
    net, same = awake(), awake(pool_size=20)
    for size in ((20, 20), (13, 6)):
        assert torch.equal(net(image(1, 3, *size), times(1)), same(image(1, 3, *size), times(1)))
    assert not torch.equal(net(image(1, 3, 20, 28), times(1)), same(image(1, 3, 20, 28), times(1)))


@pytest.mark.parametrize("unshuffle", [1, 2])
def test_tiles_agree_better_with_the_whole_image_by_means_of_the_size_of_crops(unshuffle):
    x = torch.linspace(-1, 1, 160).expand(1, 3, 160, 160) + 0.2 * image(1, 3, 160, 160)
    apart = {}
    for pool_size in (None, 32):
        net = awake(unshuffle=unshuffle, pool_size=pool_size)
        with torch.no_grad():
            whole, tiled = net(x, times(1)), TiledNetwork(net, tile=80, overlap=40)(x, times(1))
        apart[pool_size] = float((whole - tiled).square().mean() / whole.var())
    assert apart[32] < 0.5 * apart[None]


@pytest.mark.parametrize("pool_size", [None, 4])
def test_channels_last_and_compilation_change_no_result(pool_size):
    net, x = awake(pool_size=pool_size), image(2, 3, 9, 8)
    expected = net(x, times(2))
    found = torch.compile(net, backend="eager", fullgraph=True)(x, times(2))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    found = net.to(memory_format=torch.channels_last)(x, times(2))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert len(list(net.compiled_parts())) == 7


def test_bf16_autocast_stays_near_float32_and_returns_it():
    net, x = ConditionalNAFNet(**SMALL, cond_channels=3), image(2, 3, 16, 16)
    torch.nn.init.normal_(net.last.weight)
    with torch.no_grad():
        exact = net(x, times(2), x)
        with torch.autocast("cpu", torch.bfloat16):
            found = net(x, times(2), x)
    assert found.dtype == torch.float32
    assert 0 < float((found - exact).square().mean().sqrt()) < 0.02 * float(exact.std())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"preset": "smal"}, r"network_g\.preset is 'smal'; did you mean small\?"),
        ({"width": 1}, r"network_g\.width is 1; it must be 2 or more"),
        ({"encoder_blocks": []}, r"network_g\.encoder_blocks is \[\]; give"),
        ({"encoder_blocks": [1, -1]}, r"network_g\.encoder_blocks is \[1, -1\]"),
        ({"middle_blocks": -1}, r"network_g\.middle_blocks is -1; it must be 0 or more"),
        ({"decoder_blocks": [1]}, r"network_g\.decoder_blocks is \[1\]; .* 2 levels"),
        ({"pool_size": 0}, r"network_g\.pool_size is 0; it must be the side of the crops"),
        ({"unshuffle": 3}, r"network_g\.unshuffle is 3; it must be 1, 2 or 4"),
        ({"in_channels": 0}, r"network_g\.in_channels is 0"),
    ],
)
def test_options_that_cannot_be_built_are_named(options, says):
    with pytest.raises(InputError, match=says):
        ConditionalNAFNet(**{**SMALL, **options})


def test_inputs_that_do_not_fit_are_named():
    with pytest.raises(InputError, match=r"network_g\.cond_channels is 0 but the condition has 3 channels"):
        ConditionalNAFNet(**SMALL)(image(1, 3, 8, 8), times(1), image(1, 3, 8, 8))
