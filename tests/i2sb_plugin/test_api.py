"""The call from Python: three lines, and nothing of BasicSR's is changed by them."""

import copy
import json
import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from basicsr_ext.common.errors import InputError
from i2sb_plugin import Restorer
from tests.support.cli_runs import run
from tests.support.trained import BRIDGE, RRDB, run_folder, safetensors_file

PHOTO = np.ascontiguousarray(data.astronaut()[:40, 200:253])
TENSOR = torch.from_numpy(PHOTO / np.float32(255)).permute(2, 0, 1)


@pytest.fixture(scope="module")
def restorer(tmp_path_factory):
    return Restorer.load(run_folder(tmp_path_factory.mktemp("run"), BRIDGE))


def test_three_lines_restore_a_file_as_the_command_does(tmp_path, capsys):
    checkpoint = run_folder(tmp_path, BRIDGE)
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    restorer = Restorer.load(checkpoint)
    image = restorer(tmp_path / "a.png", nfe=3, seed=5)
    flags = ["--nfe", 3, "--seed", 5]
    target = tmp_path / "out.png"
    assert run(capsys, "restore", "-i", tmp_path / "a.png", "-o", target, "--checkpoint", checkpoint, *flags)[0] == 0
    assert image.dtype == np.uint8 and (image == np.asarray(Image.open(target))).all()
    restorer.restore_file(tmp_path / "a.png", tmp_path / "again.png", nfe=3, seed=5)
    assert (tmp_path / "again.png").read_bytes() == target.read_bytes()


def test_paths_arrays_and_tensors_give_the_same_image(tmp_path, restorer):
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    image = restorer(str(tmp_path / "a.png"))
    assert (restorer(PHOTO) == image).all()
    floats = restorer(PHOTO / np.float32(255))
    assert floats.dtype == np.float32 and np.abs(floats * 255 - image).max() <= 0.5 + 1e-3
    deep = restorer(PHOTO.astype(np.uint16) * 257)
    assert deep.dtype == np.uint16 and np.abs(deep / 257 - image).max() <= 0.51
    tensor = restorer(TENSOR)
    assert tensor.shape == (3, 40, 53) and np.abs(tensor.permute(1, 2, 0).numpy() - floats).max() < 1e-6


def test_a_seed_is_a_whole_number_that_torch_takes(restorer):
    assert torch.equal(restorer(TENSOR, seed=np.int64(3), nfe=2), restorer(TENSOR, seed=3, nfe=2))
    for seed in (-1, 2**63, 1.5, "a", None, [1.5]):
        with pytest.raises(InputError, match=r"^seed is .*; it must be a whole number from 0 to 2\*\*63 - 1"):
            restorer(TENSOR, seed=seed)
    with pytest.raises(InputError, match=r"seed has 2 numbers for 1 image\(s\)"):
        restorer(TENSOR, seed=[1, 2])


def test_a_file_is_never_restored_onto_itself_or_into_what_is_no_picture(restorer, tmp_path):
    Image.fromarray(data.astronaut()[:16, :16]).save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    (tmp_path / "link.png").symlink_to("a.png")
    for target in ("a.png", "link.png"):
        with pytest.raises(InputError, match=rf"{target} is the picture to restore"):
            restorer.restore_file(tmp_path / "a.png", tmp_path / target)
    with pytest.raises(InputError, match="a.xyz: cannot hold a picture of 8 bits; 8: png"):
        restorer.restore_file(tmp_path / "a.png", tmp_path / "a.xyz", nfe=1)
    assert (tmp_path / "a.png").read_bytes() == before


def test_the_toolkits_own_networks_load_without_entry_points(tmp_path):
    network = {"type": "Interpolation", "scale": 4, "mode": "bicubic"}
    opt = {"name": "x", "model_type": "RestorationModel", "scale": 4, "network_g": network}
    torch.save({"params": {}, "config": json.dumps(opt)}, tmp_path / "net.pth")
    code = "import sys; from i2sb_plugin import Restorer; print(Restorer.load(sys.argv[1]).scale)"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "net.pth"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "4\n"


