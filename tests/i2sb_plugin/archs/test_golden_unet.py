"""ADMUNet against outputs, names and shapes recorded from the authors' release."""

import pytest
import torch
from torch import nn

from i2sb_plugin.archs.adm_unet_arch import ADMUNet
from tests.support.golden import golden, golden_json, names, params, unet_options

FORWARDS = names("unet_u*.npz")


def recorded(name: str) -> tuple[ADMUNet, torch.Tensor, torch.Tensor, torch.Tensor | None, dict[str, torch.Tensor]]:
    data = {key: torch.from_numpy(value) for key, value in golden(name).items()}
    net = ADMUNet(**unet_options(params(name)["create_model"])).eval()
    net.load_state_dict({key[2:]: value for key, value in data.items() if key.startswith("w:")}, strict=True)
    cond = data["x"][:, 3:] if net.cond_channels else None
    return net, data["x"][:, :3], data["t"], cond, data


@pytest.mark.parametrize("name", names("unet_*.json"))
def test_names_shapes_and_order_are_those_of_the_published_weights(name):
    expected = golden_json(name)
    with torch.device("meta"):
        net = ADMUNet(**unet_options(expected["create_model_kwargs"]))
    state = {key: list(value.shape) for key, value in net.state_dict().items()}
    assert list(state.items()) == list(expected["state_dict"].items())
    assert [key for key, _ in net.named_parameters()] == list(state)
    assert sum(p.numel() for p in net.parameters()) == expected["n_params"]


@pytest.mark.parametrize(("options", "parameters"), [({}, 552_807_171), ({"cond_channels": 3}, 552_814_083)])
def test_adm256_has_566_tensors(options, parameters):
    with torch.device("meta"):
        net = ADMUNet(preset="adm256", **options)
    assert len(net.state_dict()) == 566
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("name", FORWARDS)
def test_forward_equals_the_release(name, layout):
    net, x, t, cond, data = recorded(name)
    with torch.no_grad():
        y = net.to(memory_format=layout)(x.contiguous(memory_format=layout), t, cond)
    torch.testing.assert_close(y, data["y"], rtol=0, atol=1e-3 if name == "unet_u1.npz" else 5e-4)
    assert float(y.std()) == pytest.approx(float(data["y"].std()), rel=1e-4)


@pytest.mark.parametrize("name", FORWARDS)
def test_half_precision_convolutions_stay_near_the_release_in_half_precision(name):
    net, x, t, cond, data = recorded(name)
    for part in (net.input_blocks, net.middle_block, net.output_blocks):
        for module in part.modules():
            if isinstance(module, (nn.Conv1d, nn.Conv2d)):
                module.half()
    with torch.no_grad():
        y = net(x, t, cond)
    assert y.dtype == torch.float32
    assert float((y - data["y_fp16_torso"]).square().mean().sqrt()) < 0.03 * float(data["y"].std())


@pytest.mark.parametrize("name", FORWARDS)
def test_the_other_attention_order_is_noticed(name):
    net, x, t, cond, data = recorded(name)
    for module in net.modules():
        if hasattr(module, "new_order"):
            module.new_order = not module.new_order
    with torch.no_grad():
        assert float((net(x, t, cond) - data["y"]).abs().max()) > 0.01
