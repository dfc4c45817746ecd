import argparse
import io
import os
import pathlib
import pickle
import signal
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch

from basicsr_ext.checkpoints import resumable, storage
from basicsr_ext.common import files
from basicsr_ext.common.errors import InputError
from tests.support.toolkit import apart


def opt_in(folder, networks=("network_g",)):
    paths = {"models": folder / "models", "training_states": folder / "training_states"}
    for path in paths.values():
        path.mkdir(parents=True, exist_ok=True)
    return {"path": {k: str(v) for k, v in paths.items()}, **{n: {} for n in networks}}


def save_pair(opt, iteration):
    state = {"epoch": 0, "iter": iteration, "optimizers": [], "schedulers": []}
    storage.atomic_save(state, f"{opt['path']['training_states']}/{iteration}.state")
    storage.atomic_save({"params": {"w": torch.ones(2)}}, f"{opt['path']['models']}/net_g_{iteration}.pth")


def die_in_a_save(path):
    os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    storage.atomic_save({"w": torch.ones(2)}, path)


def test_a_save_that_is_killed_leaves_the_file_before_it(tmp_path):
    path = tmp_path / "net.pth"
    storage.atomic_save({"w": torch.zeros(2)}, path)
    assert apart(die_in_a_save, path).returncode == -signal.SIGKILL
    assert storage.load_checkpoint(path)["w"].tolist() == [0.0, 0.0]
    assert len(list(tmp_path.iterdir())) == 2
    files.remove_unfinished(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["net.pth"]


def test_a_save_that_fails_raises_with_file_and_cause_and_keeps_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "net.pth"
    storage.atomic_save({"w": 1}, path)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(files.SaveError, match=r"net\.pth.*No space left"):
        storage.atomic_save({"w": 2}, path)
    assert storage.load_checkpoint(path) == {"w": 1} and len(list(tmp_path.iterdir())) == 1


def test_a_save_into_a_missing_folder_names_it(tmp_path):
    with pytest.raises(files.SaveError, match=r"gone.*No such file"):
        storage.atomic_save({}, tmp_path / "gone" / "x.pth")


def test_plain_state_loads_without_running_code(tmp_path, monkeypatch):
    state = {
        "lr": np.float64(0.5),
        "counts": Counter({3: 1}),
        "order": OrderedDict(a=np.int64(2)),
        "array": np.arange(3.0),
        "pair": (np.float32(1), None, True),
    }
    storage.atomic_save(state, tmp_path / "raw.state")
    assert storage.load_checkpoint(tmp_path / "raw.state")["lr"] == 0.5
    monkeypatch.setattr(storage, "_FOREIGN", [])
    with pytest.raises(InputError, match=r"numpy.* can run code"):
        storage.load_checkpoint(tmp_path / "raw.state")
    storage.atomic_save(storage.plain(state), tmp_path / "plain.state")
    loaded = storage.load_checkpoint(tmp_path / "plain.state")
    assert loaded["lr"] == 0.5 and loaded["counts"] == Counter({3: 1}) and loaded["order"] == {"a": 2}
    assert loaded["array"].tolist() == [0.0, 1.0, 2.0] and loaded["pair"] == (1.0, None, True)


def test_a_state_with_a_foreign_object_is_refused_by_place():
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\] is a object"):
        storage.plain({"a": [1, object()]})


@pytest.mark.parametrize("keep", [0, 10, 300, -5])
def test_a_damaged_checkpoint_is_named(tmp_path, keep):
    whole = tmp_path / "whole.pth"
    torch.save({"w": torch.ones(500)}, whole)
    cut = tmp_path / "cut.pth"
    cut.write_bytes(whole.read_bytes()[:keep] if keep else b"")
    for mmap in (False, True):
        with pytest.raises(InputError, match=r"path\.x: .*cut\.pth is damaged"):
            storage.load_checkpoint(cut, "path.x", mmap=mmap)


def test_missing_text_and_code_are_refused_as_checkpoints(tmp_path):
    with pytest.raises(InputError, match="no such checkpoint file"):
        storage.load_checkpoint(tmp_path / "none.pth")
    text = tmp_path / "text.pth"
    text.write_text("this is a readme, not a checkpoint")
    for start, said in (("version https://git-lfs.github", "git lfs pull"), ("<html>", "web page"), ("{}", "index")):
        (tmp_path / "other.pth").write_text(start)
        with pytest.raises(InputError, match=said):
            storage.load_checkpoint(tmp_path / "other.pth")
    torch.save({"iter": 1, "optimizers": [], "schedulers": [], "random": {}}, tmp_path / "1.state")
    with pytest.raises(InputError, match=r"is a training state; give the network .* models/net_\*\.pth"):
        storage.load_weights(tmp_path / "1.state")
    with pytest.raises(InputError, match=r"text\.pth"):
        storage.load_checkpoint(text)
    evil = tmp_path / "evil.pth"
    evil.write_bytes(pickle.dumps({"w": os.getcwd}, protocol=2))
    with pytest.raises(InputError, match=r"\w+\.getcwd, .*run code"):
        storage.load_checkpoint(evil)


