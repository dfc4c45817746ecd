"""Replayed network calls give what plain ones give; what needs a GPU is tried by a stand-in that calls again."""

import copy
import dataclasses
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import nn

from basicsr_ext import cli
from basicsr_ext.common.errors import InputError
from basicsr_ext.models import acceleration, cuda_graphs
from basicsr_ext.models.cuda_graphs import CudaRecorder, GraphedNetwork
from basicsr_ext.preflight.checks import device_faults
from basicsr_ext.processes.launch import Launch
from basicsr_ext.restoring.restorer import Restorer
from basicsr_ext.restoring.tiling import TiledNetwork
from i2sb_plugin import samplers
from i2sb_plugin.archs.adm_unet_arch import ADMUNet
from i2sb_plugin.bridge import Bridge
from i2sb_plugin.models.i2sb_model import I2SBModel
from tests.support.cli_runs import bridge_options, files_below, run, write
from tests.support.trained import BRIDGE, run_folder

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: CUDA graphs record its kernels")


class Again:
    """Stands in for CUDA graphs: repeats a call by making it again, into the same place."""

    def __init__(self, allowed: bool = True) -> None:
        self.allowed, self.count, self.cached = allowed, 0, []

    def allows(self, tensors) -> bool:
        return self.allowed

    def record(self, call, device):
        self.count += 1
        self.cached.append(torch.is_autocast_cache_enabled())
        result = call().clone()
        return lambda: result.copy_(call()), result


def network(**options) -> ADMUNet:
    torch.manual_seed(0)
    net = ADMUNet(preset="tiny", channel_mult=[1, 1], attention_ds=[], cond_channels=3, **options).eval()
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return net


def graphed(net, most: int = 4) -> tuple[GraphedNetwork, Again]:
    recorder = Again()
    return GraphedNetwork(net, recorder, most), recorder


def inputs(size: int = 16, seed: int = 0, count: int = 2) -> tuple[torch.Tensor, ...]:
    random = torch.Generator().manual_seed(seed)
    images = torch.rand(2, count, 3, size, size, generator=random) * 2 - 1
    return images[0], torch.rand(count, generator=random), images[1]


def walk(net, device: str = "cpu", precision: str = "fp32", nfe: int = 5) -> torch.Tensor:
    """Ancestral steps from a random image, as a model takes them."""
    bridge, (x1, _, cond) = Bridge.one_clock(100), inputs()
    x1, cond, chosen = x1.to(device), cond.to(device), acceleration.Acceleration(device, precision)

    def predict_x0(xt: torch.Tensor, step: int) -> torch.Tensor:
        steps = torch.full((len(xt),), step)
        with chosen.autocast():
            prediction = net(xt, bridge.time(steps).to(xt.device), cond)
        return bridge.x0_from(xt, prediction.float(), steps)

    generators = [torch.Generator().manual_seed(k) for k in range(len(x1))]
    grid = samplers.step_grid(bridge, nfe)
    with torch.no_grad():
        return samplers.SAMPLERS["ancestral"](predict_x0, bridge, x1, grid, generator=generators)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_replayed_walk_is_the_plain_walk_bit_for_bit(precision):
    net = network()
    replayed, recorder = graphed(net)
    assert torch.equal(walk(replayed, precision=precision), walk(net, precision=precision))
    assert (recorder.count, replayed.replayed) == (1, 4), "the first evaluation is a plain one, the second is recorded"
    assert recorder.cached == [True], "of the caller"
    walk(replayed, precision=precision)
    assert (recorder.count, replayed.replayed) == (1, 9)


@GPU
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_walk_replayed_on_a_gpu_is_the_plain_walk_bit_for_bit(precision):
    net = network().cuda()
    replayed = GraphedNetwork(net)
    assert torch.equal(walk(replayed, "cuda", precision), walk(net, "cuda", precision)) and replayed.replayed == 4
    with torch.no_grad():
        torch._foreach_mul_(list(net.parameters()), 0.9)  # as an average changes
    assert torch.equal(walk(replayed, "cuda", precision), walk(net, "cuda", precision)) and replayed.replayed == 9


