"""Every task of the paper, and those beyond it: train, test and restore real photographs by the commands."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from basicsr_ext import cli
from basicsr_ext.images.decode import decode_image
from i2sb_plugin import space
from i2sb_plugin.data.paired_degradation_dataset import PairedDegradationDataset
from i2sb_plugin.data.paired_folder_dataset import PairedFolderDataset
from i2sb_plugin.data.photographs import prepare
from i2sb_plugin.degradations.masks import draw_mask
from tests.support.image_files import write_image
from tests.support.toolkit import OPTIONS

# One of each kind: a scale, a hole to fill, folders of pairs. The others are slow.
FAST = ("sr4x_pool", "inpaint_center", "translation_from_grey")
SIDE = 96  # of the photographs that are restored, pixels


@dataclass(frozen=True)
class Task:
    """What is trained, and by how much the result must be better."""

    degradation: dict | None  # None: from folders
    gain: float  # dB, or units of CIELAB for colours
    measure: str = "psnr"
    iterations: int = 120
    batch: int = 4
    rate: float = 2e-3
    train: str = "train"  # the folder of photographs
    folders: dict = field(default_factory=dict)  # option of the data set -> kind of image
    channels: int = 3  # of the images in the folder of lq
    example: int = 0  # the image that is restored by itself
    nfe: int = 1
    bridge: dict = field(default_factory=dict)
    loss: dict = field(default_factory=dict)
    network: dict = field(default_factory=dict)


def freeform(low, high):
    return {"type": "inpaint_freeform", "area": [low, high]}


HOLE = {"measure": "hole", "loss": {"per_hole": True}}
COLOUR = {"cond_x1": True, "add_x1_noise": True, "predicts": "x0"}
TASKS = {
    "jpeg_5": Task({"type": "jpeg", "quality": 5}, gain=0.3),
    "jpeg_10": Task({"type": "jpeg", "quality": 10}, gain=0.3),
    "sr4x_pool": Task({"type": "sr4x_pool"}, gain=0.3, bridge={"lift": "nearest"}),  # the release's start
    "sr4x_bicubic": Task({"type": "sr4x_bicubic"}, gain=0.05, iterations=200, rate=4e-3),  # against bicubic
    "blur_uniform": Task({"type": "blur_uniform"}, gain=0.2, iterations=200, rate=4e-3),
    "blur_gauss": Task({"type": "blur_gauss"}, gain=0.5),
    "blur_released_uniform": Task({"type": "blur_released_uniform"}, gain=1),
    "blur_released_gauss": Task({"type": "blur_released_gauss"}, gain=1),
    "inpaint_center": Task({"type": "inpaint_center"}, gain=5, **HOLE),
    "inpaint_freeform_10_20": Task(freeform(0.1, 0.2), gain=5, nfe=2, **HOLE),
    "inpaint_freeform_20_30": Task(freeform(0.2, 0.3), gain=5, nfe=2, **HOLE),
    "mixture": Task({"type": "mixture"}, gain=0.3, iterations=240, example=7),
    "translation": Task(
        None, 3, train="tiles", folders={"lq": "edges"}, bridge={"cond_x1": True}, network={"cond_channels": 3}
    ),
    "translation_from_grey": Task(
        None,
        3,
        "psnr",
        80,
        train="tiles",
        folders={"lq": "edges"},
        channels=1,
        bridge={"cond_x1": True},
        network={"cond_channels": 1},
    ),
    "condition": Task(
        None,
        8,
        "psnr",
        80,
        train="tiles",
        folders={"lq": "edges", "cond": "grey"},
        bridge={"predicts": "x0"},
        network={"cond_channels": 3},
    ),
    "own_masks": Task(None, 4, train="tiles", folders={"lq": "holed", "mask": "masks"}, **HOLE),
    "denoising": Task({"type": "noise_gauss", "sigma": 0.098}, gain=3),
    "colourisation": Task(
        {"type": "decolor"}, 3, "colour", train="near", example=3, bridge=COLOUR, network={"cond_channels": 3}
    ),
}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Folders: train; tiles of it; small, squares of others; near, their rest; and what is made of tiles and small."""
    root = prepare(tmp_path_factory.mktemp("photographs") / "all")
    for path in sorted((root / "val").glob("*.png")):
        image = decode_image(path.read_bytes(), str(path))  # 288 x 288
        write_image(root / "near" / path.name, image[:, :-SIDE])
        for k in range(3):
            write_image(root / "small" / f"{path.stem}_{k}.png", image[:, -SIDE:, k * SIDE : (k + 1) * SIDE])
    for path in sorted((root / "train").glob("*.png")):
        image = decode_image(path.read_bytes(), str(path))
        write_image(root / "tiles" / path.name, image[:, 100:228, 100:228])
    for part in ("tiles", "small"):
        for number, path in enumerate(sorted((root / part).glob("*.png"))):
            for kind, image in made_of(cv2.imread(str(path)), number).items():
                (root / f"{part}_{kind}").mkdir(exist_ok=True)
                cv2.imwrite(str(root / f"{part}_{kind}" / path.name), image)
    return root


