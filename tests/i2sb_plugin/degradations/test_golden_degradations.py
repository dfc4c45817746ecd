"""Degradations against recorded outputs of the authors' release, one test for every recorded file."""

import numpy as np
import pytest
import torch

from i2sb_plugin.degradations import build_degradation
from tests.support.golden import golden, names, params

FILES = [name for name in names("corrupt_*.npz") if not name.startswith("corrupt_mixture")]
OPTIONS = {
    "blur-gauss": {"type": "blur_released_gauss"},
    "blur-uni": {"type": "blur_released_uniform"},
    "inpaint-center": {"type": "inpaint_center"},
    "inpaint-freeform1020": {"type": "inpaint_freeform", "area": [0.1, 0.2]},
    "inpaint-freeform2030": {"type": "inpaint_freeform", "area": [0.2, 0.3]},
    "jpeg-5": {"type": "jpeg", "quality": 5},
    "jpeg-10": {"type": "jpeg", "quality": 10},
    "sr4x-bicubic": {"type": "sr4x_bicubic"},
    "sr4x-pool": {"type": "sr4x_pool"},
}
TOLERANCES = {
    "blur-gauss": 1e-4,
    "blur-uni": 1e-3,
    "jpeg-5": 2e-5,
    "jpeg-10": 2e-5,
    "sr4x-bicubic": 2e-5,
    "sr4x-pool": 1e-6,
}


def kind_of(name):
    return name.split("_")[1]


def from_release(array):
    """[-1,1], as the release stores images, to [0,1]."""
    return (torch.from_numpy(array) + 1) / 2


def to_release(lq):
    return lq * 2 - 1


def difference(lq, expected):
    return (to_release(lq) - torch.from_numpy(expected)).abs().max().item()


def enlarged(lq, scale=4):
    """The release stores reduced images enlarged again."""
    return lq.repeat_interleave(scale, dim=-1).repeat_interleave(scale, dim=-2)


def pack(path, **masks):
    """Write masks as Palette's file holds them: bits, flat."""
    np.savez(path, **{key: np.packbits(value) for key, value in masks.items()})
    return str(path)


def of_kind(*kinds):
    return [name for name in FILES if kind_of(name) in kinds]


def test_all_nine_and_the_mixture_are_recorded():
    assert {kind_of(name) for name in FILES if name.endswith("_64.npz")} == set(OPTIONS)
    assert "corrupt_mixture_64.npz" in names("corrupt_*.npz")


@pytest.mark.parametrize("name", of_kind("jpeg-5", "jpeg-10"))
def test_jpeg(name):
    recorded = golden(name)
    lq = build_degradation(OPTIONS[kind_of(name)])(from_release(recorded["img"])).lq
    assert difference(lq, recorded["out"]) <= TOLERANCES[kind_of(name)]


@pytest.mark.parametrize("name", [n for n in of_kind("jpeg-5", "jpeg-10") if "coef_luma" in golden(n)])
def test_jpeg_coefficients_and_tables_are_exact(name):
    recorded = golden(name)
    jpeg = build_degradation(OPTIONS[kind_of(name)])
    for plane, blocks in jpeg.encode(from_release(recorded["img"]))._asdict().items():
        in_place = blocks.unflatten(4, (8, 8)).transpose(3, 4).flatten(4).flatten(2, 3)
        assert np.array_equal(in_place.numpy(), recorded[f"coef_{plane}"])
        assert np.array_equal(jpeg.table(plane).numpy(), recorded[f"q_{plane}"])


@pytest.mark.parametrize("name", of_kind("sr4x-pool", "sr4x-bicubic"))
def test_reduction(name):
    recorded = golden(name)
    lq = build_degradation(OPTIONS[kind_of(name)])(torch.from_numpy(recorded["img"])).lq  # sums to one: any range
    assert np.abs(enlarged(lq).numpy() - recorded["out"]).max() <= TOLERANCES[kind_of(name)]


def test_the_two_reductions_are_told_apart():
    """The tolerances above mean something: the other reduction is far outside."""
    recorded = golden("corrupt_sr4x-bicubic_64")
    lq = build_degradation({"type": "sr4x_pool"})(torch.from_numpy(recorded["img"])).lq
    assert np.abs(enlarged(lq).numpy() - recorded["out"]).max() > 0.1


def blur_targets():
    """Files at 128 hold the recording with the unstable sort only."""
    files = of_kind("blur-uni", "blur-gauss")
    return [(name, target) for name in files for target in ("out", "out_stable_sort") if target in golden(name)]


