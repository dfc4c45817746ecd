"""What a run of the release was trained for: from its options to ours, and to an option file that tests it."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from basicsr_ext.common.errors import InputError, did_you_mean
from i2sb_plugin.bridge import RELEASED_TIMES

__all__ = ["TASKS", "bridge_configuration", "option_file", "paper_options", "release_options"]

# The release's --corrupt: degradation, and the size of x0 divided by that of lq.
TASKS: dict[str, tuple[dict[str, Any], int]] = {
    "jpeg-5": ({"type": "jpeg", "quality": 5}, 1),
    "jpeg-10": ({"type": "jpeg", "quality": 10}, 1),
    "blur-uni": ({"type": "blur_released_uniform"}, 1),
    "blur-gauss": ({"type": "blur_released_gauss"}, 1),
    "sr4x-pool": ({"type": "sr4x_pool"}, 4),
    "sr4x-bicubic": ({"type": "sr4x_bicubic"}, 4),
    "inpaint-center": ({"type": "inpaint_center"}, 1),
    "inpaint-freeform1020": ({"type": "inpaint_freeform", "area": [0.1, 0.2]}, 1),
    "inpaint-freeform2030": ({"type": "inpaint_freeform", "area": [0.2, 0.3]}, 1),
    "mixture": ({"type": "mixture"}, 1),
}
# Keys of options.pkl that decide what the weights mean -> type, and the value that the paper's runs have.
_MEANING: dict[str, tuple[Any, Any]] = {
    "corrupt": (str, None),
    "image_size": (int, 256),
    "interval": (int, 1000),
    "beta_max": ((float, int), 0.3),
    "t0": ((float, int), RELEASED_TIMES[0]),
    "T": ((float, int), RELEASED_TIMES[1]),
    "ot_ode": (bool, False),
    "cond_x1": (bool, False),
    "add_x1_noise": (bool, False),
}


def paper_options(corrupt: str) -> dict[str, Any]:
    """The options that the paper trained a task with, for weights without ``options.pkl`` (I2SB section 4.1)."""
    _check_task(corrupt, "--corrupt")
    noiseless = corrupt.startswith(("blur", "inpaint"))
    options = {name: value for name, (_, value) in _MEANING.items()}
    return options | {"corrupt": corrupt, "ot_ode": noiseless, "beta_max": 1.0 if noiseless else 0.3}


def _check_task(corrupt: object, where: str) -> None:
    if corrupt not in TASKS:
        raise InputError(f"{where} is {corrupt!r}, which is no task of the release; {did_you_mean(corrupt, TASKS)}")


def bridge_configuration(options: Mapping[str, Any], cond_channels: int, source: str) -> dict[str, Any]:
    """Turn the release's options into ours: ``model_type``, ``scale``, ``bridge``, and the task under ``released``.

    Args:
        options: content of ``options.pkl``.
        cond_channels: of the network; must be there if and only if the run says ``cond_x1``.
        source: the file, for messages.

    Raises:
        InputError: An option is missing, of another type, or has a value that the release's grid here does not cover.

    """
    for name, (kind, _) in _MEANING.items():
        value = options.get(name)
        right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if not right:
            raise InputError(f"{source}: {name} is {value!r}; this is no options file of I2SB's release")
    _check_task(options["corrupt"], f"{source}: corrupt")
    times = {name: float(options[name]) for name in ("t0", "T")}
    if not 0 <= times["t0"] < times["T"] < float("inf"):
        raise InputError(f"{source}: t0 is {options['t0']} and T {options['T']}; they must rise from 0 to T")
    if options["interval"] < 2 or options["interval"] % 2 or options["beta_max"] <= 0 or options["image_size"] < 1:
        raise InputError(
            f"{source}: interval is {options['interval']}, beta_max {options['beta_max']}, image_size "
            f"{options['image_size']}; the release trains with an even interval and positive numbers"
        )
    if options["cond_x1"] != (cond_channels > 0):
        raise InputError(
            f"{source}: cond_x1 is {options['cond_x1']} but the network has {cond_channels} channels for a condition; "
            "the options belong to another checkpoint"
        )
    bridge = {"schedule": "released", "steps": options["interval"], "beta_max": float(options["beta_max"])}
    bridge |= {"ot_ode": options["ot_ode"], "lift": "nearest", "cond_x1": options["cond_x1"]}
    bridge |= {"add_x1_noise": True} if options["add_x1_noise"] else {}
    bridge |= times if tuple(times.values()) != RELEASED_TIMES else {}
    degradation, scale = TASKS[options["corrupt"]]
    task = {"corrupt": options["corrupt"], "image_size": options["image_size"], "degradation": dict(degradation)}
    return {"model_type": "I2SBModel", "scale": scale, "bridge": bridge, "released": task}


def release_options(configuration: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Options as the release pickles them beside ``latest.pt``: what the weights mean, and its settings elsewhere."""
    bridge, task = configuration["bridge"], configuration["released"]
    meaning = {
        "corrupt": task["corrupt"],
        "image_size": task["image_size"],
        "interval": bridge["steps"],
        "beta_max": bridge["beta_max"],
        "t0": bridge.get("t0", RELEASED_TIMES[0]),
        "T": bridge.get("T", RELEASED_TIMES[1]),
        "ot_ode": bridge["ot_ode"],
        "cond_x1": bridge["cond_x1"],
        "add_x1_noise": bridge.get("add_x1_noise", False),
    }
    rest: dict[str, Any] = {"batch_size": 256, "microbatch": 2, "num_itr": 1000000, "lr": 5e-5, "lr_gamma": 0.99}
    rest |= {"lr_step": 1000, "l2_norm": 0.0, "ema": 0.99, "clip_denoise": False, "use_fp16": False}
    rest |= {"device": "cuda", "seed": 0, "name": name, "ckpt": None, "load": None, "gpu": None, "distributed": False}
    rest |= {"n_gpu_per_node": 1, "master_address": "localhost", "node_rank": 0, "num_proc_node": 1, "global_rank": 0}
    rest |= {"local_rank": 0, "global_size": 1, "log_writer": None, "wandb_api_key": None, "wandb_user": None}
    rest |= {"dataset_dir": Path("/dataset"), "log_dir": Path(".log"), "ckpt_path": Path("results") / name}
    return {**meaning, **rest}


