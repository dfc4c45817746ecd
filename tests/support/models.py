"""A tiny model of the package as BasicSR builds it for training, and a batch for it."""

import copy

import torch

from basicsr_ext import repairs

repairs.apply()

from basicsr.models import build_model  # noqa: E402

from i2sb_plugin import plugin  # noqa: E402

plugin.register()

OPTIONS = {
    "name": "t",
    "scale": 2,
    "num_gpu": 0,
    "dist": False,
    "rank": 0,
    "world_size": 1,
    "is_train": True,
    "manual_seed": 0,
    "network_g": {"type": "ADMUNet", "preset": "tiny", "channel_mult": [1, 1]},
    "path": {},
    "train": {
        "total_iter": 10,
        "ema_decay": 0.9,
        "optim_g": {"type": "AdamW", "lr": 1e-3},
        "scheduler": {"type": "MultiStepLR", "milestones": [100], "gamma": 0.5},
    },
    "val": {},
    "logger": {},
}


def model_options(model_type, **changes):
    """Options of a model; ``train__optim_g__lr=1e-4`` sets ``train: {optim_g: {lr: 1e-4}}``."""
    opt = copy.deepcopy(OPTIONS) | {"model_type": model_type}
    for path, value in changes.items():
        *keys, last = path.split("__")
        block = opt
        for key in keys:
            block = block.setdefault(key, {})
        block[last] = value
    return opt


def built(model_type, **changes):
    """The model of these options, with the same first weights each time."""
    torch.manual_seed(0)
    return build_model(model_options(model_type, **changes))


def predicting(net):
    """Give the network, whose last layer starts at zero, something to say; returns its model."""
    torch.nn.init.normal_(net.net_g.out[2].weight, std=0.05, generator=torch.Generator().manual_seed(2))
    return net


def make_batch(size=2, low=(8, 8), channels=3, masked=False):
    """Images whose clean side is twice ``low``; ``masked``: a degraded image of that size too, with a hole."""
    generator = torch.Generator().manual_seed(1)
    high = [2 * side for side in low]
    names = [f"{k}.png" for k in range(size)]
    found = {"lq": torch.rand(size, channels, *(high if masked else low), generator=generator), "lq_path": names}
    found |= {"gt": torch.rand(size, channels, *high, generator=generator), "gt_path": names}
    if masked:
        found["mask"] = torch.zeros(size, 1, *high)
        found["mask"][..., 4:8, 4:10] = 1
    return found


def generators(*seeds):
    """A random generator for each image."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]
