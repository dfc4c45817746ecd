"""Weights of the authors' release and of ADM: recorded samples, round trips, and everything that is refused."""

import argparse
import json
import os
import pickle
from importlib import metadata
from pathlib import Path, PosixPath

import numpy as np
import pytest
import torch

from basicsr_ext import cli, repairs
from basicsr_ext.checkpoints.storage import load_weights, read_configuration
from basicsr_ext.common.errors import InputError
from basicsr_ext.options.check import check
from basicsr_ext.options.file import load_yaml
from i2sb_plugin import plugin, samplers
from i2sb_plugin.archs.adm_unet_arch import ADMUNet
from i2sb_plugin.bridge import Bridge
from i2sb_plugin.models.bridge_options import BridgeOptions, read_block
from i2sb_plugin.weights.layout import infer_network, network_shapes
from i2sb_plugin.weights.pickles import load_namespace
from i2sb_plugin.weights.released import read_weights
from i2sb_plugin.weights.tasks import TASKS
from tests.support.golden import find, folders, golden, golden_json, names, params, unet_options
from tests.support.toolkit import python

repairs.apply()
plugin.register()

RECORDED = "checkpoint/tiny-sr4x-pool"
HEADS = ("--num-head-channels", "16")


def rebuilt(folder):
    """The recorded checkpoint, put together again from its averaged weights: the raw ones are others."""
    layout = golden_json(f"{RECORDED}/names.json")
    shadow = [torch.from_numpy(value) for _, value in sorted(golden(f"{RECORDED}/shadow_params.npz").items())]
    raw = [value + 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(k))
           for k, value in enumerate(shadow)]  # fmt: skip
    optimizer = torch.optim.AdamW([torch.nn.Parameter(value) for value in raw], lr=0.02)
    saved = {
        "net": dict(zip(layout["net"], raw, strict=True)),
        "ema": {**layout["ema"], "shadow_params": shadow},
        "optimizer": optimizer.state_dict(),
        "sched": torch.optim.lr_scheduler.StepLR(optimizer, 1000, 0.99).state_dict(),
    }
    folder.mkdir(parents=True)
    torch.save(saved, folder / "latest.pt")
    (folder / "options.pkl").write_bytes(find(f"{RECORDED}/options.pkl").read_bytes())
    return folder


@pytest.fixture(scope="module", params=["rebuilt", "recorded"])
def release(request, tmp_path_factory):
    """A folder as the release writes it: made here, and the recorded one where the full set is at hand."""
    if request.param == "rebuilt":
        return rebuilt(tmp_path_factory.mktemp("release") / "run")
    whole = [folder / RECORDED for folder in folders() if (folder / RECORDED / "latest.pt").is_file()]
    if not whole:
        pytest.skip("I2SB_GOLDEN does not name the full set of recordings")
    return whole[0]


@pytest.fixture
def tiny(tmp_path):
    return rebuilt(tmp_path / "run")


def load(path):
    return torch.load(path, weights_only=True)


def run(*words):
    return cli.main([str(word) for word in words])


def imported(release, out):
    assert run("import-i2sb", release / "latest.pt", "-o", out, *HEADS) == 0
    return out


# ---- the release's checkpoints


