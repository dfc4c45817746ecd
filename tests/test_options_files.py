"""Every option file in the repository loads, passes all checks, and builds what it names."""

from pathlib import Path

import pytest
import torch

from basicsr_ext import repairs
from basicsr_ext.benchmark.run import settings
from basicsr_ext.common.errors import InputError
from basicsr_ext.options.check import inspect_options
from basicsr_ext.options.file import load_yaml
from basicsr_ext.options.resolve import select_datasets
from basicsr_ext.processes.launch import Launch
from i2sb_plugin import plugin

repairs.apply()
plugin.register()

from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY  # noqa: E402

from basicsr_ext.common.option_blocks import parse_block  # noqa: E402
from basicsr_ext.models import register  # noqa: E402
from basicsr_ext.options.basicsr_keys import own_options  # noqa: E402
from i2sb_plugin.degradations import build_degradation  # noqa: E402
from i2sb_plugin.models.bridge_options import BridgeOptions, SamplerOptions  # noqa: E402
from i2sb_plugin.samplers import step_grid  # noqa: E402

register.register()

OPTIONS = Path(__file__).parent.parent / "options"
BENCHMARKS = sorted(OPTIONS.glob("benchmark*.yml"))
FILES = sorted(path for path in OPTIONS.rglob("*.yml") if path not in BENCHMARKS)
PAPER = sorted((OPTIONS / "imagenet256").glob("*.yml"))
NOISELESS = {"blur_uniform", "blur_gauss", "inpaint_center", "inpaint_freeform1020", "inpaint_freeform2030"}


def identity(path):
    return path.relative_to(OPTIONS).as_posix()


@pytest.mark.parametrize("is_train", [True, False], ids=["train", "test"])
@pytest.mark.parametrize("path", FILES, ids=identity)
def test_nothing_in_it_is_refused_or_without_effect(path, is_train, weights_at_hand):
    opt = load_yaml(path)
    if is_train and "train" not in opt:
        pytest.skip("a file for tests alone")
    if not is_train and list(opt["datasets"]) == ["train"]:
        pytest.skip("a file for training alone")
    select_datasets(opt, is_train)
    found = inspect_options(opt, is_train)
    assert found.faults == [] and found.notes == []


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_its_network_builds(path):
    options = dict(load_yaml(path)["network_g"])
    name = options.pop("type")
    with torch.device("meta" if name == "ADMUNet" else "cpu"):
        network = ARCH_REGISTRY.get(name)(**options)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert (count > 0) == (name != "Interpolation")
    if path in PAPER:
        assert count == (552_814_083 if "cond_channels" in options else 552_807_171)  # as the release's network


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_its_data_sets_and_degradations_build(path):
    opt = load_yaml(path)
    for name, block in opt["datasets"].items():
        given = {"phase": name.split("_")[0], "scale": opt["scale"]}
        cls = DATASET_REGISTRY.get(block["type"])
        if hasattr(cls, "Options"):  # BasicSR's own are checked by their words alone, above
            assert parse_block(cls.Options, own_options(cls.Options, block | given), name)[1] == []
        if "degradation" in block:
            degradation = build_degradation(block["degradation"])
            lq = degradation(torch.rand(3, 64, 64), torch.Generator().manual_seed(0)).lq
            assert lq.shape == (3, 64 // degradation.scale, 64 // degradation.scale)


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_its_walk_fits_its_bridge(path):
    opt = load_yaml(path)
    if opt["model_type"] != "I2SBModel":
        pytest.skip("no bridge")
    options = SamplerOptions(**opt["val"].get("sampler", {}))
    bridge = BridgeOptions(**opt.get("bridge", {}))
    assert len(step_grid(bridge.build(), options.nfe, options.spacing, options.first)) == options.nfe + 1
    assert bridge.cond_x1 == ("cond_channels" in opt["network_g"])


@pytest.mark.parametrize("path", PAPER, ids=identity)
def test_a_paper_scale_file_states_the_papers_settings(path):
    opt = load_yaml(path)
    train, bridge = opt["train"], opt["bridge"]
    noiseless = path.stem in NOISELESS
    assert (bridge["schedule"], bridge["steps"], bridge.get("ot_ode")) == ("released", 1000, noiseless)
    assert bridge["beta_max"] == (1.0 if noiseless else 0.3)
    assert opt["datasets"]["train"]["batch_size_per_gpu"] * 16 == 256
    assert opt["datasets"]["train"]["gt_size"] == 256
    assert train["optim_g"] == {"type": "AdamW", "lr": 5e-5, "weight_decay": 0}
    assert train["scheduler"] == {"type": "StepLR", "step_size": 1000, "gamma": 0.99}
    assert (train["ema_decay"], train["ema_warmup"], train["precision"]) == (0.99, True, "fp32")


def test_each_task_of_the_paper_has_its_file():
    assert {path.stem for path in PAPER} == NOISELESS | {
        "sr4x_pool", "sr4x_bicubic", "jpeg5", "jpeg10", "mixture", "translation"
    }  # fmt: skip


@pytest.mark.parametrize("path", BENCHMARKS, ids=identity)
def test_a_benchmark_lacks_nothing_but_its_weights(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as refusal:
        settings.read(path, Launch())
    methods = load_yaml(path)["methods"]
    wanted = [f"methods.{name}: weights is {m['weights']}" for name, m in methods.items() if "weights" in m]
    said = str(refusal.value)
    assert said.count("no such file") == len(wanted) == said.count("correct the path")
    assert all(start in said for start in wanted)
