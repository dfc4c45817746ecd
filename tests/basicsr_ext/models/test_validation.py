"""Validation and test through RestorationModel: figures, images, metrics.json."""

import json
import logging

import cv2
import numpy as np
import pytest
import torch

from basicsr_ext import repairs

repairs.apply()

from basicsr.data import build_dataset  # noqa: E402
from basicsr.metrics import calculate_psnr  # noqa: E402
from basicsr.models.sr_model import SRModel  # noqa: E402
from basicsr.utils.registry import METRIC_REGISTRY  # noqa: E402

from basicsr_ext.common.contracts import DatasetContract  # noqa: E402
from basicsr_ext.images import arrays  # noqa: E402
from basicsr_ext.models import register, validation  # noqa: E402
from basicsr_ext.training import loop_state  # noqa: E402
from tests.support.models import built  # noqa: E402

register.register()

METRICS = {
    "psnr": {"type": "calculate_psnr", "crop_border": 0},
    "ssim_y": {"type": "calculate_ssim", "crop_border": 2, "test_y_channel": True},
}


class Pairs(DatasetContract, torch.utils.data.Dataset):
    """Five pairs of two sizes, in memory."""

    opt = {"name": "pairs"}

    def __init__(self, channels=3, gt_shift=0):
        generator = torch.Generator().manual_seed(0)
        self.items = []
        for k, (height, width) in enumerate([(8, 12), (8, 12), (8, 12), (9, 8), (8, 12)]):
            gt = torch.rand(channels, 2 * height + gt_shift, 2 * width, generator=generator)
            lq = torch.nn.functional.avg_pool2d(gt, 2)[:, :height]
            self.items.append({"lq": lq, "gt": gt, "lq_path": f"/a/{k}.png", "gt_path": f"/b/{k}.png"})

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Loader:
    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)


def model(tmp_path, kind="I2SBModel", is_train=False, **val):
    net = {"type": "ADMUNet", "preset": "tiny", "channel_mult": [1]}
    if kind == "RestorationModel":
        net = {"type": "Interpolation", "scale": 2}
    path = {"results_root": str(tmp_path), "visualization": str(tmp_path / "visualization")}
    val = {"metrics": METRICS, "suffix": None, **val}
    return built(kind, is_train=is_train, manual_seed=3, network_g=net, path=path, val=val)


def randomise(net):
    torch.manual_seed(1)
    for parameter in net.net_g.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return net


def run(net, dataset, tmp_path, save_img=False):
    net.validation(Loader(dataset), "t", None, save_img)
    return json.loads((tmp_path / "metrics.json").read_text())["datasets"]["pairs"]


def test_the_figures_are_those_of_the_saved_images(tmp_path):
    dataset = Pairs()
    found = run(model(tmp_path, "RestorationModel"), dataset, tmp_path, save_img=True)
    wanted = []
    for k, item in enumerate(dataset.items):
        image = cv2.imread(str(tmp_path / "visualization" / "pairs" / f"{k}_t.png"))
        assert found["images"][k]["file"].endswith(f"{k}_t.png")
        gt = (item["gt"].permute(1, 2, 0).numpy()[:, :, ::-1] * 255).round().astype(np.uint8)
        wanted.append(calculate_psnr(image, gt, crop_border=0))
    assert [image["psnr"] for image in found["images"]] == pytest.approx(wanted, abs=1e-9)
    assert found["mean"]["psnr"] == pytest.approx(sum(wanted) / 5, abs=1e-9)
    assert found["mean"]["seconds"] > 0


def test_the_figures_do_not_depend_on_the_batch_size(tmp_path):
    one = run(randomise(model(tmp_path, batch_size=1, sampler={"nfe": 3})), Pairs(), tmp_path)
    many = run(randomise(model(tmp_path, batch_size=8, sampler={"nfe": 3})), Pairs(), tmp_path)
    for metric in METRICS:
        assert many["mean"][metric] == pytest.approx(one["mean"][metric], abs=1e-2 if metric == "psnr" else 1e-4)
    assert [image["image"] for image in many["images"]] == ["0", "1", "2", "3", "4"]


def test_the_operator_of_the_data_set_is_measured_and_every_metric_says_what_it_is(tmp_path):
    blocks = {"psnr": METRICS["psnr"], "consistency": {"type": "consistency"}, "calls": {"type": "network_calls"}}
    dataset = Pairs()
    dataset.degradation = type("Halving", (), {"forward": lambda _, x, mask: torch.nn.functional.avg_pool2d(x, 2)})()
    net = model(tmp_path, "RestorationModel", metrics=blocks)
    found = run(net, dataset, tmp_path, save_img=True)
    for record, item in zip(found["images"], dataset.items):
        restored = torch.from_numpy(cv2.imread(record["file"])[:, :, ::-1].copy()).permute(2, 0, 1).float()
        error = torch.nn.functional.avg_pool2d(restored, 2) - (item["lq"] * 255).round()
        assert record["consistency"] == pytest.approx(
            20 * np.log10(255) - 10 * np.log10(float(error.square().mean())), abs=1e-3
        )
    assert found["mean"]["calls"] == 1.0
    assert {name: about["images"] for name, about in found["metrics"].items()} == dict.fromkeys(blocks, 5)
    assert found["metrics"]["psnr"]["library"] == ["basicsr 1.4.2"]
    del dataset.degradation
    found = run(net, dataset, tmp_path)
    assert found["mean"]["consistency"] is None and found["mean"]["psnr"] > 0
    assert "consistency needs a degradation whose operator is known" in found["metrics"]["consistency"]["notes"][0]


