"""``basicsr export``: what it writes restores as the run's checkpoint does, without the run."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from basicsr_ext.checkpoints.storage import load_weights, read_safetensors_metadata
from basicsr_ext.common.files import digest
from tests.support.cli_runs import run
from tests.support.trained import BRIDGE, RRDB, run_folder, weights

NET = {"type": "ADMUNet", "preset": "tiny", "channel_mult": [1], "in_channels": 3, "out_channels": 3}
TRAINED = BRIDGE | {
    "network_g": NET,
    "train": {"total_iter": 10, "precision": "fp32"},
    "path": {"pretrain_network_g": "/home/me/secret.pth"},
    "datasets": {},
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.ascontiguousarray(data.astronaut()[:24, 200:232])).save(tmp_path / "a.png")
    return tmp_path


def restored(capsys, checkpoint, out):
    code, _, said = run(capsys, "restore", "-i", "a.png", "-o", out, "--checkpoint", checkpoint)
    assert code == 0, said
    return np.asarray(Image.open(out))


@pytest.mark.parametrize("opt", [TRAINED, RRDB], ids=lambda opt: opt["model_type"])
def test_the_file_alone_restores_as_the_run_does(here, capsys, opt):
    checkpoint = run_folder(here, opt)
    code, out, _ = run(capsys, "export", checkpoint, "-o", "give/away.safetensors", "--license", "CC0-1.0")
    file = here / "give/away.safetensors"
    assert code == 0 and digest(file) in out and f"{file.stat().st_size:,} bytes" in out
    wanted = restored(capsys, checkpoint, "run.png")
    (here / "experiments").rename(here / "gone")
    assert (restored(capsys, file, "file.png") == wanted).all()


def test_it_holds_the_options_of_restoring_and_nothing_of_the_run(here, capsys):
    words = ["--license", "CC0-1.0", "--about", "undoes nothing"]
    assert run(capsys, "export", run_folder(here, TRAINED), "-o", "a.safetensors", *words)[0] == 0
    notes = read_safetensors_metadata("a.safetensors")
    assert (notes["license"], notes["about"]) == ("CC0-1.0", "undoes nothing")
    assert json.loads(notes["config"]) == {
        "name": "bridge", "model_type": "I2SBModel", "scale": 1, "bridge": {"steps": 100}, "network_g": NET,
        "train": {"precision": "fp32"}, "val": {"sampler": {"type": "ancestral", "nfe": 2}},
    }  # fmt: skip


def test_half_is_half_the_size_and_rounds_once(here, capsys):
    checkpoint, given = run_folder(here, TRAINED), weights(TRAINED)
    for flags in ([], ["--half"]):
        assert run(capsys, "export", checkpoint, "-o", f"{len(flags)}.safetensors", *flags)[0] == 0
    sizes = [(here / f"{k}.safetensors").stat().st_size for k in (0, 1)]
    saved = sizes[0] - sizes[1]
    assert saved == pytest.approx(2 * sum(value.numel() for value in given.values()), abs=200)  # the header's offsets
    halves = load_weights("1.safetensors")
    assert all(torch.equal(halves[name], value.half()) for name, value in given.items())
    whole, half = (restored(capsys, f"{k}.safetensors", f"{k}.png").astype(int) for k in (0, 1))
    assert np.abs(whole - half).max() <= 1


def test_what_cannot_be_is_refused(here, capsys):
    checkpoint = run_folder(here, TRAINED)
    large = weights(TRAINED)
    large["out.2.bias"] += 70_000
    torch.save(large, here / "experiments/bridge/models/large.pth")
    (here / "new.safetensors").touch()
    for words, said in (
        (["missing.pth", "-o", "a.safetensors"], "missing.pth: no such file"),
        (["new.safetensors", "-o", "../" + here.name + "/new.safetensors"], "is the checkpoint itself"),
        ([checkpoint, "-o", "a.pth"], "-o a.pth: give a name that ends in .safetensors"),
        ([checkpoint.with_name("large.pth"), "-o", "a.safetensors", "--half"], "--half: out.2.bias has values beyond"),
    ):
        code, _, error = run(capsys, "export", *words)
        assert code == 2 and said in error, error
    assert not (here / "a.safetensors").exists()
