"""Choices for speed change the time, not the numbers."""

import copy
import math
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from basicsr_ext import cli, repairs
from basicsr_ext.checkpoints.storage import load_state, load_weights
from basicsr_ext.models import acceleration
from i2sb_plugin.archs.adm_unet_arch import ADMUNet
from i2sb_plugin.archs.adm_unet_blocks import GroupNorm32
from tests.support.cli_runs import bridge_options, write

CPU = acceleration.choose("cpu")
GPU = torch.cuda.is_available()


def awake(**options) -> ADMUNet:
    torch.manual_seed(0)
    net = ADMUNet(preset="tiny", channel_mult=[1, 2], attention_ds=[2], num_head_channels=16, **options).eval()
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return net


def image(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def furthest(ones, others) -> float:
    """The largest difference of two lists of gradients, as a part of the largest of them."""
    return float(max((a - b).norm() for a, b in zip(ones, others)) / max(a.norm() for a in ones))


@pytest.fixture
def eager(monkeypatch):
    """Compile with the tracer alone: what is traced and how often, without a C++ compiler."""
    torch._dynamo.reset()
    compile_part = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **how: compile_part(self, backend="eager", **how))
    yield
    torch._dynamo.reset()


def test_a_cpu_takes_fp32_in_channels_last_and_does_not_compile():
    assert acceleration.Acceleration("cpu", "fp32", True, False, False) == CPU
    assert not CPU.scaler().is_enabled()


@pytest.mark.parametrize(("units", "tools"), [(True, True), (True, False), (False, True)])
def test_a_gpu_is_taken_for_what_it_has(monkeypatch, units, tools):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: units)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/cc" if tools else None)
    found = acceleration.choose("cuda")
    assert found.precision == ("bf16" if units else "fp32")
    assert (found.compile, found.channels_last, found.tf32) == (tools, tools, True)


def test_every_choice_can_be_forced():
    forced = {"precision": "bf16", "channels_last": False, "compile": True, "tf32": False}
    assert acceleration.choose("cpu", forced) == acceleration.Acceleration("cpu", "bf16", False, True, False)


def test_doctor_prints_every_choice(capsys):
    cli.main(["doctor"])
    out = capsys.readouterr().out
    page = (Path(__file__).parents[3] / "docs/performance.md").read_text()
    table = page[page.index("| choice | on a CPU") :].split("\n\n")[0].splitlines()[2:]
    options = [line.split("|")[4].split("`")[1].split(":")[0] for line in table]
    assert len(options) >= 10 and not [option for option in options if f"({option}" not in out]


@pytest.mark.parametrize(("unit", "slow"), [("avx512_bf16", False), ("bf16", False), ("avx2", True)])
def test_a_cpu_without_units_for_bf16_is_named_where_it_is_asked_for(unit, slow, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {unit: True}, raising=False)
    monkeypatch.chdir(tmp_path)
    opt = bridge_options(tmp_path) | {"num_gpu": 0}
    opt["network_g"] |= {"channel_mult": [1], "attention_ds": []}
    for precision, said in (("bf16", slow), ("auto", False)):
        opt["train"]["precision"] = precision
        assert cli.main(["check", "-opt", str(write(tmp_path, opt))]) == 0
        assert ("note: train.precision is bf16" in capsys.readouterr().out) == said
    cli.main(["doctor"])
    assert ("(train.precision; bf16 is many times slower here" in capsys.readouterr().out) == (slow and not GPU)
    assert not acceleration.lacks_bf16("cuda")


def test_a_file_that_still_asks_for_cuda_graphs_works_and_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    opt = bridge_options(tmp_path) | {"num_gpu": 0}
    opt["network_g"] |= {"channel_mult": [1], "attention_ds": []}
    opt["val"]["cuda_graph"] = True
    assert cli.main(["check", "-opt", str(write(tmp_path, opt))]) == 0
    assert "note: val.cuda_graph does nothing" in capsys.readouterr().out