def test_weights_may_change_in_place_but_not_move():
    net, given = network(), inputs()
    replayed, recorder = graphed(net)
    with torch.no_grad():
        before = [replayed(*given) for _ in range(3)][-1]
        torch._foreach_lerp_(list(net.parameters()), [torch.ones_like(p) for p in net.parameters()], 0.1)
        after = replayed(*given)
        assert torch.equal(after, net(*given)) and not torch.equal(after, before) and recorder.count == 1
        net.load_state_dict({name: value * 0.5 for name, value in net.state_dict().items()}, assign=True)
        assert torch.equal(replayed(*given), net(*given)) and recorder.count == 1, "plain, as at the first call"
        assert torch.equal(replayed(*given), net(*given)) and recorder.count == 2


def test_every_shape_layout_and_precision_has_its_own_recording():
    net = network()
    replayed, recorder = graphed(net, most=4)
    xt, time, cond = inputs()
    kinds = [(xt, time, cond), inputs(24), inputs(count=1), (xt.to(memory_format=torch.channels_last), time, cond)]
    with torch.no_grad():
        for _ in range(3):
            for given in kinds:
                torch.testing.assert_close(replayed(*given), net(*given), rtol=0, atol=1e-6)
        assert (recorder.count, replayed.replayed) == (4, 8)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(replayed(*kinds[0]), net(*kinds[0])), "not the recording in fp32"
        for _ in range(3):
            assert torch.equal(replayed(*inputs(8)), net(*inputs(8)))
    assert (recorder.count, replayed.replayed) == (4, 8), "further shapes are called as ever"


def test_a_result_stays_and_inputs_are_left_alone():
    net, (xt, time, cond) = network(), inputs()
    replayed, _ = graphed(net)
    with torch.no_grad():
        replayed(xt, time, cond), replayed(xt, time, cond)
        kept = xt.clone()
        first = replayed(xt, time, cond)
        expected = first.clone()
        xt.add_(1)  # as a sampler that works in place does
        second = replayed(xt, time, cond)
        assert torch.equal(first, expected) and not torch.equal(first, second)
        assert torch.equal(second, net(kept + 1, time, cond))


def test_training_gradients_and_strange_arguments_are_called_plainly():
    net, given = network(), inputs()
    replayed, recorder = graphed(net)
    for _ in range(3):
        assert replayed(*given).requires_grad
    net.train()
    with torch.no_grad():
        for _ in range(3):
            replayed(*given)
        net.eval()
        several = GraphedNetwork(lambda_network(lambda x, factor: x * factor), recorder)
        assert [float(several(torch.ones(1), 2.0)) for _ in range(3)] == [2, 2, 2]
        refused = GraphedNetwork(net, Again(allowed=False))
        assert torch.equal([refused(*given) for _ in range(3)][-1], net(*given)) and refused.replayed == 0
    assert recorder.count == 0 and not CudaRecorder().allows(given), "tensors on a CPU"


def lambda_network(function) -> nn.Module:
    net = nn.Module()
    net.forward = function
    return net.eval()


def test_weights_that_autocast_rounded_are_not_recorded():
    cached = []
    net = lambda_network(lambda x: cached.append(torch.is_autocast_cache_enabled()) or x + 1)
    replayed, _ = graphed(net)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            replayed(torch.ones(1))
    assert cached[0] and not any(cached[1:]) and len(cached) == 3