@pytest.mark.parametrize(("name", "target"), blur_targets())
def test_released_blur(name, target):
    recorded = golden(name)
    options = {**OPTIONS[kind_of(name)], "stable": target == "out_stable_sort"}
    lq = build_degradation(options)(from_release(recorded["img"])).lq
    assert difference(lq, recorded[target]) <= TOLERANCES[kind_of(name)]


@pytest.mark.parametrize("name", [n for n in of_kind("blur-uni", "blur-gauss") if n.endswith("_64.npz")])
def test_released_blur_with_the_other_order_of_ties_is_told_apart(name):
    recorded = golden(name)
    lq = build_degradation({**OPTIONS[kind_of(name)], "stable": False})(from_release(recorded["img"])).lq
    assert 5e-3 < difference(lq, recorded["out_stable_sort"]) < 0.1


@pytest.mark.parametrize("padding", ["reflect", "zeros"])
@pytest.mark.parametrize("name", of_kind("blur-uni", "blur-gauss"))
def test_a_plain_separable_blur_is_not_the_released_one(name, padding):
    recorded = golden(name)
    plain = {
        "blur-uni": {"type": "blur_uniform", "size": 9},
        "blur-gauss": {"type": "blur_gauss", "sigma": 10.0, "size": 5},
    }
    lq = build_degradation({**plain[kind_of(name)], "padding": padding})(from_release(recorded["img"])).lq
    assert difference(lq, recorded["out"]) > 0.3


@pytest.mark.parametrize("name", of_kind("inpaint-center"))
def test_center_inpainting(name):
    recorded = golden(name)
    lq, mask = build_degradation(OPTIONS["inpaint-center"])(from_release(recorded["img"]))
    assert np.array_equal(mask.numpy(), np.broadcast_to(recorded["mask"], mask.shape).astype(np.float32))
    assert difference(lq, recorded["out"]) <= 1e-7


@pytest.mark.parametrize("name", of_kind("inpaint-freeform1020", "inpaint-freeform2030"))
def test_freeform_inpainting_with_the_masks_of_a_file(name, tmp_path):
    recorded, size = golden(name), params(name)["image_size"]
    masks = pack(tmp_path / "masks.npz", masks=recorded["masks"])
    degradation = build_degradation({**OPTIONS[kind_of(name)], "masks": masks, "mask_size": size})
    drawn = np.random.RandomState(params(name)["mask_seed"]).randint(len(recorded["masks"]), size=4)
    for image, mask, expected, index in zip(recorded["img"], recorded["mask"], recorded["out"], drawn):
        degraded = degradation.at(int(index))(from_release(image))
        assert np.array_equal(degraded.mask.numpy(), mask)
        assert difference(degraded.lq, expected) <= 1e-7


def mixture_items():
    """Every item, the blurs with both orders of ties."""
    recorded = golden("corrupt_mixture_64")
    orders = [(i, stable) for i in range(len(recorded["out"])) for stable in (True, False)]
    orders = [(i, stable) for i, stable in orders if stable or i in recorded["blur_items"]]
    return [pytest.param(i, s, id=f"corrupt_mixture_64.npz-item{i}-{'' if s else 'un'}stable") for i, s in orders]


@pytest.mark.parametrize(("item", "stable"), mixture_items())
def test_mixture(item, stable, tmp_path, monkeypatch):
    recorded = golden("corrupt_mixture_64")
    number = int(recorded["type"][item])
    keys = {"10-20% freeform": recorded["masks1020"], "20-30% freeform": recorded["masks2030"]}
    mixture = build_degradation(
        {"type": "mixture", "masks": pack(tmp_path / "masks.npz", **keys), "mask_size": 64, "stable": stable}
    )
    draws = iter(recorded["noise"][int(recorded["draws"][:item].sum()) :, 0])
    monkeypatch.setattr("i2sb_plugin.degradations.kinds.several.draw_normal", lambda *_: torch.from_numpy(next(draws)))
    degraded = mixture.at(item)(from_release(recorded["img"][recorded["src"][item]]))
    expected = recorded["out"][item]
    if number in (2, 3) and stable:
        expected = recorded["blur_stable_sort"][list(recorded["blur_items"]).index(item)]
    assert degraded.mask is None
    names_in_order = ["jpeg-5", "jpeg-10", "blur-uni", "blur-gauss", "sr4x-pool", "sr4x-bicubic"]
    tolerance = TOLERANCES[names_in_order[number]] if number < 6 else 1e-6
    assert difference(degraded.lq, expected) <= tolerance