def test_the_optimiser_is_one_kernel_unless_the_options_say_otherwise():
    options = acceleration.Acceleration.optimizer_options
    assert options("AdamW", {"lr": 1}) == {"lr": 1, "fused": True}
    assert options("AdamW", {"foreach": True}) == {"foreach": True}
    assert options("AdamW", {"fused": False}) == {"fused": False}
    assert options("Rprop", {}) == {}
    assert options("Unknown", {}) == {}


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
def test_gradients_lie_as_their_weights_so_that_nothing_copies_them(last):
    net = acceleration.choose("cpu", {"channels_last": last}).prepare(awake())
    net(image(2, 3, 16, 16), torch.tensor([1.0, 700.0])).square().mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad.stride() != p.stride()] == []


@pytest.mark.parametrize("fold", [False, True])
def test_channels_last_gives_the_same_outputs_and_gradients(fold):
    plain = awake(fold_upsampling=fold)
    other = CPU.prepare(copy.deepcopy(plain))
    x, t = image(2, 3, 16, 16), torch.tensor([1.0, 700.0])
    results = []
    for net in (plain, other):
        y = net(x, t)
        y.square().mean().backward()
        results.append((y.detach(), [p.grad for p in net.parameters()]))
    (a, gradients), (b, others) = results
    assert other.input_blocks[1][0].in_layers[2].weight.is_contiguous(memory_format=torch.channels_last)
    exact = copy.deepcopy(plain).double()(x.double(), t.double()).detach()
    assert all(float((y - exact).abs().max()) < 1e-5 * float(exact.std()) for y in (a, b))
    assert float((a - b).detach().norm()) < 5e-6 * float(a.detach().norm())
    if not fold:  # folded, both layouts round once more: each is held to the truth above
        assert float((a - b).detach().abs().max()) < 1e-5 * float(a.detach().std())
    assert furthest(gradients, others) < 1e-5


def test_compiled_parts_give_the_same_outputs_and_gradients(eager):
    plain = awake()
    other = acceleration.choose("cpu", {"compile": True}).prepare(copy.deepcopy(plain))
    x, t = image(2, 3, 16, 16), torch.tensor([1.0, 700.0])
    a, b = plain(x, t), other(x, t)
    assert float((a - b).detach().abs().max()) < 1e-5 * float(a.detach().std())
    a.square().mean().backward()
    b.square().mean().backward()
    assert furthest([p.grad for p in plain.parameters()], [p.grad for p in other.parameters()]) < 1e-5


def test_no_step_and_no_size_compiles_again(eager):
    net = acceleration.choose("cpu", {"compile": True}).prepare(awake().train())

    def graphs(*shape: int) -> int:
        for _ in range(2):
            net(image(*shape), torch.full(shape[:1], 500.0)).square().mean().backward()
        return counters["stats"]["unique_graphs"]

    counters.clear()
    first = graphs(2, 3, 16, 16)
    assert 0 < first <= len({(m.num_channels, id(m)) for m in net.compiled_parts()})
    assert graphs(3, 3, 24, 16) == graphs(5, 3, 8, 40) == graphs(2, 3, 64, 32) == first
    alone = graphs(1, 3, 16, 16)
    assert first < alone <= 2 * first, "one image is a kind of its own"
    assert graphs(1, 3, 24, 40) == graphs(7, 3, 40, 24) == alone


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's compiler needs g++ on a CPU")
@pytest.mark.parametrize("dtype", [pytest.param(torch.float32, marks=pytest.mark.slow), torch.bfloat16])
def test_the_compiled_norm_is_the_plain_one_in_the_layout_of_its_input(dtype):
    norm = GroupNorm32(64)
    nn.init.normal_(norm.weight)
    x = (image(2, 64, 6, 5) * 3 + 1).to(dtype, memory_format=torch.channels_last)
    shift, scale = image(2, 128).to(dtype).chunk(2, 1)
    exact = norm(x.double(), shift.double(), scale.double(), silu=True)
    norm.compile(dynamic=True)
    found = norm(x, shift, scale, silu=True)
    assert found.dtype == dtype and found.is_contiguous(memory_format=torch.channels_last)
    unit = torch.finfo(dtype).eps
    assert float((found - exact).detach().abs().max()) < 10 * unit * float(exact.detach().abs().max())


