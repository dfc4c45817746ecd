"""Contract of every registered degradation, and what the reductions compute."""

import dataclasses

import basicsr_ext  # noqa: F401  (makes basicsr importable)

# isort: split
import pytest
import torch
from basicsr.utils.matlab_functions import imresize

from basicsr_ext.errors import InputError
from i2sb_plugin.degradations import DEGRADATIONS, build_degradation

NAMES = DEGRADATIONS.keys()


def image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def generator():
    return torch.Generator().manual_seed(7)


def test_the_folder_is_scanned():
    assert {"sr4x_pool", "sr4x_bicubic"} <= set(NAMES)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", NAMES)
def test_lq_is_smaller_by_the_scale(name, channels):
    degradation = build_degradation({"type": name})
    degraded = degradation(image(channels, 48, 96), generator())
    assert degraded.lq.shape == (channels, 48 // degradation.scale, 96 // degradation.scale)
    assert degraded.lq.dtype == torch.float32
    assert degraded.mask is None or degraded.mask.shape == (1, *degraded.lq.shape[1:])


@pytest.mark.parametrize("name", NAMES)
def test_lq_stays_near_the_range(name):
    lq = build_degradation({"type": name})(image(3, 96, 96), generator()).lq
    assert lq.min() > -0.5 and lq.max() < 1.5
    assert lq.std() > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_result(name):
    degradation = build_degradation({"type": name})
    first, second = (degradation(image(3, 48, 48), generator()).lq for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", NAMES)
def test_the_input_is_left_alone(name):
    clean = image(3, 48, 48)
    build_degradation({"type": name})(clean, generator()).lq.add_(1)
    assert torch.equal(clean, image(3, 48, 48))


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_one_equals_its_image(name):
    degradation = build_degradation({"type": name})
    alone = degradation(image(3, 48, 48), generator()).lq
    torch.testing.assert_close(degradation(image(1, 3, 48, 48), generator()).lq[0], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["sr4x_pool", "sr4x_bicubic"])
@pytest.mark.parametrize("scale", [1, 2, 3, 4, 6])
def test_a_batch_equals_its_images(name, scale):
    degradation = build_degradation({"type": name, "scale": scale})
    batch = image(2, 3, 48, 36)
    singles = torch.stack([degradation(one).lq for one in batch])
    torch.testing.assert_close(degradation(batch).lq, singles, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["sr4x_pool", "sr4x_bicubic"])
@pytest.mark.parametrize("scale", [2, 3, 4, 5])
def test_a_constant_stays_the_same_constant(name, scale):
    lq = build_degradation({"type": name, "scale": scale})(torch.full((1, 30 * scale, 2 * scale), 0.7).double()).lq
    assert (lq - 0.7).abs().max() < 1e-7


def test_pool_is_the_mean_of_blocks():
    clean = image(1, 8, 8).double()
    lq = build_degradation({"type": "sr4x_pool", "scale": 4})(clean).lq
    expected = [[clean[0, r : r + 4, c : c + 4].mean() for c in (0, 4)] for r in (0, 4)]
    torch.testing.assert_close(lq[0], torch.tensor(expected).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [2, 3, 4, 5])
def test_bicubic_equals_matlab_imresize(scale):
    clean = image(3, 24 * scale, 17 * scale)
    lq = build_degradation({"type": "sr4x_bicubic", "scale": scale})(clean).lq
    assert (lq - imresize(clean, 1 / scale)).abs().max() < 3e-6


def test_bicubic_mirrors_images_smaller_than_its_kernel():
    """A row repeated by mirroring is the same periodic signal, so the small image shows the large one's middle."""
    small = image(1, 4, 4).double()
    mirrored = torch.cat([small.flip(-1), small, small.flip(-1)], -1)
    mirrored = torch.cat([mirrored.flip(-2), mirrored, mirrored.flip(-2)], -2)
    mirrored = torch.nn.functional.pad(mirrored[None], (12, 12, 12, 12), mode="circular")[0]
    degradation = build_degradation({"type": "sr4x_bicubic", "scale": 4})
    middle = degradation(mirrored).lq[:, 4:5, 4:5]
    torch.testing.assert_close(degradation(small).lq, middle, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "sr4x_bicubik"}, "degradation.type is 'sr4x_bicubik'.*did you mean sr4x_bicubic"),
        ({"type": "sr4x_pool", "scael": 2}, "degradation.scael .*scale"),
        ({"type": "sr4x_pool", "scale": "4"}, "degradation.scale is '4'"),
        ({"type": "sr4x_pool", "scale": 0}, "degradation.scale is 0"),
        ({"scale": 4}, "its type"),
        ("sr4x_pool", "its type"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        build_degradation(options)


@pytest.mark.parametrize("name", ["sr4x_pool", "sr4x_bicubic"])
def test_a_size_that_the_scale_does_not_divide_is_refused_with_the_cure(name):
    with pytest.raises(ValueError, match=r"degradation.scale is 4.*30x33.*28x32"):
        build_degradation({"type": name, "scale": 4})(image(3, 30, 33))


@pytest.mark.parametrize("wrong", [torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(8, 8)])
def test_what_is_no_float_image_is_refused(wrong):
    with pytest.raises(ValueError, match="float image C,H,W"):
        build_degradation({"type": "sr4x_pool"})(wrong)


def test_registering_the_same_class_twice_is_harmless_and_another_is_refused():
    cls = DEGRADATIONS.get("sr4x_pool")
    assert DEGRADATIONS.register("sr4x_pool")(cls) is cls

    @dataclasses.dataclass(frozen=True)
    class Other:
        scale: int = 1

    with pytest.raises(ValueError, match="'sr4x_pool' is registered by"):
        DEGRADATIONS.register("sr4x_pool")(Other)
    assert DEGRADATIONS.get("sr4x_pool") is cls


def test_a_class_that_is_no_dataclass_is_refused():
    with pytest.raises(TypeError, match="must be a dataclass"):
        DEGRADATIONS.register("plain")(type("Plain", (), {}))
    assert "plain" not in DEGRADATIONS
