"""Every kind of network, inside the adapter or by itself, learns a bridge and restores an image of odd sides."""

import pytest
import torch
from torch.nn import functional as F

from basicsr_ext.common.errors import InputError
from basicsr_ext.options.file import load_yaml
from tests.support.models import built, make_batch
from tests.support.toolkit import OPTIONS

INSIDE = {
    "SwinIR": {"img_size": 16, "window_size": 8, "depths": [2], "num_heads": [2], "embed_dim": 12, "mlp_ratio": 2},
    "RRDBNet": {"num_feat": 16, "num_block": 1, "num_grow_ch": 8},
    "MSRResNet": {"num_feat": 16, "num_block": 1},
    "EDSR": {"num_feat": 16, "num_block": 1},
    "spandrel.DAT": {"embed_dim": 16, "depth": [2], "num_heads": [2], "split_size": [2, 4]},
}
NETWORKS = {
    name: {"type": "BridgeAdapter", "unshuffle": 2, "network": {"type": name, **options}}
    for name, options in INSIDE.items()
} | {
    "ConditionalNAFNet": {"type": "ConditionalNAFNet", "width": 8,
                          "encoder_blocks": [1, 1], "middle_blocks": 1, "decoder_blocks": [1, 1]},
    "ADMUNet fast": {"type": "ADMUNet", "preset": "fast", "channel_mult": [1, 1]},
}  # fmt: skip


def model(name, **changes):
    if name.startswith("spandrel."):
        pytest.importorskip("spandrel", reason="needs the extra `foreign`")
    network = {**NETWORKS[name], "cond_channels": 3}
    bridge = {"steps": 100, "cond_x1": True, "predicts": "x0"}
    given = {"network_g": network, "bridge": bridge, "val__sampler__nfe": 2, "train__optim_g__lr": 1e-2}
    return built("I2SBModel", **given, **changes)


@pytest.mark.parametrize("steps", [12, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NETWORKS)
def test_it_learns_and_restores_an_image_of_odd_sides(name, steps, tmp_path):
    net = model(name, path={"models": str(tmp_path), "training_states": str(tmp_path)})
    data, losses = make_batch(4, (8, 10)), []
    data["gt"] = F.interpolate(data["lq"], scale_factor=2)
    for k in range(1, steps + 1):
        torch.manual_seed(5)
        net.feed_data(data)
        net.optimize_parameters(k)
        losses.append(net.get_current_log()["l_bridge"])
    assert losses[-1] < (0.9 if steps == 12 else 0.6) * losses[0]
    odd = {"lq": torch.rand(1, 3, 9, 7), "lq_path": ["odd.png"]}
    net.feed_data(odd)
    net.test()
    assert net.output.shape == (1, 3, 18, 14) and bool(net.output.isfinite().all())
    net.save(0, steps)
    again = model(name, path={"pretrain_network_g": str(tmp_path / f"net_g_{steps}.pth")})
    again.feed_data(odd)
    again.test()
    assert torch.equal(again.output, net.output)


def swinir_light():
    return load_yaml(OPTIONS / "swinir_light_sr4x.yml")["network_g"]


def test_the_network_of_an_option_file_for_enlarging_says_what_to_leave_out():
    block = swinir_light()
    says = r"network_g\.network\.in_chans is 3, .* set it to 4, or leave it out; .*\.upscale is 4, .* leave it out"
    with pytest.raises(InputError, match=says):
        built("I2SBModel", network_g={"type": "BridgeAdapter", "network": block})
    left = {key: value for key, value in block.items() if key not in ("upscale", "in_chans")}
    net = built("I2SBModel", network_g={"type": "BridgeAdapter", "network": left})
    assert net.get_bare_model(net.net_g).multiple == block["window_size"]
