"""Training runs of a second, started through the command line in forks of one process that has imported everything."""

import contextlib
import copy
import json
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml

from basicsr_ext import cli, repairs
from basicsr_ext.checkpoints.resumable import check_save, resumable_iterations
from basicsr_ext.checkpoints.storage import load_weights
from basicsr_ext.common import plugins
from basicsr_ext.common.errors import InputError
from studies.reliability.runs.children import fork

RESULTS = Path(__file__).parents[1] / "results"
ITERATIONS = 12


def warm_up() -> None:
    """Import what a run imports, so that a fork starts at once; nothing is computed, so that no thread runs."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    repairs.apply()
    plugins.load_entry_points()


def write_images(root: Path, count: int = 7, size: int = 40) -> None:
    rng = np.random.default_rng(0)
    for folder in ("gt", "lq"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for k in range(count):
        image = cv2.resize(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8), (size, size))
        cv2.imwrite(str(root / "gt" / f"{k}.png"), image)
        cv2.imwrite(str(root / "lq" / f"{k}.png"), cv2.resize(image, (size // 2, size // 2)))


def options(root: Path, name: str, bridge: bool = False, workers: int = 0, **logger: object) -> dict:
    """SRModel with MSRResNet on BasicSR's paired data set, or I2SBModel with a one-level U-Net; saves each 2nd step."""
    data = {"dataroot_gt": str(root / "gt"), "io_backend": {"type": "disk"}}
    loader = {"gt_size": 32, "use_hflip": True, "use_rot": True, "batch_size_per_gpu": 2, "num_worker_per_gpu": workers}
    opt = {
        "name": name,
        "model_type": "SRModel",
        "scale": 2,
        "num_gpu": 0,
        "manual_seed": 5,
        "network_g": {"type": "MSRResNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1,
                      "upscale": 2},
        "path": {},
        "train": {
            "ema_decay": 0.9,
            "optim_g": {"type": "Adam", "lr": 1e-3},
            "scheduler": {"type": "CosineAnnealingRestartLR", "periods": [ITERATIONS], "restart_weights": [1]},
            "total_iter": ITERATIONS,
            "pixel_opt": {"type": "L1Loss"},
        },
        "val": {"val_freq": 4, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 2}}},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 2, "use_tb_logger": False, **logger},
    }  # fmt: skip
    block = {"type": "PairedImageDataset", "dataroot_lq": str(root / "lq"), **data}
    if bridge:
        block = {"type": "PairedDegradationDataset", "degradation": {"type": "sr4x_bicubic", "scale": 2}, **data}
        opt |= {"model_type": "I2SBModel", "bridge": {"steps": 20, "beta_max": 0.3}}
        opt["network_g"] = {"type": "ADMUNet", "preset": "tiny", "channel_mult": [1], "attention_ds": [],
                            "in_channels": 3, "out_channels": 3}  # fmt: skip
        del opt["train"]["pixel_opt"]
        opt["val"]["sampler"] = {"type": "ancestral", "nfe": 1}
    opt["datasets"] = {"train": {"name": "t", **block, **loader}, "val": {"name": "v", **block}}
    return opt


def write_options(root: Path, opt: dict) -> Path:
    path = root / f"{opt['name']}.yml"
    path.write_text(yaml.safe_dump(copy.deepcopy(opt), sort_keys=False))
    return path


def start(root: Path, path: Path, *flags: str) -> int:
    """Fork; the child runs ``basicsr train`` and writes what it says to ``<name>.out``. Returns its process id."""
    return fork(lambda: cli.main(["train", "-opt", str(path), *flags]), root, path.with_suffix(".out"))


def wait(child: int) -> int:
    """Exit code of a child, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(root: Path, path: Path, *flags: str) -> tuple[int, float]:
    """Run to the end: exit code and seconds."""
    begin = time.perf_counter()
    return wait(start(root, path, *flags)), time.perf_counter() - begin


def folders(root: Path, opt: dict) -> dict:
    """Options that the functions of ``resumable`` need to look at a run's folder."""
    run_folder = root / "experiments" / opt["name"]
    paths = {"models": str(run_folder / "models"), "training_states": str(run_folder / "training_states")}
    return {"network_g": {}, "path": paths}


def whole_saves(root: Path, opt: dict) -> set[int]:
    """Iterations whose save is whole: state and networks load, and every checksum is right."""
    here = folders(root, opt)
    states = Path(here["path"]["training_states"])
    found = set()
    for iteration in resumable_iterations(here):
        if (states / f"{iteration}.sha256").exists():
            with contextlib.suppress(InputError):
                check_save(here, iteration)
                found.add(iteration)
    return found


def final_weights(root: Path, opt: dict) -> dict[str, torch.Tensor]:
    """Weights and averaged weights at the end of a run."""
    path = root / "experiments" / opt["name"] / "models" / "net_g_latest.pth"
    return {f"{key}.{k}": v for key in ("params", "params_ema") for k, v in load_weights(path, key).items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """True if all weights are equal bit by bit."""
    return first.keys() == second.keys() and all(first[k].equal(second[k]) for k in first)


def store(path: Path, record: dict) -> None:
    """Write a result with the versions that it was measured with."""
    versions = {p: metadata.version(p) for p in ("torch", "numpy", "basicsr")} | {"python": platform.python_version()}
    path.parent.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python -m", f"studies.reliability.runs.{Path(sys.argv[0]).stem}", *sys.argv[1:]])
    text = json.dumps({"command": command, "versions": versions, **record}, indent=1)
    path.write_text(text + "\n")
    print(text)
