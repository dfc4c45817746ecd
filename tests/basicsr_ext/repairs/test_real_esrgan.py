"""Real-ESRGAN, of BasicSR and of the published package, trains without a GPU and stands beside I2SB in a benchmark."""

import importlib.util
import json

import cv2
import pytest
import torch
import yaml
from skimage import data

from basicsr_ext import cli, repairs

repairs.apply()

from basicsr.models.base_model import BaseModel  # noqa: E402
from basicsr.models.realesrgan_model import RealESRGANModel  # noqa: E402

from basicsr_ext.common.errors import InputError  # noqa: E402
from tests.support.toolkit import OPTIONS  # noqa: E402
from tests.support.trained import BRIDGE, run_folder  # noqa: E402

PUBLISHED = importlib.util.find_spec("realesrgan") is not None
SMALL = [
    "num_gpu=0", "gt_size=32", "queue_size=2", "datasets:train:gt_size=32", "datasets:train:dataroot_gt=gt",
    "datasets:train:meta_info=names.txt", "datasets:train:num_worker_per_gpu=0", "datasets:train:batch_size_per_gpu=1",
    "network_g:num_feat=8", "network_g:num_block=1", "network_g:num_grow_ch=4", "network_d:num_feat=8",
    "train:total_iter=4", "logger:print_freq=1", "logger:save_checkpoint_freq=4", "path:param_key_g=~",
]  # fmt: skip


@pytest.mark.parametrize(
    "plugin",
    [None, pytest.param("realesrgan", marks=pytest.mark.skipif(not PUBLISHED, reason="realesrgan is not installed"))],
)
def test_it_trains_and_is_measured_beside_i2sb(tmp_path, monkeypatch, plugin):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gt").mkdir()
    (tmp_path / "lq").mkdir()
    for name in ("coffee", "rocket"):
        image = getattr(data, name)()[:400, :400, ::-1]
        cv2.imwrite(f"gt/{name}.png", image[:64, :64] if name == "coffee" else image[200:264, 200:264])
        cv2.imwrite(f"lq/{name}.png", cv2.resize(cv2.imread(f"gt/{name}.png"), (16, 16)))
    (tmp_path / "names.txt").write_text("coffee.png\nrocket.png\n")
    plugins = [f"+plugins=[{plugin}]"] if plugin else []
    file = str(OPTIONS / "realesrgan_x4.yml")
    assert cli.main(["train", "-opt", file, "--force_yml", *SMALL, *plugins]) == 0
    before, after = (
        torch.load(f"experiments/realesrgan_x4/models/net_g_{name}.pth", weights_only=True)["params_ema"]
        for name in ("4", "latest")
    )
    assert all(torch.equal(before[key], after[key]) for key in after)
    run_folder(tmp_path / "own", {**BRIDGE, "scale": 4})
    weights = {"real": "experiments/realesrgan_x4/models/net_g_latest.pth"}
    weights["i2sb"] = "own/experiments/bridge/models/net_g_latest.pth"
    block = {"type": "PairedImageDataset", "dataroot_gt": "gt", "dataroot_lq": "lq", "io_backend": {"type": "disk"}}
    made = {
        "name": "guests", "scale": 4, "num_gpu": 0, "datasets": {"test": block}, "baseline": "i2sb",
        "methods": {name: {"weights": path} for name, path in weights.items()},
        "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 4}},
    }  # fmt: skip
    (tmp_path / "bench.yml").write_text(yaml.safe_dump(made))
    assert cli.main(["benchmark", "-opt", "bench.yml"]) == 0
    found = json.loads((tmp_path / "results/guests/records.json").read_text())
    assert {r["method"]: len(r["images"]) for r in found["results"]} == {"real": 2, "i2sb": 2}
    assert found["significance"][0]["method"] == "real" and 3 < found["results"][0]["summary"]["psnr"]["value"] < 40


def test_the_pool_gives_back_what_it_was_given():
    model = RealESRGANModel.__new__(RealESRGANModel)
    BaseModel.__init__(model, {"num_gpu": 0, "is_train": True})
    model.queue_size, seen = 6, []
    for k in range(40):
        model.lq, model.gt = (torch.full((2, 1, 1, 1), 2.0 * k) + torch.arange(2).view(2, 1, 1, 1) for _ in range(2))
        model._dequeue_and_enqueue()
        assert torch.equal(model.lq, model.gt), "pairs stay together"
        seen += model.lq.flatten().tolist() if k >= 3 else []
    kept = model.queue_lr.flatten().tolist()
    assert len(set(seen)) == len(seen) == 74 and sorted(seen + kept) == list(range(80)), "each pair is given back once"
    model.queue_size = 5
    with pytest.raises(InputError, match="queue_size is 5.*batch size 2.*multiple"):
        model._dequeue_and_enqueue()