@pytest.mark.parametrize(("walk", "nfe", "clip"), [("a", 5, False), ("b", 19, True)])
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_an_imported_network_draws_the_recorded_samples(release, tmp_path, monkeypatch, walk, nfe, clip, ending):
    out = imported(release, tmp_path / f"sr4x.{ending}")
    data = {key: torch.from_numpy(value) for key, value in golden("checkpoint_sampling").items()}
    configuration = read_configuration(out)
    options = {k: v for k, v in configuration["network_g"].items() if k != "type"}
    assert options | {"preset": "adm256"} == options and configuration["bridge"]["schedule"] == "released"
    net = ADMUNet(**options).eval()
    net.load_state_dict(load_weights(out, "params_ema"), strict=True)
    bridge = Bridge.released(configuration["bridge"]["steps"], configuration["bridge"]["beta_max"])
    draws, seen = iter(data[f"{walk}_noise"]), {}
    monkeypatch.setattr(samplers, "standard_normal", lambda like, generator: next(draws))

    def predict_x0(xt, step):
        steps = torch.full((len(xt),), step)
        return bridge.x0_from(xt, net(xt, bridge.time(steps)), steps)

    steps = samplers.step_grid(bridge, nfe)
    with torch.no_grad():
        samplers.ancestral(predict_x0, bridge, data["x1"], steps, clip=clip,
                           callback=lambda n, xt, x0: seen.update({n: (xt.clone(), x0.clone())}))  # fmt: skip
        out = net(data["net_in"], bridge.time(data["net_steps"]))
    assert next(draws, None) is None
    assert float((out - data["net_out"]).abs().max()) <= 2e-5
    count = data[f"{walk}_xs"].shape[1]
    for k, place in enumerate(samplers.space_indices(nfe, count)):
        for found, wanted in zip(seen[steps[::-1][place]], (data[f"{walk}_xs"], data[f"{walk}_pred_x0s"])):
            assert float((found - wanted[:, k]).abs().max()) <= 2e-5


def test_the_average_is_taken_and_the_raw_weights_are_kept_apart(release, tmp_path):
    original = load(release / "latest.pt")
    shadow = dict(zip((k.removeprefix("diffusion_model.") for k in original["net"]), original["ema"]["shadow_params"]))
    raw = {k.removeprefix("diffusion_model."): v for k, v in original["net"].items()}
    both, one = imported(release, tmp_path / "x.pth"), imported(release, tmp_path / "x.safetensors")
    for path, key, wanted in ((one, "params", shadow), (both, "params_ema", shadow), (both, "params", raw)):
        found = load_weights(path, key)
        assert found.keys() == wanted.keys() and all(torch.equal(found[k], wanted[k]) for k in wanted)
    assert any(not torch.equal(shadow[k], raw[k]) for k in raw)


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_exporting_gives_the_release_back_bit_for_bit(release, tmp_path, ending):
    original = load(release / "latest.pt")
    out = imported(release, tmp_path / f"x.{ending}")
    assert run("export-i2sb", out, "-o", tmp_path / "back" / "latest.pt", *HEADS) == 0
    back = load(tmp_path / "back" / "latest.pt")
    assert list(back) == ["net", "ema", "optimizer", "sched"] and back["sched"] is None
    assert list(back["net"]) == list(original["net"])
    assert {k: v for k, v in back["ema"].items() if k != "shadow_params"} == {
        k: v for k, v in original["ema"].items() if k != "shadow_params"
    }
    for found, wanted in zip(back["ema"]["shadow_params"], original["ema"]["shadow_params"], strict=True):
        assert found.dtype == wanted.dtype and torch.equal(found, wanted)
    if ending == "pth":
        assert all(torch.equal(back["net"][k], original["net"][k]) for k in original["net"])
    optimizer = torch.optim.AdamW([torch.nn.Parameter(value) for value in back["net"].values()], lr=1)
    optimizer.load_state_dict(back["optimizer"])
    assert optimizer.param_groups[0]["lr"] == 5e-5


def test_exported_options_name_what_the_release_reads(release, tmp_path):
    out = imported(release, tmp_path / "x.safetensors")
    run("export-i2sb", out, "-o", tmp_path / "back" / "latest.pt", *HEADS)
    with (tmp_path / "back" / "options.pkl").open("rb") as file:
        written = pickle.load(file)  # our own file
    recorded = load_namespace(release / "options.pkl")
    assert isinstance(written, argparse.Namespace) and isinstance(written.ckpt_path, Path)
    assert set(vars(written)) == set(recorded)
    meaning = ("corrupt", "image_size", "interval", "beta_max", "t0", "T", "ot_ode", "cond_x1", "add_x1_noise")
    assert {k: getattr(written, k) for k in meaning} == {k: recorded[k] for k in meaning}
    again = tmp_path / "again.safetensors"
    assert run("import-i2sb", tmp_path / "back" / "latest.pt", "-o", again, *HEADS) == 0
    assert read_configuration(again) == read_configuration(out)
    assert all(torch.equal(value, load_weights(out)[name]) for name, value in load_weights(again).items())


