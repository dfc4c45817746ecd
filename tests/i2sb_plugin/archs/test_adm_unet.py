"""What ADMUNet promises, whatever its options."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from i2sb_plugin.archs.adm_unet_arch import PRESETS, ADMUNet
from i2sb_plugin.archs.adm_unet_blocks import AttentionBlock, GroupNorm32, Upsample
from i2sb_plugin.archs.bridge_network import time_embedding
from i2sb_plugin.archs.group_norm import PixelwiseGroupNorm, is_pixelwise
from i2sb_plugin.archs.recompute import kept_bytes

# isort: split
from basicsr.utils.registry import ARCH_REGISTRY

SMALL = {"preset": "tiny", "channel_mult": [1, 2]}
ATTENDING = {**SMALL, "attention_ds": [2], "middle_attention": True, "num_head_channels": 16, "resblock_updown": True}


def awake(seed: int = 0, **options) -> ADMUNet:
    """A network whose parameters are all random, so that nothing hides behind a zero."""
    torch.manual_seed(seed)
    net = ADMUNet(**options).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return net


def image(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def times(batch: int) -> torch.Tensor:
    return torch.linspace(0.1, 1000, batch)


def test_registered_under_its_class_name():
    assert ARCH_REGISTRY.get("ADMUNet") is ADMUNet


@pytest.mark.parametrize(
    ("preset", "parameters", "tensors", "multiple"),
    [
        ("fast", 1_252_364, 180, 16),
        ("tiny", 1_247_171, 180, 8),
        ("small", 14_991_747, 354, 8),
        ("base", 103_876_739, 462, 16),
        ("adm256", 552_807_171, 566, 32),
    ],
)
def test_size_of_each_preset(preset, parameters, tensors, multiple):
    with torch.device("meta"):
        net = ADMUNet(preset=preset)
        assert net(torch.zeros(2, 3, 70, 50), torch.ones(2)).shape == (2, 3, 70, 50)
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert len(net.state_dict()) == tensors
    assert net.multiple == multiple


def test_every_preset_is_measured_above():
    assert set(PRESETS) == {"fast", "tiny", "small", "base", "adm256"}


def test_options_override_the_preset_one_by_one():
    with torch.device("meta"):
        net = ADMUNet(preset="adm256", num_res_blocks=1, dropout=0.1, use_scale_shift_norm=False)
    assert (net.layout.num_res_blocks, net.layout.dropout, net.layout.use_scale_shift_norm) == (1, 0.1, False)
    assert net.layout.channel_mult == PRESETS["adm256"].channel_mult


@pytest.mark.parametrize("preset", ["fast", "tiny", "small"])
def test_an_untrained_network_predicts_zero(preset):
    net = ADMUNet(preset=preset)
    assert net(image(1, 3, 16, 16), times(1)).abs().max() == 0


@pytest.mark.parametrize(
    "options",
    [
        SMALL,
        ATTENDING,
        {**SMALL, "unshuffle": 2},
        {**SMALL, "unshuffle": 2, "full_size": 6},
        {"preset": "tiny", "channel_mult": [1], "unshuffle": 4},
    ],
    ids=["convolutional", "attending", "unshuffled", "full size at the end", "one level"],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(8, 8), (13, 6), (1, 9)])
def test_any_channels_and_sizes_give_finite_outputs_and_gradients(options, channels, size):
    net = awake(in_channels=channels, out_channels=channels, **options)
    y = net(image(2, channels, *size), times(2))
    assert y.shape == (2, channels, *size)
    y.square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name
        assert float(parameter.grad.abs().max()) > 0, name


@pytest.mark.parametrize("unshuffle", [2, 4])
def test_an_unshuffled_network_is_the_plain_one_on_the_pixels_of_each_cell(unshuffle):
    cells = unshuffle**2
    net = awake(unshuffle=unshuffle, out_channels=2, cond_channels=1, **SMALL)
    plain = awake(in_channels=4 * cells, out_channels=2 * cells, **SMALL)
    plain.load_state_dict(net.state_dict(), strict=True)
    x, cond = image(2, 3, 13, 22), image(2, 1, 13, 22, seed=2)
    whole = F.pad(torch.cat([x, cond], 1), (0, -22 % net.multiple, 0, -13 % net.multiple), mode="replicate")
    expected = F.pixel_shuffle(plain(F.pixel_unshuffle(whole, unshuffle), times(2)), unshuffle)
    assert net.multiple == 2 * unshuffle
    torch.testing.assert_close(net(x, times(2), cond), expected[..., :13, :22], rtol=0, atol=0)


def test_a_convolution_of_full_size_follows_the_unshuffled_layers():
    net = awake(unshuffle=2, full_size=6, out_channels=2, cond_channels=1, **SMALL)
    plain = awake(in_channels=4 * 4, out_channels=6 * 4, **SMALL)
    plain.load_state_dict({name: value for name, value in net.state_dict().items() if not name.startswith("full.")})
    x, cond = image(2, 3, 16, 24), image(2, 1, 16, 24, seed=2)
    folded = F.pixel_unshuffle(torch.cat([x, cond], 1), 2)
    expected = net.full(F.pixel_shuffle(plain(folded, times(2)), 2))
    torch.testing.assert_close(net(x, times(2), cond), expected, rtol=0, atol=0)


def test_with_it_an_untrained_network_predicts_zero_and_learns():
    net = ADMUNet(preset="fast", full_size=8)
    y = net(image(1, 3, 16, 16), times(1))
    (y - 1).square().mean().backward()
    assert y.abs().max() == 0 and net.full.weight.grad.abs().min() > 0


def test_the_fast_preset_is_tiny_on_a_quarter_of_the_pixels_and_costs_that():
    operations = []
    for preset in ("fast", "tiny"):
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            ADMUNet(preset=preset)(torch.zeros(1, 3, 64, 64), torch.ones(1))
        operations.append(counter.get_total_flops())
    assert operations[0] < 0.27 * operations[1]
    with torch.device("meta"):
        assert [ADMUNet(preset="fast", unshuffle=given).multiple for given in (None, 1, 4)] == [16, 8, 32]


def test_out_channels_may_differ_from_in_channels():
    assert awake(in_channels=4, out_channels=1, **SMALL)(image(1, 4, 8, 8), times(1)).shape == (1, 1, 8, 8)


def test_odd_sizes_are_padded_by_repeating_the_border_and_cropped_back():
    net = awake(preset="tiny", channel_mult=[1, 1, 1])
    x = image(1, 3, 10, 13)
    whole = net(F.pad(x, (0, 3, 0, 2), mode="replicate"), times(1))
    torch.testing.assert_close(net(x, times(1)), whole[:, :, :10, :13], rtol=0, atol=0)


def test_same_seed_same_network_and_same_result():
    a, b, c = (awake(seed, **ATTENDING)(image(1, 3, 8, 8), times(1)) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_the_images_of_a_batch_do_not_mix():
    net, x, t = awake(**ATTENDING), image(3, 3, 8, 8), times(3)
    alone = torch.cat([net(x[k : k + 1], t[k : k + 1]) for k in range(3)])
    torch.testing.assert_close(net(x, t), alone, rtol=0, atol=1e-5)


def test_the_condition_is_seen_after_the_image():
    net = awake(in_channels=3, cond_channels=2, **SMALL)
    joint = awake(in_channels=5, **SMALL)
    joint.load_state_dict(net.state_dict(), strict=True)
    x, cond = image(2, 3, 8, 8), image(2, 2, 8, 8, seed=2)
    assert torch.equal(net(x, times(2), cond), joint(torch.cat([x, cond], 1), times(2)))
    assert not torch.equal(net(x, times(2), cond), net(x, times(2), -cond))


def test_time_changes_the_output():
    net, x = awake(**SMALL), image(1, 3, 8, 8)
    with torch.no_grad():
        assert float((net(x, torch.tensor([10.0])) - net(x, torch.tensor([900.0]))).abs().max()) > 1e-4


def test_time_embedding_has_cosines_first():
    found = time_embedding(torch.tensor([0.0, 700.25]), 5)
    angle = [700.25, 700.25 * math.exp(-math.log(10000) / 2)]
    expected = [[1, 1, 0, 0, 0], [*map(math.cos, angle), *map(math.sin, angle), 0]]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-4)


@pytest.mark.parametrize("new_order", [False, True])
def test_attention_is_the_formula_of_its_order(new_order):
    torch.manual_seed(0)
    block, heads, width = AttentionBlock(32, 2, new_order), 2, 16
    torch.nn.init.normal_(block.proj_out.weight, std=0.1)
    x = image(2, 32, 4, 3)
    qkv = block.qkv(block.norm(x).flatten(2))
    shape = (2, 3, heads, width, 12) if new_order else (2, heads, 3, width, 12)
    q, k, v = qkv.reshape(shape).unbind(1 if new_order else 2)
    weight = torch.einsum("bhct,bhcs->bhts", q, k).div(width**0.5).softmax(-1)
    expected = x + block.proj_out(torch.einsum("bhts,bhcs->bhct", weight, v).reshape(2, 32, 12)).reshape(x.shape)
    torch.testing.assert_close(block(x, torch.empty(0)), expected, rtol=0, atol=1e-5)


def test_checkpointing_changes_memory_and_not_gradients():
    x, t = image(2, 3, 8, 8), times(2)
    gradients = []
    for checkpoint in (False, True):
        net = awake(checkpoint=checkpoint, **ATTENDING).train()
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda s, kept=saved: kept.append(s.numel()) or s, lambda s: s):
            loss = net(x, t).square().mean()
        loss.backward()
        gradients.append(([p.grad for p in net.parameters()], sum(saved)))
    (plain, plain_memory), (recomputed, less_memory) = gradients
    for a, b in zip(plain, recomputed):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-7)
    assert less_memory < 0.5 * plain_memory


def kept_and_gradients(checkpoint):
    """Bytes kept inside the blocks after a forward pass, and the gradients; of the second batch of a shape."""
    net, x, t = awake(checkpoint=checkpoint, dropout=0.1, **ATTENDING).train(), image(2, 3, 16, 16), times(2)
    parameters = {p.untyped_storage().data_ptr() for p in net.parameters()}
    for _ in range(2):
        torch.manual_seed(0)
        net.zero_grad()
        kept = {}

        def keep(tensor, kept=kept):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = net(x, t).square().mean()
        loss.backward()
    return sum(size for key, size in kept.items() if key not in parameters), [p.grad for p in net.parameters()]


def test_checkpointing_to_a_budget_keeps_no_more_and_changes_no_gradient():
    every, gradients = kept_and_gradients(False)
    least, _ = kept_and_gradients(True)
    middle = (every - least) / 2
    kept, others = kept_and_gradients(middle / 2**30)
    assert least < kept <= least + middle, "some blocks recompute, not all of them"
    assert kept_and_gradients(1.0)[0] == every, "a budget that is large enough changes nothing"
    for a, b in zip(gradients, others):
        assert torch.equal(a, b)


def test_rounded_copies_of_weights_are_not_counted_as_activations():
    convolution, h, emb = torch.nn.Conv2d(64, 64, 1), image(1, 64, 2, 2), image(1, 8)
    assert kept_bytes(lambda h, emb: convolution(h).square(), h, emb) == 64 * 2 * 2 * 4, "what is squared"
    with torch.autocast("cpu", torch.bfloat16):
        found = kept_bytes(lambda h, emb: convolution(h).square(), h, emb)
    assert found == 2 * 64 * 2 * 2 * 2, "that and the input, rounded; not the weights, which are 8 KiB then"


def test_group_norm_is_evaluated_in_float32():
    norm, x = GroupNorm32(64).bfloat16(), (20 + image(1, 64, 8, 8)).bfloat16()
    expected = F.group_norm(x.float(), 32, torch.ones(64), torch.zeros(64), eps=1e-5)
    found = norm(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected.bfloat16())


def pixelwise(*shape: int, mean: float = 0.0) -> torch.Tensor:
    torch.manual_seed(0)
    return (torch.randn(*shape, dtype=torch.float64) + mean).to(memory_format=torch.channels_last)


def test_group_norm_in_channels_last_has_the_gradient_of_finite_differences():
    x = pixelwise(2, 4, 3, 2).requires_grad_()
    gain, offset = (torch.randn(2, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert is_pixelwise(x) and not is_pixelwise(x.contiguous())
    assert torch.autograd.gradcheck(PixelwiseGroupNorm.apply, (x, gain, offset, 2, 1e-5))
    expected = F.group_norm(x, 2, eps=1e-5) * gain[:, :, None, None] + offset[:, :, None, None]
    assert torch.allclose(PixelwiseGroupNorm.apply(x, gain, offset, 2, 1e-5), expected, rtol=0, atol=1e-14)


def test_group_norm_in_channels_last_is_exact_where_the_mean_is_large():
    norm, x, (scale, shift) = GroupNorm32(64), pixelwise(2, 64, 40, 40, mean=100), torch.randn(2, 2, 64).double()
    with torch.no_grad():
        found = norm(x.float(), shift.float(), scale.float())
        expected = copy.deepcopy(norm).double()(x.float().double().contiguous(), shift, scale)
    assert float((found - expected).abs().max()) < 5e-5, "torch's own kernel is a hundred times further from it"


def test_folding_can_be_forced_and_changes_no_result():
    x = image(2, 3, 8, 16)
    for options in (SMALL, ATTENDING):
        folded, plain = (awake(**options, fold_upsampling=fold) for fold in (None, False))
        operations = []
        for net in (folded, plain):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                net(x, times(2))
            operations.append(counter.get_total_flops())
        assert operations[0] < operations[1], "on a CPU it is the default"
        exact, found = plain.double()(x.double(), times(2)), folded.double()(x.double(), times(2))
        assert torch.allclose(found, exact, rtol=0, atol=1e-12 * float(exact.detach().abs().max()))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("height, width", [(1, 1), (3, 2), (8, 5)])
def test_a_convolution_of_the_doubled_image_is_one_transposed_convolution(height, width, layout):
    torch.manual_seed(0)
    x = torch.randn(2, 5, height, width, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    conv = torch.nn.Conv2d(5, 6, 3, padding=1).double().to(memory_format=layout)
    for up, own in ((Upsample(5, learned=False), conv), (Upsample(5, learned=True).double(), None)):
        with FlopCounterMode(display=False) as counter:
            found = up(x, own)
        with FlopCounterMode(display=False) as plain:
            expected = (own or up.conv)(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        assert torch.allclose(found, expected, rtol=0, atol=1e-13)
        assert 9 * counter.get_total_flops() == 4 * plain.get_total_flops()
        wanted = (x, *(own or up.conv).parameters())
        slopes = (torch.autograd.grad(y.square().sum(), wanted) for y in (found, expected))
        assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(*slopes))


def test_bf16_autocast_stays_near_float32_and_returns_it():
    net, x = awake(**ATTENDING), image(2, 3, 16, 16)
    with torch.no_grad():
        exact = net(x, times(2))
        with torch.autocast("cpu", torch.bfloat16):
            found = net(x, times(2))
    assert found.dtype == torch.float32
    assert 0 < float((found - exact).square().mean().sqrt()) < 0.02 * float(exact.std())


@pytest.mark.parametrize("options", [SMALL, ATTENDING], ids=["convolutional", "attending"])
def test_compiles_into_one_graph(options):
    net, x = awake(**options), image(2, 3, 9, 8)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, times(2)), net(x, times(2)), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"preset": "smal"}, r"network_g\.preset is 'smal'; did you mean small\?"),
        ({"model_channels": 48}, r"network_g\.model_channels 48 .* 48 channels; GroupNorm needs a multiple of 32"),
        ({"channel_mult": []}, r"network_g\.channel_mult is empty"),
        ({"channel_mult": [1, 0.25]}, r"channel_mult 0\.25 gives 8 channels"),
        ({"attention_ds": [3]}, r"network_g\.attention_ds has \[3\].*\[1, 2, 4, 8\]"),
        ({"attention_ds": [16]}, r"network_g\.attention_ds has \[16\]"),
        ({"attention_ds": [1], "num_head_channels": 24}, r"network_g\.num_head_channels is 24; it must divide"),
        ({"middle_attention": True, "num_head_channels": -1, "num_heads": 3}, r"network_g\.num_heads is 3"),
        ({"attention_ds": [1], "num_head_channels": -1, "num_heads_upsample": 5}, r"num_heads_upsample is 5"),
        ({"num_res_blocks": 0}, r"network_g\.num_res_blocks is 0; it must be 1 or more"),
        ({"dropout": 1.0}, r"network_g\.dropout is 1\.0; it must be in \[0, 1\)"),
        ({"in_channels": 0}, r"network_g\.in_channels is 0"),
        ({"checkpoint": -1.0}, r"network_g\.checkpoint is -1\.0; give true, false or a number of GiB"),
        ({"unshuffle": 3}, r"network_g\.unshuffle is 3; it must be 1, 2 or 4"),
        ({"unshuffle": 2, "full_size": -1}, r"network_g\.full_size is -1; it must be 0 or more"),
        ({"full_size": 8}, r"network_g\.full_size is 8, but with unshuffle 1 all layers are of full size"),
        ({"cond_channels": -1}, r"network_g\.cond_channels is -1; it must be 0 or more"),
    ],
)
def test_options_that_cannot_be_built_are_named(options, says):
    with pytest.raises(ValueError, match=says):
        ADMUNet(**{"preset": "tiny", **options})


@pytest.mark.parametrize(
    ("x", "t", "cond", "says"),
    [
        (image(1, 4, 8, 8), times(1), None, r"network_g\.in_channels is 3 .*\(1, 4, 8, 8\)"),
        (image(3, 8, 8), times(1), None, r"network_g\.in_channels is 3"),
        (image(2, 3, 8, 8), times(1), image(2, 1, 8, 8), r"times have shape \(1,\); a batch of 2"),
        (image(1, 3, 8, 8), times(1), None, r"network_g\.cond_channels is 1 but the condition has 0 channels"),
        (image(1, 3, 8, 8), times(1), image(1, 3, 8, 8), r"cond_channels is 1 but the condition has 3"),
        (image(1, 3, 8, 8), times(1), image(1, 1, 4, 4), r"condition is \(4, 4\) pixels, the image \(8, 8\)"),
    ],
)
def test_inputs_that_do_not_fit_are_named(x, t, cond, says):
    with pytest.raises(ValueError, match=says):
        ADMUNet(cond_channels=1, **SMALL)(x, t, cond)


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (3, 9)])
@pytest.mark.parametrize("mult", [[1], [1, 1], [1, 2], [1, 1, 2]])
def test_the_smallest_images_have_a_norm_too(size, mult):
    net = awake(preset="tiny", model_channels=32, channel_mult=mult)
    assert net(image(1, 3, *size), times(1)).isfinite().all()