def test_a_network_that_can_not_be_recorded_is_named(monkeypatch):
    def failing(error):
        def record(call, device):
            raise error

        return SimpleNamespace(allows=lambda tensors: True, record=record)

    given = inputs()
    for error, kind in ((RuntimeError("operation not permitted when stream is capturing\nat"), InputError),
                        (torch.cuda.OutOfMemoryError("CUDA out of memory"), torch.cuda.OutOfMemoryError)):  # fmt: skip
        replayed = GraphedNetwork(network(), failing(error))
        with torch.no_grad():
            replayed(*given)
            with pytest.raises(kind) as found:
                replayed(*given)
        if kind is InputError:
            assert "ADMUNet can not be recorded (operation not permitted when stream is capturing)" in str(found.value)


def test_models_lend_the_replayed_network_for_a_validation(tmp_path, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "CudaRecorder", Again)
    opt = {**BRIDGE, "num_gpu": 0, "dist": False, "is_train": False, "path": {}}
    model = I2SBModel(opt | {"val": {"sampler": {"type": "ancestral", "nfe": 4}}})
    model.acceleration = dataclasses.replace(model.acceleration, cuda_graph=True)
    model.feed_data({"lq": inputs()[0].clamp(0, 1), "lq_path": ["a", "b"]})
    generators = [[torch.Generator().manual_seed(k) for k in range(2)] for _ in range(2)]
    with torch.no_grad(), model.evaluating() as net:
        replayed = model.restore(model.batch, net, generators[0])
        assert (net.net, net.replayed) == (model.net_g, 3)
        assert torch.equal(replayed, model.restore(model.batch, model.net_g, generators[1]))


def test_tiles_are_replayed():
    net, (xt, time, cond) = network(), inputs(40)
    replayed, recorder = graphed(net)
    with torch.no_grad():
        plain = TiledNetwork(net, 16, 4)(xt, time, cond)
        assert torch.equal(TiledNetwork(net, 16, 4, graphed=replayed)(xt, time, cond), plain)
    assert recorder.count == 1 and replayed.replayed == 8, "9 tiles of one size"
    assert "graphed" not in "".join(TiledNetwork(net, 16).state_dict())


def test_nothing_takes_graphs_by_itself(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    net = network()
    assert not acceleration.choose("cuda").cuda_graph and acceleration.choose("cuda").graphed(net) is net
    assert not acceleration.choose("cuda", {"cuda_graph": False}).cuda_graph
    assert isinstance(acceleration.choose("cuda", {"cuda_graph": True}).graphed(net), GraphedNetwork)
    cli.main(["doctor"])
    assert "cuda_graph     no; never by itself, not yet measured on a GPU (val.cuda_graph)" in capsys.readouterr().out


def test_graphs_without_a_gpu_are_refused_by_name(tmp_path, monkeypatch, capsys):
    said = "val.cuda_graph is true, but the run is on the CPU"
    with pytest.raises(InputError, match=said):
        acceleration.choose("cpu", {"cuda_graph": True})
    opt = {"num_gpu": 0, "val": {"cuda_graph": True}}
    assert said in device_faults(opt, Launch())[0]
    assert device_faults(opt | {"val": {"cuda_graph": "auto"}}, Launch()) == []
    monkeypatch.chdir(tmp_path)
    opt = bridge_options(tmp_path) | {"num_gpu": 0}
    opt["val"]["cuda_graph"] = True
    before, path = files_below(tmp_path), write(tmp_path, opt)
    code, _, refused = run(capsys, "train", "-opt", path)
    assert code == 2 and said in refused and files_below(tmp_path) == before | {path}, "nothing is built or written"


def test_what_was_trained_with_graphs_is_restored_without_a_gpu(tmp_path, capsys):
    opt = copy.deepcopy(BRIDGE)
    opt["val"]["cuda_graph"] = True
    checkpoint, said = run_folder(tmp_path, opt), []
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found, _ = Restorer.load(checkpoint, device="cpu", say=said.append).restore(image)
    assert said == ["note: val.cuda_graph is true, but cpu has no CUDA graphs: goes on without"]
    (checkpoint.parent.parent / "bridge.yml").write_text(yaml.safe_dump(BRIDGE))
    assert torch.equal(found, Restorer.load(checkpoint, device="cpu").restore(image)[0])