def test_bf16_is_as_far_off_as_its_roundings_allow():
    """Each rounding adds a relative error of variance u^2 / 3, u = 2^-8 for 8 bits; those in a row add up."""
    net, x = awake(), image(2, 3, 16, 16)
    layers = sum(isinstance(m, nn.Conv2d | nn.Conv1d | nn.Linear) for m in net.modules())
    roundings = 3 * layers  # of the input, the weight and the output of each
    with torch.no_grad():
        exact = net(x, torch.tensor([1.0, 700.0]))
        with acceleration.choose("cpu", {"precision": "bf16"}).autocast():
            found = net(x, torch.tensor([1.0, 700.0]))
    error = float((found - exact).square().mean().sqrt() / exact.std())
    assert 2**-8 / math.sqrt(3) < error < 2**-8 * math.sqrt(roundings / 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("wishes", [{"precision": "fp32", "tf32": False}, {}], ids=["fp32", "chosen"])
def test_what_a_gpu_chooses_gives_the_outputs_of_the_cpu(wishes):
    plain, x, t = awake(), image(2, 3, 16, 16), torch.tensor([1.0, 700.0])
    chosen = acceleration.choose("cuda", wishes)
    chosen.start()
    net = chosen.prepare(copy.deepcopy(plain).cuda())
    with torch.no_grad():
        exact = plain(x, t)
        with chosen.autocast():
            found = net(x.cuda(), t.cuda()).cpu()
    error = float((found - exact).abs().max() / exact.std())
    assert error < (1e-5 if chosen.precision == "fp32" and not chosen.tf32 else 0.2)


def test_blocks_of_any_network_that_repeat_are_compiled():
    from basicsr.archs.srresnet_arch import MSRResNet

    net = MSRResNet(num_feat=8, num_block=3)
    assert [type(part).__name__ for part in acceleration.compiled_parts(net)] == ["ResidualBlockNoBN"] * 3


def test_a_state_saved_in_another_layout_is_laid_out_as_the_weights():
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 6, 3)
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    a, b = (torch.optim.AdamW(net.parameters(), fused=True) for net in (plain, last))
    for net, optimizer in ((plain, a), (last, b)):
        net(image(2, 4, 8, 8)).square().sum().backward()
        optimizer.step()
    b.load_state_dict(copy.deepcopy(a.state_dict()))
    acceleration.match_layouts(b)
    assert b.state[last.weight]["exp_avg"].stride() == last.weight.stride()
    for _ in range(3):
        a.step()
        b.step()
    torch.testing.assert_close(last.weight, plain.weight, rtol=1e-6, atol=1e-7)


def test_the_scale_of_fp16_is_saved_and_the_resumed_run_is_the_unbroken_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    repairs.apply()
    opt = bridge_options(tmp_path)
    opt["network_g"] |= {"channel_mult": [1], "attention_ds": []}
    opt["train"] |= {"precision": "fp16", "grad_clip": 1.0}
    path = write(tmp_path, opt)
    assert cli.main(["train", "-opt", str(path), "--force_yml", "name=whole"]) == 0
    words = ["train", "-opt", str(path), "--auto_resume", "--force_yml", "name=parts"]
    assert cli.main([*words, "train:total_iter=2"]) == 0
    state = load_state(tmp_path / "experiments/parts/training_states/2.state")
    assert state["extras"]["scaler"]["scale"] == 2.0**16 and state["extras"]["scaler"]["_growth_tracker"] == 2
    assert cli.main(words) == 0
    state = load_state(tmp_path / "experiments/parts/training_states/4.state")
    assert state["extras"]["scaler"]["_growth_tracker"] == 4
    whole, parts = (load_weights(tmp_path / f"experiments/{n}/models/net_g_4.pth") for n in ("whole", "parts"))
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
