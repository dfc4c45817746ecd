"""Small real runs of BasicSR's train_pipeline for the tests: random images, a tiny MSRResNet, few iterations."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

SCRIPT = """
import json, os, sys
from argparse import Namespace
from basicsr_ext import repairs
repairs.apply()
import basicsr.train
from basicsr.utils import set_random_seed
from basicsr.utils.dist_util import get_dist_info, init_dist

def parse(root_path, is_train=True):
    opt = json.load(open(sys.argv[1]))
    opt['auto_resume'] = '--auto_resume' in sys.argv
    if opt['dist']:
        init_dist('pytorch', **opt['dist_params'])
    opt['rank'], opt['world_size'] = get_dist_info()
    set_random_seed(opt['manual_seed'] + opt['rank'])
    if '--kill' in sys.argv:
        from basicsr.models.base_model import BaseModel
        update = BaseModel.update_learning_rate
        def killed_at_5(self, current_iter, **kwargs):
            if current_iter == 5:
                os.kill(os.getpid(), 9)
            update(self, current_iter, **kwargs)
        BaseModel.update_learning_rate = killed_at_5
    return opt, Namespace(opt=sys.argv[1])

if __name__ == '__main__':
    basicsr.train.parse_options = parse
    basicsr.train.train_pipeline(os.path.dirname(sys.argv[1]))
"""


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
    loader = {
        "gt_size": 16,
        "use_hflip": True,
        "use_rot": True,
        "num_worker_per_gpu": 0,
        "batch_size_per_gpu": 2,
        "dataset_enlarge_ratio": 1,
    }
    run = root / "experiments" / name
    folders = {"models": run / "models", "training_states": run / "training_states", "log": run, "visualization": run}
    return {
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
            "train": {"name": "t", "phase": "train", **paired, **loader},
            "val": {"name": "v", "phase": "val", **paired},
        },
        "network_g": {
            "type": "MSRResNet",
            "num_in_ch": 3,
            "num_out_ch": 3,
            "num_feat": 8,
            "num_block": 1,
            "upscale": 2,
        },
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
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
            **train,
        },
        "val": {
            "val_freq": 1000,
            "save_img": False,
            "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 2, "test_y_channel": False}},
        },
        "logger": {"print_freq": 1, "save_checkpoint_freq": 2, "use_tb_logger": False, "wandb": None},
    }


def train(opt: dict, root: Path, flags: tuple[str, ...] = (), ranks: int = 0) -> subprocess.CompletedProcess:
    """Run train_pipeline on the options in a process of its own, or under torchrun in ``ranks`` processes."""
    opt = copy.deepcopy(opt)
    opt["dist"] = ranks > 0
    (root / "run.py").write_text(SCRIPT)
    (root / f"{opt['name']}.json").write_text(json.dumps(opt))
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks else []
    command = [sys.executable, *launcher, str(root / "run.py"), str(root / f"{opt['name']}.json"), *flags]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)


def train_here(opt: dict, root: Path, monkeypatch, auto_resume: bool = False) -> str:
    """Run train_pipeline on the options in this process; the text of its log."""
    from argparse import Namespace

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
