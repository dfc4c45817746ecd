"""Checkpoints as a finished run leaves them, made without training."""

import json
from pathlib import Path

import torch
import yaml

import basicsr_ext  # noqa: F401  (makes basicsr importable)

# isort: split
from basicsr.archs import build_network

BRIDGE = {
    "name": "bridge",
    "model_type": "I2SBModel",
    "scale": 1,
    "bridge": {"steps": 100},
    "network_g": {"type": "ADMUNet", "preset": "tiny", "channel_mult": [1, 1], "in_channels": 3, "out_channels": 3},
    "val": {"sampler": {"type": "ancestral", "nfe": 2}},
}
RRDB = {
    "name": "rrdb",
    "model_type": "ESRGANModel",
    "scale": 2,
    "network_g": {
        "type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "scale": 2, "num_feat": 8, "num_block": 1, "num_grow_ch": 4
    },
}  # fmt: skip
SWINIR = {
    "name": "swinir",
    "model_type": "SwinIRModel",
    "scale": 2,
    "network_g": {
        "type": "SwinIR", "upscale": 2, "in_chans": 3, "img_size": 16, "window_size": 8, "depths": [2],
        "num_heads": [2], "embed_dim": 12, "upsampler": "pixelshuffledirect",
    },
}  # fmt: skip


def weights(opt: dict, seed: int = 0) -> dict[str, torch.Tensor]:
    """Small random weights, none of them zero, so that the network's answer depends on its input."""
    from i2sb_plugin import plugin

    plugin.register()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = build_network(opt["network_g"])
        if hasattr(net, "out"):
            torch.nn.init.normal_(net.out[2].weight, std=0.05)
        return net.state_dict()


def run_folder(root: Path, opt: dict, head: str = "") -> Path:
    """Write experiments/<name> below ``root``: the option file and a network; returns the network's path."""
    folder = root / "experiments" / opt["name"]
    (folder / "models").mkdir(parents=True)
    (folder / f"{opt['name']}.yml").write_text(head + yaml.safe_dump(opt, sort_keys=False))
    path = folder / "models" / "net_g_latest.pth"
    ema = weights(opt)
    torch.save({"params": {k: v + 1 for k, v in ema.items()}, "params_ema": ema}, path)
    return path


def safetensors_file(root: Path, opt: dict) -> Path:
    """Write the network as a safetensors file with its configuration inside."""
    from safetensors.torch import save_file

    path = root / f"{opt['name']}.safetensors"
    save_file(weights(opt), path, {"config": json.dumps({k: v for k, v in opt.items() if k != "name"})})
    return path
