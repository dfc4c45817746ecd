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


@pytest.mark.parametrize("share", ["0", "0.25", "1"])
def test_a_mix_lies_between_two_trainings(here, capsys, share):
    first, second = weights(TRAINED), weights(TRAINED, seed=1)
    checkpoint = run_folder(here, TRAINED)
    other = checkpoint.with_name("second.pth")
    torch.save(second, other)
    code, _, said = run(capsys, "export", checkpoint, "--mix", other, share, "-o", "mixed.safetensors")
    assert code == 0 and "note" not in said
    mixed = load_weights("mixed.safetensors")
    for name, value in mixed.items():
        wanted = (1 - float(share)) * first[name] + float(share) * second[name]
        torch.testing.assert_close(value, wanted, rtol=0, atol=1e-6)
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_a_mix_of_what_does_not_fit_is_refused_and_of_another_kind_is_said(here, capsys):
    checkpoint = run_folder(here, TRAINED)
    assert run(capsys, "export", checkpoint, "-o", "same.safetensors")[0] == 0
    wide = TRAINED | {"name": "wide", "network_g": NET | {"cond_channels": 1}}
    assert run(capsys, "export", run_folder(here, wide), "-o", "wide.safetensors")[0] == 0
    for other, share, said in (
        ("wide.safetensors", "0.5", "--mix wide.safetensors: its network is another one, input_blocks.0.0.weight of 1"),
        ("same.safetensors", "1.5", "--mix OTHER 1.5: the share of OTHER must be a number from 0 to 1"),
        ("same.safetensors", "half", "--mix OTHER half: the share of OTHER must be"),
        ("missing.safetensors", "0.5", "--mix missing.safetensors: no such file"),
    ):
        code, _, err = run(capsys, "export", checkpoint, "-o", "mixed.safetensors", "--mix", other, share)
        assert code == 2 and said in err, err
        assert not (here / "mixed.safetensors").exists()
    twin = TRAINED | {"name": "twin", "bridge": {"steps": 100, "predicts": "x0"}}
    assert run(capsys, "export", run_folder(here, twin), "-o", "twin.safetensors")[0] == 0
    code, _, err = run(capsys, "export", checkpoint, "-o", "mixed.safetensors", "--mix", "twin.safetensors", "0.5")
    assert code == 0 and "the two differ in bridge; the file has the first one's options" in err


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