def test_the_shards_of_three_ranks_give_the_whole(tmp_path, monkeypatch):
    whole = run(randomise(model(tmp_path, batch_size=1)), Pairs(), tmp_path)
    held = []
    for rank in range(3):
        monkeypatch.setattr(
            "basicsr_ext.processes.collectives.shard_indices", lambda count, rank=rank: list(range(rank, count, 3))
        )
        monkeypatch.setattr(
            "basicsr_ext.processes.collectives.gather_objects", lambda records: held.append(records) or [records]
        )
        run(randomise(model(tmp_path, batch_size=1)), Pairs(), tmp_path)
    merged = sorted(sum(held[::2], []), key=lambda record: record["index"])  # what metrics keep is gathered after it
    for found, wanted in zip(merged, whole["images"], strict=True):
        of_time = ("seconds", "warm_up")
        assert [{k: v for k, v in record.items() if k not in of_time} for record in (found, wanted)] == [
            {k: v for k, v in wanted.items() if k not in of_time}
        ] * 2


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_rgba_are_saved_and_measured(tmp_path, channels):
    net = model(tmp_path, "RestorationModel", metrics={"psnr": METRICS["psnr"]})
    found = run(net, Pairs(channels), tmp_path, save_img=True)
    image = cv2.imread(str(tmp_path / "visualization" / "pairs" / "0_t.png"), cv2.IMREAD_UNCHANGED)
    assert image.reshape(16, 24, -1).shape[2] == channels
    assert 5 < found["mean"]["psnr"] < 30