def made_of(photograph, number):
    grey = cv2.cvtColor(photograph, cv2.COLOR_BGR2GRAY)
    hole = draw_mask(*grey.shape, (0.15, 0.25), np.random.default_rng(number)) * 255
    holed = cv2.bitwise_or(photograph, cv2.merge([hole] * 3))
    return {"edges": 255 - cv2.Canny(grey, 100, 200), "grey": grey, "masks": hole, "holed": holed}


def data_block(task, root, part, **more):
    block = {"name": part, "dataroot_gt": str(root / part), "io_backend": {"type": "disk"}, **more}
    if task.degradation is None:
        roots = {f"dataroot_{option}": str(root / f"{part}_{kind}") for option, kind in task.folders.items()}
        channels = {"channels_lq": task.channels, "grey_to_rgb": True} | (
            {"channels_cond": 3} if "cond" in task.folders else {}
        )
        return {**block, **roots, **channels, "type": "PairedFolderDataset"}
    return {**block, "type": "PairedDegradationDataset", "degradation": task.degradation}


def options(task, name, root):
    """The file of the first example, with the task's data and a small network."""
    opt = yaml.safe_load((OPTIONS / "i2sb_sr4x_plain.yml").read_text())
    scale = 4 if name.startswith("sr4x") else 1
    train = {"gt_size": 32, "use_hflip": True, "use_rot": True, "num_worker_per_gpu": 0, "dataset_enlarge_ratio": 1000}
    train |= {"batch_size_per_gpu": task.batch} | ({"cache": True} if task.degradation else {})
    opt |= {"name": name, "scale": scale, "num_gpu": 0}
    opt["datasets"] = {"train": data_block(task, root, task.train, **train), "val": data_block(task, root, "small")}
    opt["bridge"] |= {"steps": 2, **task.bridge}
    opt["network_g"] |= {"channel_mult": [1], "attention_ds": [], **task.network}
    opt["train"] |= {"total_iter": task.iterations, "warmup_iter": 10, "ema_decay": 0.99}
    opt["train"]["bridge_opt"] |= task.loss
    opt["train"]["optim_g"]["lr"] = task.rate
    opt["train"]["scheduler"]["periods"] = [task.iterations]
    opt["val"] |= {"val_freq": 100000, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}}
    opt["val"]["sampler"]["nfe"] = task.nfe
    opt["logger"] |= {"print_freq": 50, "save_checkpoint_freq": 100000, "use_tb_logger": False}
    return opt


def validation_items(opt):
    block = {**opt["datasets"]["val"], "scale": opt["scale"], "phase": "val"}
    cls = PairedFolderDataset if block["type"] == "PairedFolderDataset" else PairedDegradationDataset
    return list(cls(block))


def psnr(image, gt, where=None):
    error = (image - gt).square().mean(0, keepdim=True)
    return -10 * torch.log10(error.mean() if where is None else error[where].mean()).item()


def colour_error(image, gt):
    """Mean distance of the colours alone, in the plane of a and b of CIELAB."""
    planes = [cv2.cvtColor(x.permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2LAB)[..., 1:] for x in (image, gt)]
    return float(np.linalg.norm(planes[0] - planes[1], axis=-1).mean())


def quality(task, image, item):
    """PSNR in dB, of the hole alone if that is the task, or minus the error of the colours."""
    if task.measure == "colour":
        return -colour_error(image, item["gt"])
    return psnr(image, item["gt"], item["mask"].bool() if task.measure == "hole" else None)


def start(opt, item):
    """What is restored, at the size of the result: x1 without its noise."""
    return space.lift(item["lq"][None], opt["scale"], opt["bridge"]["lift"])[0]


def restore(name, item):
    """The result of the command for the one image of ``item``."""
    write_image("given/image.png", item["lq"])
    arguments = ["-i", "given/image.png", "-o", "restored", "--device", "cpu"]
    if "mask" in item:
        write_image("mask.png", item["mask"])
        arguments += ["--mask", "mask.png"]
    checkpoint = f"experiments/{name}/models/net_g_latest.pth"
    assert cli.main(["restore", *arguments, "--checkpoint", checkpoint]) == 0
    return read("restored/image.png")


def read(path):
    return decode_image(Path(path).read_bytes(), str(path))


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in TASKS])
def test_what_is_restored_is_better_than_what_was_given(name, photographs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = TASKS[name]
    opt = options(task, name, photographs)
    Path("task.yml").write_text(yaml.safe_dump(opt))
    assert cli.main(["train", "-opt", "task.yml"]) == 0
    assert cli.main(["test", "-opt", "task.yml"]) == 0
    items = validation_items(opt)
    records = json.loads(Path(f"results/{name}/metrics.json").read_text())["datasets"]["small"]["images"]
    before = [quality(task, start(opt, item), item) for item in items]
    after = [quality(task, read(record["file"]), item) for record, item in zip(records, items, strict=True)]
    assert np.mean(after) - np.mean(before) > task.gain
    if "cond" not in task.folders:  # the command takes no condition images
        restored = restore(name, items[task.example])
        assert quality(task, restored, items[task.example]) > before[task.example]