def test_other_network_times_travel_there_and_back(tiny, tmp_path):
    options = load_namespace(tiny / "options.pkl") | {"t0": 1e-3, "T": 0.5}
    (tiny / "options.pkl").write_bytes(pickle.dumps(argparse.Namespace(**options)))
    out = imported(tiny, tmp_path / "x.safetensors")
    bridge = read_block(BridgeOptions, read_configuration(out)["bridge"], "bridge").build()
    expected = np.linspace(1e-3, 0.5, options["interval"]) * options["interval"]
    np.testing.assert_allclose(bridge.network_time.numpy(), expected, rtol=1e-12)
    assert run("export-i2sb", out, "-o", tmp_path / "back" / "latest.pt", *HEADS) == 0
    back = load_namespace(tmp_path / "back" / "options.pkl")
    assert (back["t0"], back["T"]) == (1e-3, 0.5)


def test_the_import_says_the_licence_and_writes_an_option_file_that_tests(release, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    imported(release, Path("sr4x.safetensors"))
    said = capsys.readouterr().out
    assert "CC BY-NC-SA 4.0" in said and "basicsr test -opt sr4x.yml" in said
    opt = load_yaml("sr4x.yml")
    assert check(opt, is_train=False) == []
    assert opt["datasets"]["test"]["degradation"] == {"type": "sr4x_pool"} and opt["bridge"]["lift"] == "nearest"
    assert run("test", "-opt", "sr4x.yml") == 0
    found = json.loads(Path("results/test_sr4x/metrics.json").read_text())
    assert len(found["datasets"]["photographs"]["images"]) == 3


def test_an_imported_file_restores_by_itself(release, tmp_path):
    from i2sb_plugin import Restorer

    restorer = Restorer.load(imported(release, tmp_path / "x.safetensors"), device="cpu")
    image = restorer(np.full((6, 9, 3), 128, np.uint8), nfe=2, seed=0)
    assert restorer.scale == 4 and image.shape == (24, 36, 3)


def test_without_options_the_task_has_the_papers_settings(tiny, tmp_path):
    (tiny / "options.pkl").unlink()
    latest, out = tiny / "latest.pt", tmp_path / "x.safetensors"
    for task, (degradation, scale) in TASKS.items():
        assert run("import-i2sb", latest, "-o", out, "--corrupt", task, *HEADS) == 0
        found = read_configuration(out)
        noiseless = task.startswith(("blur", "inpaint"))
        assert found["released"]["degradation"] == degradation and found["scale"] == scale
        assert found["bridge"]["ot_ode"] == noiseless and found["bridge"]["beta_max"] == (1.0 if noiseless else 0.3)
        assert check(load_yaml(out.with_suffix(".yml")), is_train=False) == []


# ---- networks by their shapes


@pytest.mark.parametrize("name", [*names("unet_*.json"), *names("unet_u*.npz")])
def test_the_network_is_told_by_its_shapes(name):
    made = golden_json(name)["create_model_kwargs"] if name.endswith("json") else params(name)["create_model"]
    if name.endswith("json"):
        shapes = {k: tuple(v) for k, v in golden_json(name)["state_dict"].items()}
    else:
        shapes = {k[2:]: v.shape for k, v in golden(name).items() if k.startswith("w:")}
    found = infer_network(shapes, name, made.get("num_head_channels", -1))
    assert list(network_shapes(found).items()) == list(shapes.items())
    wanted = unet_options(made)
    assert found.get("cond_channels", 0) == wanted["cond_channels"]
    if "full256" in name:  # the paper's network is the preset itself
        assert set(found) - {"cond_channels"} == {"type", "preset", "in_channels", "out_channels"}
        return
    with torch.device("meta"):
        layout = ADMUNet(**{k: v for k, v in found.items() if k != "type"}).layout
    for option in ("model_channels", "num_res_blocks", "use_scale_shift_norm", "resblock_updown"):
        assert getattr(layout, option) == wanted[option]
    assert tuple(layout.channel_mult) == wanted["channel_mult"]
    assert sorted(layout.attention_ds) == sorted(wanted["attention_ds"])


@pytest.mark.parametrize(
    "options",
    [
        {"preset": "tiny"},
        {"preset": "small", "cond_channels": 4},
        {"preset": "tiny", "conv_resample": False},
        {"preset": "tiny", "in_channels": 4, "out_channels": 4, "channel_mult": [1, 1.5, 2], "model_channels": 64},
    ],
    ids=str,
)
def test_other_networks_are_told_too(options):
    shapes = network_shapes(options)
    assert network_shapes(infer_network(shapes, "file", num_head_channels=32)) == shapes


# ---- ADM


@pytest.fixture
def adm(tmp_path):
    """Weights as ADM publishes them: a bare state dict of a network that predicts mean and variance."""
    torch.manual_seed(0)
    net = ADMUNet(preset="adm256", out_channels=6, model_channels=32, channel_mult=[1, 2], attention_ds=[2],
                  num_res_blocks=1, num_head_channels=32)  # fmt: skip
    state = {name: torch.randn_like(value) for name, value in net.state_dict().items()}
    torch.save(state, tmp_path / "uncond.pt")
    return tmp_path / "uncond.pt", state


@pytest.mark.parametrize("cond_channels", [0, 3, 5])
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_adm_weights_start_a_bridge_with_and_without_condition(adm, tmp_path, cond_channels, ending):
    path, state = adm
    out = tmp_path / f"start.{ending}"
    words = ("import-adm", path, "-o", out, "--cond-channels", cond_channels, "--num-head-channels", 32)
    assert run(*words) == 0
    network = read_configuration(out)["network_g"]
    net = ADMUNet(**{k: v for k, v in network.items() if k != "type"})
    found = load_weights(out)
    net.load_state_dict(found, strict=True)
    assert torch.equal(found["out.2.weight"], state["out.2.weight"][:3])
    assert torch.equal(found["out.2.bias"], state["out.2.bias"][:3])
    first = found["input_blocks.0.0.weight"]
    assert first.shape == (32, 3 + cond_channels, 3, 3)
    assert torch.equal(first[:, :3], state["input_blocks.0.0.weight"])
    if cond_channels:
        drawn, bound = first[:, 3:], (9 * (3 + cond_channels)) ** -0.5
        assert 0.95 * bound < float(drawn.abs().max()) <= bound
        assert float(drawn.std()) == pytest.approx(bound / 3**0.5, rel=0.06)
        again = tmp_path / f"again.{ending}"
        assert run(*words[:3], again, *words[4:]) == 0
        assert torch.equal(load_weights(again)["input_blocks.0.0.weight"], first)
        assert run(*words[:3], again, *words[4:], "--seed", 1) == 0
        assert not torch.equal(load_weights(again)["input_blocks.0.0.weight"], first)
    untouched = set(state) - {"out.2.weight", "out.2.bias", "input_blocks.0.0.weight"}
    assert all(torch.equal(found[k], state[k]) for k in untouched)


def test_class_conditional_and_other_files_are_no_start(adm, tmp_path, tiny, capsys):
    path, state = adm
    torch.save({**state, "label_emb.weight": torch.zeros(1000, 128)}, path)
    out = tmp_path / "start.safetensors"
    assert run("import-adm", path, "-o", out, "--num-head-channels", 32) == 2
    assert "class-conditional" in capsys.readouterr().err
    assert run("import-adm", tiny / "latest.pt", "-o", out) == 2
    assert "no bare state dict" in capsys.readouterr().err
    assert not out.exists()


# ---- what is refused


class Command:
    """Runs a shell command when it is unpickled."""

    def __init__(self, line):
        self.line = line

    def __reduce__(self):
        return os.system, (self.line,)


class Evaluation:
    def __reduce__(self):
        return eval, ("__import__('os').getpid()",)


def test_a_pickle_with_code_runs_nothing_and_is_named(tmp_path, capsys, tiny):
    marker = tmp_path / "ran"
    for evil, said in ((Command(f"touch {marker}"), f"{os.system.__module__}.system"), (Evaluation(), "builtins.eval")):
        for content in (evil, argparse.Namespace(corrupt="sr4x-pool", device=evil)):
            for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
                (tiny / "options.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
                assert run("import-i2sb", tiny / "latest.pt", "-o", tmp_path / "x.safetensors", *HEADS) == 2
                error = capsys.readouterr().err
                assert f"asks to load {said}, which is refused because it can run code" in error
    assert not marker.exists() and not (tmp_path / "x.safetensors").exists()


def test_a_checkpoint_with_code_runs_nothing_and_is_named(tiny, tmp_path, capsys):
    marker = tmp_path / "ran"
    saved = load(tiny / "latest.pt")
    torch.save({**saved, "sched": Command(f"touch {marker}")}, tiny / "latest.pt")
    assert run("import-i2sb", tiny / "latest.pt", "-o", tmp_path / "x.safetensors", *HEADS) == 2
    assert (
        f"holds {os.system.__module__}.system, which is not loaded because it can run code" in capsys.readouterr().err
    )
    assert not marker.exists()


def test_paths_become_texts(tmp_path):
    file = tmp_path / "options.pkl"
    for path, text in ((PosixPath("/data/set"), "/data/set"), (PosixPath("a/b"), "a/b"), (PosixPath("/"), "/"),
                       (PosixPath("."), ".")):  # fmt: skip
        file.write_bytes(pickle.dumps(argparse.Namespace(place=path, sizes=[1, 2], none=None)))
        assert load_namespace(file) == {"place": text, "sizes": [1, 2], "none": None}
    # as a pickle of Windows has it, which pathlib refuses to build on another system
    windows = b"cpathlib\nWindowsPath\n(X\x03\x00\x00\x00C:\\X\x01\x00\x00\x00wtR."
    space = pickle.dumps(argparse.Namespace(place=0), protocol=2).replace(b"K\x00", windows[:-1])
    file.write_bytes(space)
    assert load_namespace(file) == {"place": "C:/w"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no pickled options, or is damaged"),
        (b"not a pickle", "is no pickled options, or is damaged"),
        (pickle.dumps(argparse.Namespace(a=1))[:-9], "is no pickled options, or is damaged"),
        (pickle.dumps({"corrupt": "sr4x-pool"}), "holds dict, not an argparse.Namespace"),
        (pickle.dumps(argparse.Namespace(a=argparse.Namespace(b=1))), "a is no plain value"),
        (b"0" * (1 << 20) + b"1", "is 1048577 bytes long"),
        (b"cpathlib\nPosixPath\n(" + b"X\xff\x0f\x00\x00" + b"a" * 4095 + b"2tR.", "a path that is too long"),
    ],
    ids=["empty", "text", "cut", "dict", "nested", "large", "long path"],
)
def test_other_pickles_are_refused(tmp_path, content, message):
    (tmp_path / "options.pkl").write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_namespace(tmp_path / "options.pkl")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corrupt": "sr4x-pol"}, "corrupt is 'sr4x-pol', which is no task of the release; did you mean sr4x-pool?"),
        ({"interval": 999}, "interval is 999"),
        ({"interval": "1000"}, "interval is '1000'; this is no options file"),
        ({"beta_max": True}, "beta_max is True"),
        ({"cond_x1": True}, "cond_x1 is True but the network has 0 channels for a condition"),
        ({"t0": 2.0}, "t0 is 2.0 and T 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(tiny, tmp_path, capsys, changes, message):
    options = load_namespace(tiny / "options.pkl") | changes
    (tiny / "options.pkl").write_bytes(pickle.dumps(argparse.Namespace(**options)))
    assert run("import-i2sb", tiny / "latest.pt", "-o", tmp_path / "x.safetensors", *HEADS) == 2
    assert message in capsys.readouterr().err


def drop_one(saved):
    saved["ema"]["shadow_params"].pop()


def swap_two(saved):
    shadow = saved["ema"]["shadow_params"]
    shadow[0], shadow[4] = shadow[4], shadow[0]


def other_network(saved):
    saved["net"] = {"diffusion_model.conv_first.weight": torch.zeros(8, 3, 3, 3)}
    saved["ema"]["shadow_params"] = [torch.zeros(8, 3, 3, 3)]


def one_layer_more(saved):
    saved["net"]["diffusion_model.extra.weight"] = torch.zeros(3)
    saved["ema"]["shadow_params"].append(torch.zeros(3))


def no_prefix(saved):
    saved["net"] = {k.removeprefix("diffusion_model."): v for k, v in saved["net"].items()}


def bare(saved):
    for key, value in list(saved.pop("net").items()):
        saved[key.removeprefix("diffusion_model.")] = value


def ours(saved):
    saved["params"] = saved.pop("net")


def no_average(saved):
    saved["ema"] = {"decay": 0.99}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop_one, "the average has 87 tensors but the network 88"),
        (swap_two, "tensor 0 of the average is (32, 3, 3, 3), but diffusion_model.time_embed.0.weight is (128, 32)"),
        (other_network, "holds no U-Net of ADM: 'time_embed.0.weight' is missing"),
        (
            one_layer_more,
            "ADM's U-Net as its first layers describe it: 1 unknown: extra.weight",
        ),
        (no_prefix, "net has time_embed.0.weight; all its names begin with diffusion_model."),
        (bare, "it is a bare U-Net of ADM; use `basicsr import-adm`"),
        (ours, "it is a checkpoint of BasicSR, which path.pretrain_network_g takes as it is"),
        (no_average, "ema has no list shadow_params"),
    ],
)
def test_checkpoints_that_are_something_else_are_refused(tiny, tmp_path, capsys, spoil, message):
    saved = load(tiny / "latest.pt")
    spoil(saved)
    torch.save(saved, tiny / "latest.pt")
    assert run("import-i2sb", tiny / "latest.pt", "-o", tmp_path / "x.safetensors", *HEADS) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists()