def test_weights_are_found_under_their_key_or_bare(tmp_path):
    path = tmp_path / "net.pth"
    torch.save({"params": {"module.w": torch.ones(1)}, "step": 3}, path)
    assert list(storage.load_weights(path)) == ["w"]
    assert list(storage.load_weights(path, "params_ema")) == ["w"]
    with pytest.raises(InputError, match=r"'param'.* params\?"):
        storage.load_weights(path, "param")
    torch.save({"w": torch.ones(1)}, path)
    assert list(storage.load_weights(path, "params")) == ["w"]
    assert list(storage.load_weights(path, None)) == ["w"]


def test_the_newest_pair_that_loads_is_taken(tmp_path):
    opt = opt_in(tmp_path)
    assert resumable.newest_resumable(opt) == (None, []) and storage.newest_checkpoint(opt) is None
    for iteration in (9, 10, 20, 100):
        save_pair(opt, iteration)
    states, models = tmp_path / "training_states", tmp_path / "models"
    (states / "best.state").write_bytes(b"")
    assert resumable.resumable_iterations(opt) == [100, 20, 10, 9]
    assert resumable.newest_resumable(opt) == (states / "100.state", [])
    (states / "100.state").write_bytes((states / "100.state").read_bytes()[:50])
    (models / "net_g_20.pth").unlink()
    found, passed_over = resumable.newest_resumable(opt)
    assert found == states / "10.state"
    assert "100.state is damaged" in passed_over[0] and "net_g_20.pth" in passed_over[1]
    assert storage.newest_checkpoint(opt) == models / "net_g_100.pth"


def test_networks_that_resuming_ignores_need_no_file(tmp_path):
    opt = opt_in(tmp_path, ("network_g", "network_d"))
    save_pair(opt, 5)
    assert resumable.newest_resumable(opt)[0] is None
    opt["path"]["ignore_resume_networks"] = ["network_d"]
    assert resumable.newest_resumable(opt)[0].name == "5.state"


def test_a_network_given_as_a_state_is_refused(tmp_path):
    torch.save({"params": {}}, tmp_path / "net_g_5.pth")
    with pytest.raises(InputError, match=r"path\.resume_state: .*net_g_5\.pth .*training state"):
        storage.load_state(tmp_path / "net_g_5.pth", "path.resume_state")


# ---- what other toolkits put around weights

WEIGHTS = {"a.weight": torch.ones(2, 3), "a.bias": torch.ones(2)}


@pytest.mark.parametrize(
    "content",
    [
        {f"{prefix}{name}": value for name, value in WEIGHTS.items()}
        for prefix in ("", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.")
    ]
    + [{**WEIGHTS, "n_averaged": torch.tensor(3)}, {"state_dict": WEIGHTS, "epoch": 3}, {"params_ema": WEIGHTS}]
    + [{"state_dict": {name: value.numpy() for name, value in WEIGHTS.items()}}]
    + [{"model": WEIGHTS}, {"params": {"n_averaged": torch.tensor(3), "module.a.weight": 0, "module.a.bias": 0}}],
    ids=lambda content: "-".join(content),
)
@pytest.mark.parametrize("key", ["params", "params_ema", None])
def test_weights_are_unwrapped(tmp_path, content, key):
    torch.save(content, tmp_path / "net.pth")
    assert set(storage.load_weights(tmp_path / "net.pth", key)) == set(WEIGHTS)


@pytest.mark.parametrize("beside", [{"optimizer": {"state": {}}}, {"discriminator": WEIGHTS}, {"params": {}}])
@pytest.mark.parametrize("holder", ["model_state_dict", "model", "generator", "g", "netG"])
def test_weights_are_found_beside_other_containers(tmp_path, holder, beside):
    torch.save({holder: WEIGHTS, **beside}, tmp_path / "net.pth")
    assert set(storage.load_weights(tmp_path / "net.pth")) == set(WEIGHTS)


def test_an_average_is_taken_where_it_is_asked_for(tmp_path):
    torch.save({"model": WEIGHTS, "ema": {"average": torch.ones(1)}}, tmp_path / "net.pth")
    assert set(storage.load_weights(tmp_path / "net.pth", "params")) == set(WEIGHTS)
    assert set(storage.load_weights(tmp_path / "net.pth", "params_ema")) == {"average"}


def test_safetensors_are_known_by_their_bytes_not_by_their_name(tmp_path):
    storage.save_safetensors(WEIGHTS, tmp_path / "a.safetensors", {"config": '{"network_g": {}}'})
    (tmp_path / "a.safetensors").rename(tmp_path / "a.pth")
    torch.save(WEIGHTS, tmp_path / "b.safetensors")
    for name in ("a.pth", "b.safetensors"):
        assert set(storage.load_weights(tmp_path / name)) == set(WEIGHTS)
    assert storage.read_configuration(tmp_path / "a.pth") == {"network_g": {}}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.ones(2).to_sparse(), "sparse"),
        (torch.ones(2, dtype=torch.complex64), "complex"),
        (torch.ones(2, device="meta"), "meta"),
        (torch.tensor([1, torch.nan]), "NaN.* diverged"),
    ],
)
def test_tensors_that_no_network_can_take_are_refused_by_name(tmp_path, value, said):
    torch.save({"params": {**WEIGHTS, "a.bias": value}}, tmp_path / "net.pth")
    with pytest.raises(InputError, match=rf"net\.pth: a\.bias .*{said}"):
        storage.load_weights(tmp_path / "net.pth")


