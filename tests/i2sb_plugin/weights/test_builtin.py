"""The built-in network: small, complete, free, in every distribution, and better than bicubic where it has not been."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from basicsr_ext.benchmark.report import tables
from basicsr_ext.checkpoints.storage import read_safetensors_metadata
from basicsr_ext.options.file import load_yaml
from docs.make import free_photographs
from i2sb_plugin import Restorer
from i2sb_plugin.data.photographs import TRAINING, prepare
from i2sb_plugin.degradations import build_degradation
from i2sb_plugin.weights import builtin
from tests.support.cli_runs import run

ROOT = Path(__file__).parents[3]
FILE = builtin.checkpoint()
OPTIONS = ROOT / "options/i2sb_sr4x_builtin.yml"
MARGIN = 0.7  # dB of RGB, with one evaluation


@pytest.fixture(scope="module")
def astronaut(tmp_path_factory):
    """The photograph, H,W,C in uint8, and its folder with the x4-smaller version."""
    folder = tmp_path_factory.mktemp("astronaut")
    clean = np.asarray(Image.open(prepare(folder / "photographs") / "val/astronaut.png")).copy()
    planes = torch.from_numpy(clean).permute(2, 0, 1) / 255
    small = build_degradation({"type": "sr4x_bicubic"})(planes, torch.Generator()).lq.clamp(0, 1)
    Image.fromarray((small * 255).round().byte().permute(1, 2, 0).numpy()).save(folder / "small.png")
    return clean, folder


def bicubic(path):
    small = torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1)[None] / 255
    large = F.interpolate(small, scale_factor=4, mode="bicubic", antialias=True).clamp(0, 1)[0]
    return (large * 255).round().byte().permute(1, 2, 0).numpy()


def gain(clean, restored, small):
    """PSNR above bicubic, dB."""
    return peak_signal_noise_ratio(clean, restored) - peak_signal_noise_ratio(clean, bicubic(small))


def test_it_is_below_a_million_bytes_and_says_its_licence_and_options():
    assert FILE.stat().st_size < 1_000_000
    notes = read_safetensors_metadata(FILE)
    assert "Apache-2.0" in notes["license"] and "4 times" in notes["about"]
    inside, options = json.loads(notes["config"]), load_yaml(OPTIONS)
    assert inside["bridge"].pop("residual_variance") > 0, "measured, since the file says auto"
    for block in ("model_type", "scale", "bridge", "network_g"):
        assert inside[block] == options[block]
    assert inside["val"]["sampler"] == options["val"]["sampler"]


def test_its_card_tells_its_hash_and_every_photograph_it_saw():
    card = (ROOT / "docs/builtin.md").read_text()
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() in card
    seen = OPTIONS.with_suffix(".txt").read_text().split()
    samples = sorted(f"{Path(file).stem}.png" for file in TRAINING if "motorcycle" not in file)
    assert samples == [name for name in seen if name.endswith(".png")]
    for file, note in TRAINING.items():
        assert (f"| `{file}` | {note} |" in card) == (f"{Path(file).stem}.png" in seen)
    others = [Path(name).stem for name in seen if name.endswith(".jpg")]
    assert len(others) == 16 and all(f"`{name}`" in card for name in others)
    assert set(seen) == {*samples, *(f"{name}.jpg" for name in others)}


def test_what_it_saw_is_laid_out_from_its_sources(tmp_path, monkeypatch):
    (tmp_path / "clone/backgrounds").mkdir(parents=True)
    names = ["brick.png", "wide.jpg", "tall.jpg"]
    Image.new("RGB", (3840, 2161), (200, 10, 10)).save(tmp_path / "clone/backgrounds/wide.jpg")
    Image.new("L", (100, 256), 90).save(tmp_path / "clone/backgrounds/tall.jpg")
    (tmp_path / "names.txt").write_text("\n".join(names))
    monkeypatch.setattr(free_photographs, "NAMES", tmp_path / "names.txt")
    free_photographs.lay_out(tmp_path / "clone", tmp_path / "free")
    assert sorted(path.name for path in (tmp_path / "free").iterdir()) == sorted(names)
    sizes = {path.name: (Image.open(path).size, Image.open(path).mode) for path in (tmp_path / "free").iterdir()}
    assert sizes == {
        "brick.png": ((512, 512), "RGB"), "wide.jpg": ((1536, 864), "RGB"), "tall.jpg": ((600, 1536), "RGB"),
    }  # fmt: skip


def test_its_card_shows_the_table_of_the_records_and_the_default_is_best():
    records = json.loads((ROOT / "studies/quality/results/builtin.json").read_text())
    card = (ROOT / "docs/builtin.md").read_text()
    assert [line for line in tables.markdown(records).splitlines() if line.startswith("|") and line not in card] == []
    lpips, dists = (
        {r["method"]: r["summary"][metric]["value"] for r in records["results"]} for metric in ("lpips", "dists")
    )
    sampler = load_yaml(OPTIONS)["val"]["sampler"]
    default = f"builtin_dial{sampler['dial']}"
    assert sampler["nfe"] == 1 and lpips[default] < min(lpips.values()) + 0.005
    assert dists[default] < min(dists.values()) + 0.002
    psnr = {r["method"]: r["summary"]["psnr_y"]["value"] for r in records["results"]}
    curve = [psnr[f"builtin_dial{dial}"] for dial in (0, 0.25, 0.5, 0.75, 1)]
    assert curve == sorted(curve) and curve[0] > psnr["bicubic"], "from realism to fidelity"


def test_its_card_shows_every_seed_of_its_training():
    record = json.loads((ROOT / "studies/quality/results/builtin_choice.json").read_text())
    card = (ROOT / "docs/builtin.md").read_text()
    for one in record["runs"]:
        for dial, sets in one["dial"].items():
            figures = [
                f"{sets[data]['psnr_y']:.2f} / {sets[data]['lpips']:.3f} / {sets[data]['dists']:.3f}"
                for data in ("bsds", "sample:val")
            ]
            assert f"| {one['seed']} | {dial} | {' | '.join(figures)} |" in card


def test_one_evaluation_is_better_than_bicubic_on_a_photograph_it_never_saw(astronaut):
    clean, folder = astronaut
    restored = Restorer.load(device="cpu")(folder / "small.png", nfe=1)
    assert gain(clean, restored, folder / "small.png") > MARGIN


def test_restore_without_a_checkpoint_takes_it_in_any_folder_and_offline(astronaut, tmp_path, monkeypatch, capsys):
    clean, folder = astronaut
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("socket.socket.connect", None)
    code, _, said = run(capsys, "restore", "-i", folder / "small.png", "-o", "large.png", "--device", "cpu")
    assert code == 0 and "no --checkpoint, so the built-in i2sb_sr4x restores: enlarges" in said
    restored = np.asarray(Image.open("large.png"))
    assert restored.shape == clean.shape and gain(clean, restored, folder / "small.png") > 0.2
    assert {path.name for path in tmp_path.iterdir()} == {"large.png"}


@pytest.mark.parametrize("flag", ["-opt", "--mask", "--cond"])
def test_what_it_cannot_do_is_refused(flag, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (32, 32)).save("a.png")
    code, _, said = run(capsys, "restore", "-i", "a.png", "-o", "out", flag, "a.png")
    assert (
        code == 2
        and f"error: {flag} is given without --checkpoint, but i2sb_sr4x" in said
        and "give --checkpoint" in said
    )
    assert not Path("out").exists()


def test_wheel_and_source_release_hold_it(tmp_path):
    for name in ("setup.py", "pyproject.toml", "README.md", "requirements.txt", "LICENSE", "MANIFEST.in"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tmp_path)
    for package in ("i2sb_plugin", "basicsr_ext", "options"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    words = [sys.executable, "setup.py", "-q", "sdist", "bdist_wheel"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, env=os.environ | {"PYTHONWARNINGS": "ignore"})
    wheel, source = next((tmp_path / "dist").glob("*.whl")), next((tmp_path / "dist").glob("*.tar.gz"))
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("i2sb_plugin/weights/i2sb_sr4x.safetensors") == FILE.read_bytes()
        points = next(archive.read(name) for name in archive.namelist() if name.endswith("entry_points.txt"))
    assert re.search(rb"\[basicsr.checkpoints\]\s+i2sb_sr4x = i2sb_plugin.weights.builtin:checkpoint", points)
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"i2sb_plugin/weights/i2sb_sr4x.safetensors", "requirements.txt"} <= names
