"""Spandrel's own loader reads exports of bridges, once it was told of them."""

import json
import sys

import pytest
import torch
from safetensors.torch import save_file

from basicsr_ext.common.errors import InputError
from i2sb_plugin import Restorer, spandrel_support
from tests.support.cli_runs import run
from tests.support.trained import BRIDGE, RRDB, run_folder, safetensors_file, weights

spandrel = pytest.importorskip("spandrel", reason="needs the extra `foreign`")

NET = {"type": "ADMUNet", "preset": "tiny", "channel_mult": [1], "in_channels": 3, "out_channels": 3}


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """A registry and a loader of the test's own."""
    monkeypatch.setattr(spandrel, "MAIN_REGISTRY", spandrel.MAIN_REGISTRY.copy())
    monkeypatch.setattr(
        spandrel.ModelLoader, "load_state_dict_from_file", spandrel.ModelLoader.load_state_dict_from_file
    )
    (support,) = spandrel_support.install()
    assert spandrel.MAIN_REGISTRY.architectures("detection")[0] is support


def load(path):
    return spandrel.ModelLoader(registry=spandrel.MAIN_REGISTRY).load_from_file(path)


@pytest.mark.parametrize("scale", [1, 4])
def test_an_export_is_an_image_model(tmp_path, monkeypatch, capsys, scale):
    monkeypatch.chdir(tmp_path)
    checkpoint = run_folder(tmp_path, BRIDGE | {"network_g": NET, "scale": scale})
    assert run(capsys, "export", checkpoint, "-o", "x.safetensors")[0] == 0
    model = load(tmp_path / "x.safetensors")
    assert isinstance(model, spandrel.ImageModelDescriptor)
    assert (model.scale, model.input_channels, model.output_channels) == (scale, 3, 3)
    assert model.purpose == ("SR" if scale > 1 else "Restoration") and model.tags == ["ADMUNet", "tiny"]
    assert str(model.device) == "cpu" and not model.supports_half
    network = Restorer.load("x.safetensors", device="cpu", tile=0)
    for size in ((37, 53), (16, 24), (5, 3)):
        image = torch.rand(1, 3, *size)
        torch.testing.assert_close(model(image), network(image, seed=0), rtol=0, atol=1e-6)
    model.model.take(sampler="ot_ode", nfe=3)
    torch.testing.assert_close(model(image), network(image, sampler="ot_ode", nfe=3), rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="nfe is 0"):
        model.model.take(nfe=0)


def test_a_checkpoint_of_a_run_is_one_too(tmp_path):
    opt = BRIDGE | {"network_g": NET}
    path = tmp_path / "net_g_latest.pth"
    torch.save({"params": weights(opt), "params_ema": weights(opt, seed=1), "config": json.dumps(opt)}, path)
    image = torch.rand(1, 3, 20, 21)
    wanted = Restorer.load(path, device="cpu")(image)
    torch.testing.assert_close(load(path)(image), wanted, rtol=0, atol=1e-6)


def test_what_spandrel_knows_is_left_to_it(tmp_path):
    opt = RRDB | {"network_g": RRDB["network_g"] | {"num_grow_ch": 32}}
    assert load(safetensors_file(tmp_path, opt)).architecture.id == "ESRGAN"
    save_file({"some.weight": torch.zeros(3)}, tmp_path / "none.safetensors")
    with pytest.raises(spandrel.UnsupportedModelError):
        load(tmp_path / "none.safetensors")


def test_what_needs_more_than_an_image_is_refused(tmp_path):
    opt = BRIDGE | {"network_g": NET | {"cond_channels": 1}}
    with pytest.raises(InputError, match="needs condition images"):
        load(safetensors_file(tmp_path, opt))


def test_it_is_installed_once(monkeypatch):
    assert spandrel_support.install(ignore_duplicates=True) == []
    with pytest.raises(spandrel.DuplicateArchitectureError):
        spandrel_support.install()
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(InputError, match=r"pip install 'basicsr-i2sb\[foreign\]'"):
        spandrel_support.install()