def test_to_image_rounds_and_orders_like_basicsr():
    from basicsr.utils import tensor2img

    tensor = torch.rand(3, 9, 7, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.1
    assert np.array_equal(arrays.to_image(tensor), tensor2img([tensor.clone()]))
    assert arrays.to_image(torch.tensor([0.0, 0.5 / 255, 1.5 / 255, 2.5 / 255]).reshape(1, 1, 4)).ravel().tolist() == [
        0,
        0,
        2,
        2,
    ]


def test_a_size_that_differs_from_the_ground_truth_is_told(tmp_path):
    found = run(model(tmp_path, "RestorationModel"), Pairs(gt_shift=1), tmp_path)
    assert found["mean"]["psnr"] is None
    assert "0 is restored to (16, 24, 3) but its ground truth" in found["metrics"]["psnr"]["notes"][0]


def fails_at_one_size(img, img2):
    if len(img) != 16:
        raise np.linalg.LinAlgError("SVD did not converge")
    return float("inf") if np.array_equal(img, img2) else 1.0 + float(img[0, 0, 0])


@pytest.mark.parametrize("kind", ["RestorationModel", "SRModel"])
def test_images_that_a_metric_cannot_measure_are_named_and_left_out_of_its_mean(tmp_path, kind, monkeypatch, caplog):
    monkeypatch.setitem(METRIC_REGISTRY._obj_map, "fragile", fails_at_one_size)
    net = model(tmp_path, "RestorationModel", metrics={"fragile": {"type": "fragile"}, **METRICS}, save_img=False)
    if kind == "SRModel":
        net.__class__ = SRModel
    net.is_train, net.opt["is_train"] = False, False
    dataset = Pairs()
    dataset.items[1]["gt"] = net.net_g(dataset.items[1]["lq"][None])[0].clamp(0, 1)  # restored perfectly
    monkeypatch.setattr(logging.getLogger("basicsr"), "propagate", True)
    with loop_state.watched_run() as watched:
        net.validation(Loader(dataset), "t", None, False)
        assert watched.unmeasured
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    (line,) = (line for line in lines if line.startswith("fragile: "))
    assert "3 of 5" in line and "1: inf" in line and "3: SVD did not converge (LinAlgError)" in line
    assert any(line.startswith("psnr: ") and "4 of 5" in line for line in lines)
    figures = net.metric_results
    assert all(np.isfinite(list(figures.values())))
    best = net.best_metric_results["pairs"]
    assert all(best[name]["val"] == figures[name] for name in figures)
    if kind == "RestorationModel":
        text = (tmp_path / "metrics.json").read_text()
        found = json.loads(text, parse_constant=pytest.fail)["datasets"]["pairs"]
        assert [image["fragile"] is None for image in found["images"]] == [False, True, False, True, False]
        assert found["metrics"]["fragile"]["images"] == 3


def test_a_validation_without_ground_truth_does_not_measure_the_training_crop(tmp_path):
    net = model(tmp_path, "RestorationModel", metrics={"psnr": METRICS["psnr"]})
    net.__class__ = SRModel
    net.gt = torch.rand(1, 3, 16, 24)
    dataset = Pairs()
    dataset.items = [{"lq": item["lq"], "lq_path": item["lq_path"]} for item in dataset.items]
    net.validation(Loader(dataset), "t", None, False)
    assert np.isnan(net.metric_results["psnr"])


def test_a_network_that_gives_nan_is_not_measured(tmp_path):
    net = model(tmp_path, "RestorationModel")
    dataset = Pairs()
    dataset.items[1]["lq"][0, 0, 0] = float("nan")
    with pytest.raises(RuntimeError, match=r"NaN .*1\.png"):
        run(net, dataset, tmp_path)


def test_validation_in_training_keeps_the_best_and_feeds_tensorboard(tmp_path):
    net = model(tmp_path, is_train=True)
    scalars, pictures = {}, {}

    class Board:
        def add_scalar(self, name, value, step):
            scalars[name, step] = value

        def add_image(self, name, image, step):
            pictures[name, step] = image.shape

    net.validation(Loader(Pairs()), 10, Board(), save_img=True)
    assert scalars["metrics/pairs/psnr", 10] == net.metric_results["psnr"]
    assert net.best_metric_results["pairs"]["psnr"] == {
        "better": "higher",
        "val": net.metric_results["psnr"],
        "iter": 10,
    }
    assert pictures["walk/pairs", 10] == (3, 16, 24 * 8), "x1, six points of the walk, ground truth"
    assert (tmp_path / "visualization" / "3" / "3_10.png").is_file()
    assert not (tmp_path / "metrics.json").exists()
    scalars.clear()
    net.validation(Loader(Pairs()), 10, Board(), save_img=True)
    assert not scalars, "the same weights are not validated twice"


def validated(tmp_path, batch_size, sides, count):
    """The images of each batch that a validation restores, and how many had been read by then."""
    taken, batches = [], {}

    class Images(Pairs):
        def __getitem__(self, k):
            taken.append(k)
            height, width = sides(k)
            gt = torch.zeros(3, 2 * height, 2 * width)
            return {"lq": torch.zeros(3, height, width), "gt": gt, "lq_path": f"{k}.png", "gt_path": f"{k}.png"}

        def __len__(self):
            return count

    net = model(tmp_path, "RestorationModel", batch_size=batch_size, metrics={"psnr": METRICS["psnr"]})
    feed = net.feed_data
    net.feed_data = lambda batch: (
        feed(batch) or batches.setdefault(tuple(path.removesuffix(".png") for path in batch["lq_path"]), len(taken))
    )
    net.validation(Loader(Images()), "t", None, False)
    return batches


def test_images_of_one_size_share_batches_though_others_lie_between_them(tmp_path):
    batches = validated(tmp_path, 4, lambda k: (8, 4) if k % 2 else (4, 8), 10)
    assert list(batches) == [("0", "2", "4", "6"), ("1", "3", "5", "7"), ("8",), ("9",)]


def test_no_more_than_three_batches_of_images_wait_for_others_of_their_size(tmp_path):
    batches = validated(tmp_path, 2, lambda k: (4, 4 + k), 20)  # no two alike
    assert [taken - given for given, taken in enumerate(batches.values())][:13] == [7] * 13


def test_a_walk_does_not_draw_the_noise_that_is_to_be_removed(tmp_path, monkeypatch):
    """With the same seed for both, a denoiser would meet its image's own noise again at every step."""
    grey = np.full((32, 32, 3), 128, np.uint8)
    (tmp_path / "grey").mkdir()
    for k in range(3):
        cv2.imwrite(str(tmp_path / "grey" / f"{k}.png"), grey)
    block = {"type": "PairedDegradationDataset", "name": "pairs", "phase": "val", "scale": 1}
    block |= {"io_backend": {"type": "disk"}, "dataroot_gt": str(tmp_path / "grey"), "clamp": False}
    dataset = build_dataset(block | {"degradation": {"type": "noise_gauss", "sigma": 0.1}})
    net, drawn = model(tmp_path, "RestorationModel"), {}

    def restore(batch, _, generators):
        for path, lq, generator in zip(batch["lq_path"], batch["lq"], generators):
            drawn[path] = (lq, torch.randn(lq.shape, generator=generator))
        return batch["gt"]

    for seed in (0, 1):
        monkeypatch.setitem(net.opt, "manual_seed", seed)
        monkeypatch.setattr(net, "restore", restore)
        net.validation(Loader(dataset), "t", None, False)
        assert len(drawn) == 3
        for lq, noise in drawn.values():
            assert abs(float(torch.corrcoef(torch.stack([lq.flatten(), noise.flatten()]))[0, 1])) < 0.1


def test_the_first_batch_warms_up_and_counts_only_where_it_is_alone():
    first, second = {"seconds": 9.0, "warm_up": True}, {"seconds": 1.0, "warm_up": False}
    assert validation.mean_seconds([first, second, {"seconds": 2.0, "warm_up": False}]) == 1.5
    assert validation.mean_seconds([first, first]) == 9.0
