"""A tiny option file on real image files, and the command line run in this process."""

import copy
from pathlib import Path

import cv2
import numpy as np
import yaml

from basicsr_ext import cli

LOADER = {
    "gt_size": 16,
    "use_hflip": True,
    "use_rot": True,
    "num_worker_per_gpu": 0,
    "batch_size_per_gpu": 2,
    "dataset_enlarge_ratio": 1,
}
NETWORK = {"type": "MSRResNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 2}
PIXEL_LOSS = {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"}
METRICS = {"psnr": {"type": "calculate_psnr", "crop_border": 2, "test_y_channel": False}}


def write_images(folder: Path, count: int, size: int, channels: int = 3, seed: int = 0) -> Path:
    """Write ``count`` PNGs named 0.png, 1.png, ..."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for k in range(count):
        shape = (size, size, channels) if channels > 1 else (size, size)
        cv2.imwrite(str(folder / f"{k}.png"), rng.integers(0, 256, shape, dtype=np.uint8))
    return folder


def paired(root: Path, part: str, count: int = 4, size: int = 32, scale: int = 2) -> dict:
    """Options of a PairedImageDataset whose images are written below ``root``."""
    return {
        "name": part,
        "type": "PairedImageDataset",
        "dataroot_gt": str(write_images(root / part / "gt", count, size)),
        "dataroot_lq": str(write_images(root / part / "lq", count, size // scale)),
        "io_backend": {"type": "disk"},
    }


def options(root: Path) -> dict:
    """A run of MSRResNet of four iterations; the images lie in ``root``/data."""
    data = root / "data"
    opt = {
        "name": "tiny",
        "model_type": "SRModel",
        "scale": 2,
        "num_gpu": "auto",
        "manual_seed": 1,
        "datasets": {"train": paired(data, "train") | LOADER, "val": paired(data, "val", count=2)},
        "network_g": NETWORK,
        "path": {"pretrain_network_g": None, "strict_load_g": True, "resume_state": None},
        "train": {
            "ema_decay": 0.9,
            "optim_g": {"type": "Adam", "lr": 2e-4, "weight_decay": 0, "betas": [0.9, 0.99]},
            "scheduler": {"type": "CosineAnnealingRestartLR", "periods": [4], "restart_weights": [1]},
            "total_iter": 4,
            "warmup_iter": -1,
            "pixel_opt": PIXEL_LOSS,
        },
        "val": {
            "val_freq": 2,
            "save_img": False,
            "metrics": METRICS,
        },
        "logger": {"print_freq": 1, "save_checkpoint_freq": 2, "use_tb_logger": False},
    }
    return copy.deepcopy(opt)


def bridge_options(root: Path) -> dict:
    """The same for I2SBModel on clean images that are degraded on the fly."""
    opt = options(root)
    for block in opt["datasets"].values():
        del block["dataroot_lq"]
        block |= {"type": "PairedDegradationDataset", "degradation": {"type": "sr4x_bicubic", "scale": 2}}
    opt |= {
        "model_type": "I2SBModel",
        "bridge": {"steps": 20, "beta_max": 0.3},
        "network_g": {"type": "ADMUNet", "preset": "tiny", "in_channels": 3, "out_channels": 3},
    }
    del opt["train"]["pixel_opt"]
    opt["val"]["sampler"] = {"type": "ancestral", "nfe": 2}
    return opt


def write(root: Path, opt: dict, name: str = "tiny.yml") -> Path:
    """Write an option file."""
    path = root / name
    path.write_text(yaml.safe_dump(copy.deepcopy(opt), sort_keys=False))
    return path


def files_below(root: Path) -> set[Path]:
    """Every file and folder below ``root``."""
    return set(root.rglob("*"))


def run(capsys, *words) -> tuple[int, str, str]:
    """Run the command line here; its exit code, stdout and stderr."""
    code = cli.main([str(word) for word in words])
    said = capsys.readouterr()
    return code, said.out, said.err