def test_archives_programs_and_folders_are_no_checkpoints(tmp_path):
    np.savez(tmp_path / "arrays.npz", a=1)
    with pytest.raises(InputError, match=r"arrays\.npz is a zip archive"):
        storage.load_checkpoint(tmp_path / "arrays.npz")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as file:
        for part in ("data.pkl", "constants.pkl"):
            file.writestr(f"script/{part}", b"")
    with pytest.raises(InputError, match=r"script\.pt is a TorchScript program"):
        storage.load_checkpoint(tmp_path / "script.pt")
    with pytest.raises(InputError, match="a folder: "):
        storage.load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "beside",
    [np.float64(31.2), np.bool_(True), np.zeros((2, 2), np.uint8), [np.float16(1)], argparse.Namespace(a=np.int32(2))],
    ids=lambda beside: type(beside).__name__,
)
def test_figures_and_arguments_beside_weights_do_not_keep_them_from_loading(tmp_path, beside):
    torch.save({"state_dict": WEIGHTS, "best_psnr": beside}, tmp_path / "net.pth")
    assert set(storage.load_weights(tmp_path / "net.pth")) == set(WEIGHTS)


def test_figures_of_the_other_numpy_load(tmp_path):
    data = pickle.dumps({"state_dict": {}, "best": np.float64(1)}, protocol=2)
    own, other = (b"numpy._core", b"numpy.core")[:: 1 if b"numpy._core" in data else -1]
    buffer = io.BytesIO()
    torch.save({"state_dict": WEIGHTS, "best": np.float64(1)}, buffer)
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(tmp_path / "net.pth", "w") as changed:
        for name in whole.namelist():
            part = whole.read(name)
            changed.writestr(name, part.replace(own, other) if name.endswith("data.pkl") else part)
    assert set(storage.load_weights(tmp_path / "net.pth")) == set(WEIGHTS)


def test_objects_inside_arrays_and_other_classes_are_refused(tmp_path):
    for k, beside in enumerate((np.array([os.getcwd], object), pathlib.PurePosixPath("a"), np.float64)):
        torch.save({"state_dict": WEIGHTS, "best_psnr": beside}, tmp_path / f"{k}.pth")
        with pytest.raises(InputError, match=rf"{k}\.pth"):
            storage.load_weights(tmp_path / f"{k}.pth")


@pytest.mark.parametrize("key", ["config", "i2sb", "configuration", "of another toolkit"])
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_a_configuration_is_found_under_every_key_that_had_it(tmp_path, key, kind):
    text, path = '{"network_g": {"type": "X"}}', tmp_path / f"net.{kind}"
    if kind == "pth":
        storage.atomic_save({"params": WEIGHTS, key: text, "license": "CC0"}, path)
    else:
        storage.save_safetensors(WEIGHTS, path, {key: text, "license": "CC0"})
    assert storage.read_configuration(path) == {"network_g": {"type": "X"}}


@pytest.mark.parametrize("text", ["{", "[]", '{"scale": 4}'])
def test_a_damaged_configuration_is_refused_with_its_key(tmp_path, text):
    storage.save_safetensors(WEIGHTS, tmp_path / "net.safetensors", {"config": text})
    with pytest.raises(InputError, match=r"--checkpoint .*net\.safetensors: .*config.* damaged"):
        storage.read_configuration(tmp_path / "net.safetensors", "--checkpoint")