def test_files_that_are_cut_short_are_refused(tiny, tmp_path, capsys):
    out = imported(tiny, tmp_path / "x.safetensors")
    for path in (tiny / "latest.pt", out):
        path.write_bytes(path.read_bytes()[:-5000])
    assert run("import-i2sb", tiny / "latest.pt", "-o", tmp_path / "y.safetensors", *HEADS) == 2
    assert "is damaged or cut short" in capsys.readouterr().err
    assert run("export-i2sb", out, "-o", tmp_path / "back.pt") == 2
    assert "is damaged or cut short" in capsys.readouterr().err
    with pytest.raises(InputError, match="damaged or cut short"):
        read_configuration(out)


def test_missing_words_name_their_cure(tiny, tmp_path, capsys):
    latest, out = tiny / "latest.pt", tmp_path / "x.safetensors"
    assert run("import-i2sb", latest, "-o", out) == 2
    assert "--num-head-channels N" in capsys.readouterr().err
    assert run("import-i2sb", latest, "-o", tmp_path / "x.bin", *HEADS) == 2
    assert "ends in .safetensors" in capsys.readouterr().err
    assert run("import-i2sb", tmp_path / "nothing.pt", "-o", out) == 2
    assert "no such checkpoint file" in capsys.readouterr().err
    (tiny / "options.pkl").unlink()
    assert run("import-i2sb", latest, "-o", out, *HEADS) == 2
    assert "give its path, or the task as --corrupt" in capsys.readouterr().err