def test_the_seed_decides_alone_and_in_a_batch(restorer):
    batch = restorer(torch.stack([TENSOR, TENSOR.flip(-1), TENSOR]), seed=3, nfe=4)
    alone = restorer(TENSOR.flip(-1), seed=3, nfe=4)
    assert (batch[1] - alone).abs().max() < 1e-5 and torch.equal(batch[0], batch[2])
    assert torch.equal(restorer(TENSOR, seed=3, nfe=4), restorer(TENSOR, seed=3, nfe=4))
    assert (restorer(TENSOR, seed=4, nfe=4) - restorer(TENSOR, seed=3, nfe=4)).abs().max() > 0.01


def test_options_of_one_call_do_not_stay_for_the_next(restorer):
    before = restorer(TENSOR)
    assert not torch.equal(restorer(TENSOR, nfe=1), before)
    assert not torch.equal(restorer(TENSOR, sampler="ot_ode"), before)
    assert not torch.equal(restorer(TENSOR, samples=2), before)
    assert torch.equal(restorer(TENSOR), before)


def test_grey_and_alpha_come_back_as_they_should(restorer):
    assert restorer(PHOTO[:, :, 0]).shape == (40, 53, 3), "the network makes RGB of it"
    alpha = np.tile(np.linspace(1, 255, 53).astype(np.uint8), (40, 1))
    restored = restorer(np.dstack([PHOTO, alpha]))
    assert (restored[:, :, 3] == alpha).all() and (restored[:, :, :3] == restorer(PHOTO)).all()


def test_a_mask_may_be_a_path_an_array_or_a_tensor(tmp_path, restorer):
    mask = np.zeros((40, 53), np.uint8)
    mask[5:25, 9:40] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    image = restorer(PHOTO, mask=tmp_path / "mask.png")
    assert (image[mask == 0] == PHOTO[mask == 0]).all() and (image[mask > 0] != PHOTO[mask > 0]).any()
    assert (restorer(PHOTO, mask=mask) == image).all()
    red = np.stack([mask, 0 * mask, 0 * mask], axis=2)  # as in a file, one colour marks the hole
    assert (restorer(PHOTO, mask=red) == image).all()
    brush = np.dstack([np.full((40, 53, 3), 255, np.uint8), mask])  # white on a layer that is transparent elsewhere
    assert (restorer(PHOTO, mask=brush) == image).all()
    assert (restorer(PHOTO, mask=mask > 0) == image).all()
    assert (restorer(PHOTO, mask=Image.fromarray(mask > 0)) == image).all()
    tensor = restorer(TENSOR[None], mask=torch.from_numpy(mask / np.float32(255)))
    assert (to_array(tensor[0]) == image).all()


def test_a_seed_is_any_whole_number_from_0(restorer):
    assert (restorer(PHOTO, seed=np.int64(3)) == restorer(PHOTO, seed=3)).all()
    assert (restorer(PHOTO, seed=2**63 - 1) != restorer(PHOTO, seed=2**62)).any()


def to_array(tensor):
    return (tensor * 255).round().byte().permute(1, 2, 0).numpy()


def test_a_large_image_is_tiled_with_one_noise_field(tmp_path):
    checkpoint = safetensors_file(tmp_path, BRIDGE)
    photo = torch.from_numpy(data.astronaut()[:192, :256] / np.float32(255)).permute(2, 0, 1)
    whole = Restorer.load(checkpoint, tile=0)(photo, nfe=2)
    tiles = Restorer.load(checkpoint, tile=64, overlap=32, tile_batch=2)(photo, nfe=2)
    other = Restorer.load(checkpoint, tile=0)(photo, nfe=2, seed=1)
    assert (tiles - whole).square().mean() < 0.25 * (other - whole).square().mean()


