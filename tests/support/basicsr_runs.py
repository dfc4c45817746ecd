"""Small real runs of BasicSR's train_pipeline for the tests: random images, a tiny MSRResNet, few iterations."""

import copy
import json
import os
import signal
import subprocess
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np

from tests.support.cli_runs import LOADER, METRICS, NETWORK, PIXEL_LOSS
from tests.support.toolkit import apart


def write_images(folder: Path, count: int, size: int, seed: int = 0) -> Path:
    """Write smooth random PNGs."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for k in range(count):
        small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        image = cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{k:03d}.png"), image)
    return folder


def options(root: Path, name: str = "run", total_iter: int = 6, images: int = 5, **train) -> dict:
    """Options of a run as parse_options gives them; the images are written on first use."""
    for scale, size in (("gt", 32), ("lq", 16)):
        if not (root / scale).exists():
            write_images(root / scale, images, size)
    paired = {
        "type": "PairedImageDataset",
        "dataroot_gt": str(root / "gt"),
        "dataroot_lq": str(root / "lq"),
        "io_backend": {"type": "disk"},
        "scale": 2,
    }
    run = root / "experiments" / name
    folders = {"models": run / "models", "training_states": run / "training_states", "log": run, "visualization": run}
    opt = {
        "name": name,
        "model_type": "SRModel",
        "scale": 2,
        "num_gpu": 0,
        "manual_seed": 3,
        "dist": False,
        "rank": 0,
        "world_size": 1,
        "auto_resume": False,
        "is_train": True,
        "dist_params": {},
        "datasets": {
            "train": {"name": "t", "phase": "train", **paired, **LOADER},
            "val": {"name": "v", "phase": "val", **paired},
        },
        "network_g": {**NETWORK, "num_feat": 8},
        "path": {
            "experiments_root": str(run),
            **{k: str(v) for k, v in folders.items()},
            "pretrain_network_g": None,
            "vgg_weights": str(root / "vgg.pth"),
        },
        "train": {
            "ema_decay": 0.9,
            "optim_g": {"type": "AdamW", "lr": 1e-3, "betas": [0.9, 0.99]},
            "scheduler": {"type": "MultiStepLR", "milestones": [4], "gamma": 0.5},
            "total_iter": total_iter,
            "warmup_iter": -1,
            "pixel_opt": PIXEL_LOSS,
            **train,
        },
        "val": {"val_freq": 1000, "save_img": False, "metrics": METRICS},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 2, "use_tb_logger": False, "wandb": None},
    }
    return copy.deepcopy(opt)


def train(opt: dict, root: Path, kill_at: int | None = None, ranks: int = 0) -> subprocess.CompletedProcess:
    """Run train_pipeline on the options in a process of its own, or in ``ranks`` processes that form a group."""
    opt = {**copy.deepcopy(opt), "dist": ranks > 0}
    return apart(_pipeline, opt, kill_at, processes=max(1, ranks), folder=root)


def _pipeline(opt: dict, kill_at: int | None) -> None:
    import basicsr.train
    from basicsr.models.base_model import BaseModel
    from basicsr.utils import set_random_seed
    from basicsr.utils.dist_util import get_dist_info, init_dist

    if opt["dist"]:
        init_dist("pytorch", **opt["dist_params"])
    opt["rank"], opt["world_size"] = get_dist_info()
    set_random_seed(opt["manual_seed"] + opt["rank"])
    update = BaseModel.update_learning_rate

    def updating(self, current_iter, **settings):
        if current_iter == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        update(self, current_iter, **settings)

    Path("options.yml").write_text(json.dumps(opt))
    BaseModel.update_learning_rate = updating
    basicsr.train.parse_options = lambda *_args, **_options: (opt, Namespace(opt="options.yml"))
    basicsr.train.train_pipeline(os.getcwd())


def train_here(opt: dict, root: Path, monkeypatch, auto_resume: bool = False) -> str:
    """Run train_pipeline on the options in this process; the text of its log."""
    from basicsr_ext import repairs

    repairs.apply()
    import basicsr.train
    from basicsr.utils import set_random_seed

    opt = {**copy.deepcopy(opt), "auto_resume": auto_resume}
    (root / "options.yml").write_text(json.dumps(opt))
    set_random_seed(opt["manual_seed"])
    parsed = opt, Namespace(opt=str(root / "options.yml"))
    monkeypatch.setattr(basicsr.train, "parse_options", lambda *_args, **_options: parsed)
    basicsr.train.train_pipeline(str(root))
    return max(Path(opt["path"]["log"]).glob("train_*.log"), key=lambda p: p.stat().st_mtime_ns).read_text()


def model_of(opt: dict):
    """The model that these options make, in folders that exist."""
    from basicsr_ext import repairs

    repairs.apply()
    from basicsr.models import build_model

    for key in ("models", "training_states"):
        Path(opt["path"][key]).mkdir(parents=True, exist_ok=True)
    return build_model(opt)