def test_weights_of_other_networks_are_not_exported(tmp_path, capsys):
    torch.save({"params": {"conv.weight": torch.zeros(3, 3)}}, tmp_path / "net.pth")
    assert run("export-i2sb", tmp_path / "net.pth", "-o", tmp_path / "latest.pt") == 2
    assert "holds no U-Net of ADM" in capsys.readouterr().err


@pytest.mark.parametrize(
    "network", [{"type": "ADMUNet", "preset": "fast"}, {"type": "ConditionalNAFNet"}, None], ids=str
)
def test_networks_that_the_release_does_not_know_are_not_exported(tmp_path, capsys, network):
    state = ADMUNet(preset="fast").state_dict()
    held = {"config": json.dumps({"network_g": network})} if network else {}
    torch.save({"params": state, **held}, tmp_path / "net.pth")
    assert run("export-i2sb", tmp_path / "net.pth", "-o", tmp_path / "latest.pt") == 2
    said = capsys.readouterr().err
    assert ("ConditionalNAFNet" if network == {"type": "ConditionalNAFNet"} else "network_g.unshuffle is 2") in said
    assert not (tmp_path / "latest.pt").exists()


def test_a_trained_network_is_exported_with_a_word_about_its_bridge(tmp_path, capsys):
    torch.manual_seed(0)
    raw, average = (ADMUNet(preset="tiny").state_dict() for _ in range(2))
    average = {k: v + 1 for k, v in average.items()}
    torch.save({"params": raw, "params_ema": average}, tmp_path / "net_g_5.pth")
    assert run("export-i2sb", tmp_path / "net_g_5.pth", "-o", tmp_path / "latest.pt") == 0
    assert "does not say what bridge it was trained on" in capsys.readouterr().out
    saved = load(tmp_path / "latest.pt")
    assert all(torch.equal(saved["net"][f"diffusion_model.{k}"], v) for k, v in raw.items())
    assert all(torch.equal(a, b) for a, b in zip(saved["ema"]["shadow_params"], average.values(), strict=True))
    assert not (tmp_path / "options.pkl").exists()
    assert read_weights(tmp_path / "net_g_5.pth").configuration["network_g"]["resblock_updown"] is False


# ---- the commands


def test_help_lists_the_commands_without_importing_them():
    script = (
        "import sys\nfrom basicsr_ext import cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'i2sb_plugin', 'safetensors'} & set(sys.modules)"
    )
    done = python("-c", script)
    assert done.returncode == 0, done.stderr
    assert all(f"\n    {name}" in done.stdout for name in ("import-i2sb", "export-i2sb", "import-adm"))


def test_a_command_of_a_plugin_gets_the_rest_of_the_line_and_may_be_broken(monkeypatch, capsys):
    points = [
        metadata.EntryPoint("count", "builtins:len", cli.GROUP),
        metadata.EntryPoint("gone", "no_such_package:run", cli.GROUP),
        metadata.EntryPoint("test", "builtins:len", cli.GROUP),  # cannot take the place of ours
    ]
    monkeypatch.setattr(cli.metadata, "entry_points", lambda group: points)
    assert run("count", "a", "b", "--c") == 3
    assert run("gone") == 2
    assert "gone: no_such_package:run " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("test", "--help")
    assert capsys.readouterr().out.startswith("usage: basicsr test")