_OPTION_FILE = """\
# Tests weights of I2SB's release ({corrupt}) on scikit-image's photographs: basicsr test -opt {file}
name: {name}
model_type: I2SBModel
scale: {scale}
num_gpu: auto  # every GPU there is, or the CPU
manual_seed: 0

datasets:
  test:
    name: photographs
    type: PairedDegradationDataset
    dataroot_gt: sample:val  # or a folder of your own
    resize: {image_size}  # shorter side, then the centre square, as the release does
    degradation: {degradation}

bridge: {bridge}

network_g: {network_g}

path:
  pretrain_network_g: {weights}
  strict_load_g: true
  param_key_g: params_ema

val:
  save_img: true
  pbar: true
  batch_size: 4
  sampler: {{type: ancestral, nfe: {nfe}, clip: true}}
  metrics:
    psnr: {{type: calculate_psnr, crop_border: 0}}
    ssim: {{type: calculate_ssim, crop_border: 0}}
"""


def option_file(configuration: Mapping[str, Any], weights: Path, file: Path) -> str:
    """Text of an option file that tests ``weights``; ``file`` is what it will be called."""

    def inline(block: Mapping[str, Any]) -> str:
        return yaml.safe_dump(dict(block), default_flow_style=True, sort_keys=False, width=10**6).strip()

    task = configuration["released"]
    return _OPTION_FILE.format(
        corrupt=task["corrupt"],
        file=PurePosixPath(file.as_posix()),
        name=f"test_{weights.stem}",
        scale=configuration["scale"],
        image_size=task["image_size"],
        degradation=inline(task["degradation"]),
        bridge=inline(configuration["bridge"]),
        network_g=inline(configuration["network_g"]),
        weights=yaml.safe_dump(weights.as_posix(), width=10**6).split("\n")[0],
        nfe=min(10, configuration["bridge"]["steps"] - 1),
    )