def test_other_models_are_restored_too(tmp_path):
    restorer = Restorer.load(run_folder(tmp_path, RRDB))
    assert restorer.scale == 2 and restorer(PHOTO).shape == (80, 106, 3)
    with pytest.raises(InputError, match="nfe .*SRModel"):
        restorer(PHOTO, nfe=3)


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda r: r("none.png"), "none.png: no such file"),
        (lambda r: r(PHOTO, nef=3), "nef is not an option of restoring with I2SBModel; did you mean nfe?"),
        (lambda r: r(PHOTO, nfe=0), "nfe is 0"),
        (lambda r: r(PHOTO, nfe=101), "nfe is 101"),
        (lambda r: r(PHOTO, nfe=2.5), "nfe is 2.5"),
        (lambda r: r(PHOTO, seed=2**63), "seed is 9223372036854775808; .* from 0 to 2..63 - 1"),
        (lambda r: r(PHOTO, seed=-1), "seed is -1"),
        (lambda r: r(PHOTO, seed=1.5), "seed is 1.5"),
        (lambda r: r(PHOTO, seed=None), "seed is None"),
        (lambda r: r(TENSOR, mask=torch.ones(3, 40, 53)), r"mask has the shape \(1, 3, 40, 53\), .* \(1, 1, 40, 53\)"),
        (lambda r: r(TENSOR[None], mask=torch.ones(2, 1, 40, 53)), r"shape \(2, 1, 40, 53\)"),
        (lambda r: r(PHOTO, sampler="dbin"), "did you mean dbim"),
        (lambda r: r(TENSOR[:2]), r"the image has 2 channel\(s\)"),
        (lambda r: r(TENSOR[0]), "give floats C,H,W or B,C,H,W"),
        (lambda r: r(PHOTO.astype(np.int32)), "array of int32"),
        (lambda r: r(PHOTO[None]), "array .1, 40, 53, 3."),
        (lambda r: r(PHOTO, mask=np.ones((40, 52))), "40 x 52 pixels, the image 40 x 53"),
        (lambda r: r(PHOTO, mask=np.zeros((40, 53))), "has no hole"),
        (lambda r: r(TENSOR * float("nan")), "values from nan to nan"),
        (lambda r: r(PHOTO.astype(np.float32)), r"values from \d+ to 2\d\d; give uint8, uint16 or floats in"),
        (lambda r: r(TENSOR * 255), r"values from \d+ to 2\d\d"),
        (lambda r: r(PHOTO[:0]), "no pixels"),
        (lambda r: r(TENSOR[:0]), "no pixels"),
        (lambda r: r(Image.fromarray(PHOTO).quantize(8)), "mode P"),
        (lambda r: r(Image.fromarray(PHOTO).convert("CMYK")), "mode CMYK"),
    ],
)
def test_what_is_wrong_is_named(restorer, call, said):
    with pytest.raises(InputError, match=said):
        call(restorer)


def test_the_toolkits_own_classes_are_known_without_the_command_line(tmp_path):
    plain = {"name": "plain", "model_type": "RestorationModel", "scale": 2}
    run_folder(tmp_path, {**plain, "network_g": {"type": "Interpolation", "scale": 2, "mode": "nearest-exact"}})
    code = (
        "import numpy, i2sb_plugin; r = i2sb_plugin.Restorer.load('experiments/plain/models/net_g_latest.pth');"
        "x = numpy.arange(60, dtype=numpy.uint8).reshape(4, 5, 3); assert (r(x) == x.repeat(2, 0).repeat(2, 1)).all()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_state_of_basicsr_torch_and_the_disk_is_untouched(tmp_path, monkeypatch, capfd):
    from basicsr.utils import logger as home
    from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY

    checkpoint = run_folder(tmp_path, BRIDGE)
    monkeypatch.chdir(tmp_path)
    logger = logging.getLogger("basicsr")

    def state():
        registries = [dict(iter(r)) for r in (ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY)]
        log = list(logger.handlers), logger.level, logger.propagate, logger.disabled, dict(home.initialized_logger)
        return registries, log, torch.get_rng_state().tolist(), list(sys.argv), sorted(tmp_path.rglob("*"))

    before = copy.copy(state())
    Restorer.load(checkpoint)(PHOTO, nfe=2)
    assert state() == before
    assert capfd.readouterr() == ("", "")


def test_the_package_itself_imports_nothing_heavy():
    script = (
        "import sys, i2sb_plugin; print(i2sb_plugin.__version__, 'torch' in sys.modules, 'basicsr_ext' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert said[1:] == ["False", "False"]
    with pytest.raises(ImportError, match="Restorr"):
        from i2sb_plugin import Restorr  # noqa: F401
