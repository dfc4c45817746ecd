"""Graphs of ONNX: they restore as the network does, on images of any size, and say what they cannot hold."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from i2sb_plugin import Restorer
from tests.support.cli_runs import run
from tests.support.trained import BRIDGE, RRDB, SWINIR, run_folder

onnx = pytest.importorskip("onnx", reason="needs the extra `onnx`")
runtime = pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")

UNET = {"type": "ADMUNet", "preset": "tiny", "channel_mult": [1], "in_channels": 3, "out_channels": 3}
NAFNET = {
    "type": "ConditionalNAFNet", "in_channels": 3, "out_channels": 3, "width": 8, "encoder_blocks": [1],
    "middle_blocks": 1, "decoder_blocks": [1], "pool_size": 24,
}  # fmt: skip
MSR = {"type": "MSRResNet", "num_feat": 8, "num_block": 1}
ADAPTER = {"type": "BridgeAdapter", "network": MSR, "in_channels": 3, "out_channels": 3, "unshuffle": 4}
STUDENT = {
    "name": "student", "model_type": "BridgeStudentModel", "network_g": UNET | {"cond_channels": 6},
    "bridge": {"steps": 100, "cond_x1": True}, "student": {"nodes": 5}, "val": {"sampler": {}},
}  # fmt: skip
ATTENDING = {"channel_mult": [1, 1], "attention_ds": [2], "num_head_channels": 32}
OT = ["--sampler", "ot_ode"]

FAMILIES = {
    "unet": ({"network_g": UNET | ATTENDING, "scale": 2}, ["--nfe", 1]),
    "unshuffled": ({"network_g": UNET | {"unshuffle": 2, "full_size": 4}, "scale": 3}, [*OT, "--nfe", 3]),
    "nafnet": ({"network_g": NAFNET}, [*OT, "--nfe", 4]),
    "adapter": ({"network_g": ADAPTER, "scale": 4}, ["--nfe", 1]),
    "dbim": ({"network_g": UNET, "scale": 2}, ["--sampler", "dbim", "--nfe", 3, "--order", 2]),
    "dial": (
        {"network_g": UNET | {"cond_channels": 4}, "bridge": {"steps": 100, "cond_x1": True, "dial": True}, "scale": 4},
        ["--nfe", 1, "--dial", 0.3],
    ),
    "student": (STUDENT | {"scale": 2}, ["--dial", 0.25]),
    "regression": (
        {"model_type": "RegressionModel", "bridge": None, "val": {}, "regression": {"lift": "nearest"},
         "network_g": UNET, "scale": 2}, [],
    ),
    "plain": (RRDB, []),
}  # fmt: skip


def options(**changes) -> dict:
    return {key: value for key, value in (BRIDGE | changes).items() if value is not None}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.ascontiguousarray(data.astronaut()[:21, 200:235])).save(tmp_path / "a.png")
    return tmp_path


@pytest.fixture
def checkpoint(here):
    return run_folder(here, options(network_g=UNET))


def flags_of(words) -> dict:
    return dict(zip((word[2:] for word in words[::2]), words[1::2]))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_graph_restores_as_the_network_does(here, capsys, family):
    changes, words = FAMILIES[family]
    path = run_folder(here, options(**changes))
    code, out, error = run(capsys, "export", path, "-o", "graph.onnx", *words)
    assert code == 0 and "differs from the network" in out, error
    network, graph = Restorer.load(path, device="cpu"), Restorer.load("graph.onnx", device="cpu")
    assert graph.scale == network.scale
    for seed, shape in enumerate([(3, 37, 53), (3, 24, 64), (2, 3, 33, 50), (3, 5, 3)]):
        image = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
        wanted = network(image, seed=seed, **flags_of(words))
        torch.testing.assert_close(graph(image, seed=seed), wanted, rtol=0, atol=1e-5)


def test_what_a_file_says_of_itself(here, capsys, checkpoint):
    words = ["--license", "CC0-1.0", "--about", "undoes nothing", "--nfe", 1]
    assert run(capsys, "export", checkpoint, "-o", "graph.onnx", *words)[0] == 0
    session = runtime.InferenceSession("graph.onnx")
    (image,), (restored,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(float)", ["batch", 3, "height", "width"])
    assert (restored.name, restored.shape) == ("restored", ["batch", 3, "height", "width"])
    said = session.get_modelmeta().custom_metadata_map
    wanted = {"name": "graph", "task": "restoration", "scale": "1", "nfe": "1", "license": "CC0-1.0",
              "about": "undoes nothing", "sampler": "ancestral", "network": "ADMUNet"}  # fmt: skip
    assert wanted.items() <= said.items() and "in [0, 1]" in said["image"] and "dial" not in said
    model = onnx.load("graph.onnx")
    assert [entry.version for entry in model.opset_import] == [17]
    assert str(here) not in str(model)


def test_in_16_bits_it_is_half_as_large_and_rounds_once(here, capsys, checkpoint):
    for flags in ([], ["--half"]):
        assert run(capsys, "export", checkpoint, "-o", f"{len(flags)}.onnx", "--nfe", 1, *flags)[0] == 0
    assert run(capsys, "export", checkpoint, "-o", "half.safetensors", "--half")[0] == 0
    whole, half = ((here / f"{k}.onnx").stat().st_size for k in (0, 1))
    assert half < 0.6 * whole
    image = torch.rand(3, 20, 30)
    found, wanted = (
        Restorer.load("1.onnx", device="cpu")(image),
        Restorer.load("half.safetensors", device="cpu")(image, nfe=1),
    )
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_masks_and_conditions_are_further_inputs(here, capsys):
    net = UNET | {"cond_channels": 2}
    path = run_folder(here, options(network_g=net, val={"sampler": {"type": "ancestral", "nfe": 1}}))
    assert run(capsys, "export", path, "-o", "graph.onnx", "--mask")[0] == 0
    session = runtime.InferenceSession("graph.onnx")
    assert [entry.name for entry in session.get_inputs()] == ["image", "mask", "cond", "noise"]
    for name, shape in (("mask", (21, 35)), ("cond", (21, 35, 2))):
        picture = np.random.default_rng(0).integers(0, 2, shape, dtype=np.uint8) * 255
        Image.fromarray(picture, "L" if picture.ndim == 2 else "LA").save(f"{name}.png")
    given = ["-i", "a.png", "--mask", "mask.png", "--cond", "cond.png", "--seed", 3]
    for checkpoint, out in ((path, "torch.png"), ("graph.onnx", "onnx.png")):
        code, _, error = run(capsys, "restore", *given, "--checkpoint", checkpoint, "-o", out)
        assert code == 0, error
    one, other = (np.asarray(Image.open(out)).astype(int) for out in ("torch.png", "onnx.png"))
    assert np.abs(one - other).max() <= 1
    code, _, error = run(
        capsys, "restore", "-i", "a.png", "--cond", "cond.png", "--checkpoint", "graph.onnx", "-o", "b.png"
    )
    assert code == 1 and "exported with --mask" in error


def test_restore_by_onnxruntime_gives_the_same_picture(here, capsys, checkpoint):
    assert run(capsys, "export", checkpoint, "-o", "graph.onnx", "--nfe", 1)[0] == 0
    for name, words in {
        "torch": ["--checkpoint", checkpoint, "--nfe", 1],
        "file": ["--checkpoint", "graph.onnx"],
        "same": ["--checkpoint", "graph.onnx", "--backend", "onnx", "--nfe", 1],
        "made": ["--checkpoint", checkpoint, "--backend", "onnx", "--nfe", 1],
        "tiles": ["--checkpoint", "graph.onnx", "--tile", 16, "--overlap", 8, "--tile_batch", 2],
    }.items():
        code, _, error = run(capsys, "restore", "-i", "a.png", "-o", f"{name}.png", *words)
        assert code == 0, error
    found = {
        name: np.asarray(Image.open(f"{name}.png")).astype(int) for name in ("torch", "file", "same", "made", "tiles")
    }
    for name in ("file", "same", "made"):
        assert np.abs(found[name] - found["torch"]).max() <= 1, name
    assert found["tiles"].shape == found["torch"].shape


def test_tiles_of_a_graph_share_one_noise(here, capsys, checkpoint):
    """A graph without layers that see further than a pixel: tiles give what the whole image gives."""
    words = ["--sampler", "dbim", "--nfe", 2]
    with torch.no_grad():
        file = torch.load(checkpoint, weights_only=True)
        for key in ("params", "params_ema"):
            file[key] = {name: torch.zeros_like(value) for name, value in file[key].items()}
        torch.save(file, checkpoint)
    assert run(capsys, "export", checkpoint, "-o", "graph.onnx", *words)[0] == 0
    image = torch.rand(3, 40, 50)
    whole, tiles = (Restorer.load("graph.onnx", device="cpu", tile=tile)(image, seed=1) for tile in (0, 16))
    assert whole.std() > 0.1
    torch.testing.assert_close(tiles, whole, rtol=0, atol=1e-6)


def test_what_no_graph_can_hold_is_refused(here, capsys, checkpoint):
    student = run_folder(here, options(**STUDENT, scale=1))
    swin = run_folder(here, SWINIR)
    (here / "there.onnx").write_bytes(b"kept")
    for words, said in (
        ([checkpoint, "--nfe", 4], "draws noise 3 times, a graph once or not; what a graph can do: any sampler with "
                                   "--nfe 1; with more evaluations --sampler ot_ode, or dbim with --eta 0"),
        ([checkpoint, "--nfe", 4, "--sampler", "dbim", "--eta", 0.5], "draws noise 3 times"),
        ([checkpoint, *OT, "--samples", 2], "leaves std beside its image"),
        ([checkpoint, "--dial", 0.5, "--nfe", 1], "bridge.dial is false: this network has none; leave it out"),
        ([checkpoint, "--nef", 1], "--nef is no flag of restoring with this model; did you mean --nfe?"),
        ([student, "--nfe", 2], "nfe is 2; a student takes 1 evaluation"),
        ([student, "--samples", 2], "leaves std beside its image, but a graph gives one; give --samples 1"),
        ([swin], "depends on the size of the image"),
        ([checkpoint, "--mix", checkpoint, 2], "--mix OTHER 2"),
    ):  # fmt: skip
        code, _, error = run(capsys, "export", *words, "-o", "graph.onnx")
        assert code == 2 and said in error, error
        assert not (here / "graph.onnx").exists()
    code, _, error = run(capsys, "export", checkpoint, "-o", "there.onnx")
    assert code == 2 and "-o there.onnx is there already; give another name" in error
    assert (here / "there.onnx").read_bytes() == b"kept"
    code, _, error = run(capsys, "export", checkpoint, "-o", "a.safetensors", "--nfe", 1)
    assert code == 2 and "--nfe is built into a graph, -o NAME.onnx, alone" in error
    code, _, error = run(capsys, "export", swin, "-o", "graph.onnx", "--mask")
    assert code == 2 and "--mask is given, but this model does not look at masks" in error


def test_restore_says_what_a_file_does_not_hold(here, capsys, checkpoint):
    assert run(capsys, "export", checkpoint, "-o", "graph.onnx", "--nfe", 1)[0] == 0
    other = onnx.load("graph.onnx")
    del other.metadata_props[:]
    onnx.save(other, "other.onnx")
    (here / "cut.onnx").write_bytes((here / "graph.onnx").read_bytes()[:2000])
    (here / "mask.png").write_bytes((here / "a.png").read_bytes())
    for words, said in (
        (["--checkpoint", "other.onnx"], "--checkpoint other.onnx is no graph of `basicsr export`"),
        (["--checkpoint", "cut.onnx"], "--checkpoint cut.onnx: onnxruntime cannot load it"),
        (["--checkpoint", "gone.onnx"], "--checkpoint gone.onnx: no such file"),
        (["--checkpoint", "graph.onnx", "--nfe", 4], "--nfe is 4, but graph.onnx was exported with 1; export it again "
                                                      "with --nfe 4"),
        (["--checkpoint", "graph.onnx", "--dial", 0.5], "--dial is 0.5, but graph.onnx was exported with none"),
        (["--checkpoint", "graph.onnx", "--mask", "mask.png"], "does not look at masks"),
        (["--checkpoint", "graph.onnx", "--backend", "torch"], "--backend is torch, but graph.onnx is a graph"),
        (["--checkpoint", "graph.onnx", "-opt", "a.yml"], "-opt a.yml: graph.onnx has its options built in"),
        (["--checkpoint", checkpoint, "-opt", "graph.onnx"], "give it as --checkpoint"),
        (["--checkpoint", "graph.onnx", "--device", "mps"], "device is mps, but this onnxruntime computes on"),
        (["--checkpoint", checkpoint, "--backend", "onnx", "--nfe", 4], "what a graph can do"),
    ):  # fmt: skip
        code, _, error = run(capsys, "restore", "-i", "a.png", "-o", "b.png", *words)
        assert code == 2 and said in error, error
        assert not (here / "b.png").exists()
    code, _, error = run(capsys, "export", "graph.onnx", "-o", "a.safetensors")
    assert code == 2 and "graph.onnx is a graph, of which no other file is made" in error


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_the_extra_its_pip_line_is_said(here, capsys, monkeypatch, checkpoint, package):
    monkeypatch.setitem(sys.modules, package, None)
    code, _, error = run(capsys, "export", checkpoint, "-o", "graph.onnx", "--nfe", 1)
    assert code == 2 and f"needs the package {package}" in error and "pip install 'basicsr-i2sb[onnx]'" in error


def test_opencv_reads_a_graph(here, capsys):
    """By its engine for graphs of free size, which version 5 has."""
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2.dnn, "ENGINE_NEW"):
        pytest.skip("OpenCV before 5 has no engine for graphs of free size")
    path = run_folder(here, options(network_g=UNET | {"unshuffle": 2}, scale=4))
    assert run(capsys, "export", path, "-o", "graph.onnx", "--nfe", 1)[0] == 0
    net, session = cv2.dnn.readNetFromONNX("graph.onnx", cv2.dnn.ENGINE_NEW), runtime.InferenceSession("graph.onnx")
    for size in ((37, 53), (24, 40)):
        image = np.random.default_rng(0).random((1, 3, *size), dtype=np.float32)
        net.setInput(image, "image")
        np.testing.assert_allclose(net.forward(), session.run(None, {"image": image})[0], rtol=0, atol=1e-5)


def test_the_facts_of_a_file_are_json(here, capsys, checkpoint):
    assert run(capsys, "export", checkpoint, "-o", "graph.onnx", *OT, "--nfe", 2)[0] == 0
    found = json.loads(runtime.InferenceSession("graph.onnx").get_modelmeta().custom_metadata_map["basicsr_ext"])
    assert found["channels"] == [3, 3] and found["flags"]["nfe"] == 2 and found["inputs"] == ["image"]
