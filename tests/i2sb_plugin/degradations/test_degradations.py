"""Contract of every registered degradation, and what the reductions compute."""

import dataclasses
import random

import basicsr_ext  # noqa: F401  (makes basicsr importable)

# isort: split
import numpy as np
import pytest
import torch
from basicsr.utils.matlab_functions import imresize

from basicsr_ext.common.errors import InputError
from i2sb_plugin.degradations import DEGRADATIONS, build_degradation
from tests.support.degradation_examples import NAMES, SIZES, build, example, generator, image

RANDOM = ["blur_gauss", "compose", "inpaint_freeform", "inpaint_masks", "jpeg_codec", "mixture"]
RANDOM += ["noise_gauss", "noise_poisson", "real_esrgan"]
DRAWN = {"blur_gauss": {"sigma": [0.5, 3]}, "jpeg_codec": {"quality": [5, 90]}}  # ranges where numbers are the default


def test_the_folder_is_scanned():
    nine = {"jpeg", "sr4x_pool", "sr4x_bicubic", "blur_released_uniform", "blur_released_gauss"}
    nine |= {"inpaint_center", "inpaint_freeform", "mixture"}
    more = {"blur_uniform", "blur_gauss", "blur_motion", "blur_anisotropic", "blur_kernel", "noise_gauss"}
    more |= {"noise_poisson", "decolor", "jpeg_codec", "inpaint_masks", "compose", "real_esrgan"}
    assert nine | more <= set(NAMES)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", NAMES)
def test_lq_is_smaller_by_the_scale(name, channels):
    degradation = build(name)
    lq, mask = degradation(image(channels, 48, 96), generator())
    grey = name == "decolor" and channels == 1
    assert lq.shape == (1 if grey else channels, 48 // degradation.scale, 96 // degradation.scale)
    assert lq.dtype == torch.float32
    assert (mask is not None) == getattr(degradation, "makes_mask", False)
    assert mask is None or (mask.shape == (1, *lq.shape[1:]) and set(mask.unique().tolist()) == {0.0, 1.0})


@pytest.mark.parametrize("name", NAMES)
def test_odd_sides_work_or_are_refused_with_the_cure(name):
    degradation = build(name, SIZES[1])
    if degradation.scale > 1 or name == "mixture":
        with pytest.raises(InputError, match="33x47.*crop"):
            degradation(image(3, 33, 47), generator(3))
    else:
        assert degradation(image(3, 33, 47), generator(3)).lq.shape == (3, 33, 47)


@pytest.mark.parametrize("name", NAMES)
def test_lq_stays_near_the_range(name):
    lq = build(name)(image(3, 48, 96), generator()).lq
    assert lq.min() > -1.5 and lq.max() < 2.5
    assert lq.std() > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_result(name):
    degradation = build(name)
    first, second = (degradation(image(3, 48, 96), generator()).lq for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", RANDOM)
def test_another_seed_gives_another_result(name):
    degradation = build_degradation({**example(name), **DRAWN.get(name, {})})
    results = [degradation(image(3, 48, 96), generator(seed)).lq for seed in range(4)]
    assert any(not torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(RANDOM)))
def test_what_draws_nothing_ignores_the_generator(name):
    degradation, source = build(name), generator()
    before = source.get_state()
    assert torch.equal(degradation(image(3, 48, 96), source).lq, degradation(image(3, 48, 96)).lq)
    assert torch.equal(source.get_state(), before)


@pytest.mark.parametrize("name", NAMES)
def test_the_input_is_left_alone(name):
    clean = image(3, 48, 96)
    build(name)(clean, generator()).lq.add_(1)
    assert torch.equal(clean, image(3, 48, 96))


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_equals_its_images_one_after_another(name):
    degradation = build_degradation({**example(name), **DRAWN.get(name, {})})
    batch, source = image(3, 3, 48, 96), generator()
    singles = [degradation(one, source) for one in batch]
    lq, mask = degradation(batch, generator())
    torch.testing.assert_close(lq, torch.stack([single.lq for single in singles]), rtol=0, atol=1e-6)
    assert mask is None or torch.equal(mask, torch.stack([single.mask for single in singles]))


@pytest.mark.parametrize("name", NAMES)
def test_global_generators_are_left_alone(name):
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    build(name)(image(3, 48, 96), generator())
    drawn = torch.rand(()).item(), random.random(), np.random.rand()
    torch.manual_seed(0)
    assert drawn == (torch.rand(()).item(), random.Random(0).random(), np.random.RandomState(0).rand())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="compares with a GPU, which is not there")
@pytest.mark.parametrize("name", NAMES)
def test_gpu_equals_cpu(name):
    degradation = build(name)
    on_cpu = degradation(image(2, 3, 48, 96), generator())
    on_gpu = degradation(image(2, 3, 48, 96).cuda(), generator())
    assert on_gpu.lq.is_cuda and (on_gpu.mask is None or on_gpu.mask.is_cuda)
    rounds = "jpeg" in name or name in ("mixture", "real_esrgan")  # a coefficient may be rounded the other way
    atol = 2e-2 if rounds else 1e-4
    torch.testing.assert_close(on_gpu.lq.cpu(), on_cpu.lq, rtol=0, atol=atol)


@pytest.mark.parametrize("name", ["sr4x_pool", "sr4x_bicubic"])
@pytest.mark.parametrize("scale", [1, 2, 3, 4, 6])
def test_reductions_of_a_batch_at_any_scale(name, scale):
    degradation = build_degradation({"type": name, "scale": scale})
    batch = image(2, 3, 48, 36)
    singles = torch.stack([degradation(one).lq for one in batch])
    torch.testing.assert_close(degradation(batch).lq, singles, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["sr4x_pool", "sr4x_bicubic"])
@pytest.mark.parametrize("scale", [2, 3, 4, 5])
def test_reductions_keep_a_constant(name, scale):
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
