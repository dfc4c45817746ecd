"""What each family of degradations computes, and how its wrong options are refused."""

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from basicsr_ext.common.errors import InputError
from i2sb_plugin.degradations import build_degradation
from tests.support.degradation_examples import example, generator, image


def photograph(size=96):
    """Real structure: a part of a photograph, 3,size,size in [0,1]."""
    return torch.from_numpy(data.astronaut()[:size, 180 : 180 + size].copy()).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize(
    "options",
    [
        {"type": "blur_uniform", "size": 7},
        {"type": "blur_gauss", "sigma": 3.3},
        {"type": "blur_motion", "length": 12.5, "angle": 77},
        {"type": "blur_anisotropic"},
        example("blur_kernel"),
    ],
    ids=lambda options: options["type"],
)
def test_honest_blurs_keep_a_constant(options):
    lq = build_degradation(options)(torch.full((1, 40, 50), 0.7, dtype=torch.float64)).lq
    assert (lq - 0.7).abs().max() < 1e-12


def test_released_blurs_darken():
    """The kernels lose a tap: 8 of 9 ninths in each direction, and more at the border."""
    mean = build_degradation({"type": "blur_released_uniform"})(torch.ones(1, 64, 64)).lq.mean()
    assert 0.3 < mean < (8 / 9) ** 2


@pytest.mark.parametrize(("size", "sigma"), [(9, None), (13, 2.0), (25, 4.0)])
def test_separable_blurs_equal_opencv(size, sigma):
    clean = photograph(64)
    pixels = clean.permute(1, 2, 0).numpy()
    if sigma is None:
        options, expected = {"type": "blur_uniform"}, cv2.blur(pixels, (size, size), borderType=cv2.BORDER_REFLECT)
    else:
        options = {"type": "blur_gauss", "sigma": sigma, "size": size}
        expected = cv2.GaussianBlur(pixels, (size, size), sigma, borderType=cv2.BORDER_REFLECT)
    lq = build_degradation(options)(clean).lq
    assert np.abs(lq.permute(1, 2, 0).numpy() - expected).max() < 1e-5


def test_a_large_image_is_blurred_as_a_small_one():
    """Products with band matrices are taken in tiles of 64 rows."""
    clean = image(1, 1100, 40).double()
    small = build_degradation({"type": "blur_gauss"})
    torch.testing.assert_close(small(clean).lq[:, 500:540], small(clean[:, 480:560]).lq[:, 20:60], rtol=0, atol=1e-12)


def point(size=21):
    dot = torch.zeros(1, size, size).double()
    dot[0, size // 2, size // 2] = 1
    return dot


def test_the_picture_of_a_point_is_the_kernel():
    options = example("blur_kernel")
    kernel = torch.from_numpy(np.load(options["path"]))
    picture = build_degradation({**options, "normalise": False})(point()).lq[0]
    torch.testing.assert_close(picture[8:13, 9:12], kernel, rtol=0, atol=1e-12)
    assert picture.sum().item() == pytest.approx(kernel.sum().item())


def test_motion_goes_along_its_angle():
    across = build_degradation({"type": "blur_motion", "length": 9, "angle": 0})(point()).lq[0]
    torch.testing.assert_close(across[10, 6:15], torch.full((9,), 1 / 9, dtype=torch.float64), rtol=0, atol=1e-12)
    up_right = build_degradation({"type": "blur_motion", "length": 9, "angle": 45})(point()).lq[0]
    assert up_right[8, 12] > 0.05 and up_right[12, 8] > 0.05 and max(up_right[8, 8], up_right[12, 12]) < 1e-12


def test_anisotropic_blur_has_the_stated_deviations():
    options = {"type": "blur_anisotropic", "sigma_x": 3.0, "sigma_y": 1.0, "angle": 90, "size": 21}
    picture = build_degradation(options)(point(41)).lq[0]
    offset = torch.arange(41).double() - 20
    assert (picture.sum(1) * offset**2).sum().sqrt().item() == pytest.approx(3, rel=0.01)  # along the rows: up
    assert (picture.sum(0) * offset**2).sum().sqrt().item() == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize("quality", [1, 5, 10, 20, 50, 75, 90, 100])
def test_jpeg_has_the_tables_of_libjpeg(quality):
    jpeg = build_degradation({"type": "jpeg", "quality": quality})
    _, encoded = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8), [int(cv2.IMWRITE_JPEG_QUALITY), quality])
    encoded, written = encoded.tobytes(), []
    while (start := encoded.find(b"\xff\xdb")) >= 0:  # tables in zig-zag order
        length = int.from_bytes(encoded[start + 2 : start + 4], "big")
        block, encoded = encoded[start + 4 : start + 2 + length], encoded[start + 2 + length :]
        written += [sorted(block[i + 1 : i + 65]) for i in range(0, len(block), 65)]
    assert written == [sorted(jpeg.table(plane).int().tolist()) for plane in ("luma", "chroma")]


@pytest.mark.parametrize("quality", [10, 50, 90])
def test_jpeg_is_close_to_the_codec(quality):
    clean = photograph(96)
    ours = build_degradation({"type": "jpeg", "quality": quality})(clean).lq.clamp(0, 1)
    codec = build_degradation({"type": "jpeg_codec", "quality": quality})(clean).lq
    assert (ours - codec).square().mean() < 0.3 * (codec - clean).square().mean()


def test_jpeg_error_falls_with_quality():
    clean = photograph(96)
    errors = [(build_degradation({"type": "jpeg", "quality": q})(clean).lq - clean).std() for q in (1, 5, 20, 60, 95)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.03


def test_jpeg_without_padding_names_size_and_cure():
    with pytest.raises(InputError, match=r"multiples of 16; the image is 33x48 .*32x48.*pad: true"):
        build_degradation({"type": "jpeg", "pad": False})(image(3, 33, 48))


def test_jpeg_padding_changes_nothing_where_none_is_needed():
    clean = image(3, 32, 48)
    padded, plain = (build_degradation({"type": "jpeg", "pad": pad})(clean).lq for pad in (True, False))
    assert torch.equal(padded, plain)


def test_gaussian_noise_has_its_level_and_poisson_noise_its_variance():
    grey = torch.full((3, 200, 200), 0.5)
    noisy = build_degradation({"type": "noise_gauss", "sigma": 0.2})(grey, generator()).lq
    assert (noisy - grey).std().item() == pytest.approx(0.2, rel=0.01)
    same = build_degradation({"type": "noise_gauss", "sigma": 0.2, "grey": True})(grey, generator()).lq
    assert torch.equal(same[0], same[2])
    counted = build_degradation({"type": "noise_poisson", "peak": 50})(grey, generator()).lq
    assert (counted - grey).var().item() == pytest.approx(0.5 / 50, rel=0.02)
    assert counted.mean().item() == pytest.approx(0.5, abs=2e-3)


def test_a_range_is_drawn_evenly_for_every_image():
    noise = build_degradation({"type": "noise_gauss", "sigma": [0.1, 0.3]})
    levels = noise(torch.zeros(400, 1, 32, 32), generator()).lq.std(dim=(1, 2, 3))
    assert 0.09 < levels.min() < 0.11 and 0.29 < levels.max() < 0.32
    assert levels.mean().item() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize(("weights", "expected"), [("luma", 0.299), ("mean", 1 / 3)])
def test_decolor_repeats_the_grey_value(weights, expected):
    red = torch.tensor([1.0, 0, 0]).view(3, 1, 1).expand(3, 2, 2)
    lq = build_degradation({"type": "decolor", "weights": weights})(red).lq
    torch.testing.assert_close(lq, torch.full((3, 2, 2), expected))
    single = build_degradation({"type": "decolor", "weights": weights, "channels": 1})(red).lq
    assert single.shape == (1, 2, 2) and single[0, 0, 0].item() == pytest.approx(expected)


def test_the_hole_is_white_and_the_rest_untouched():
    clean = image(3, 40, 60)
    lq, mask = build_degradation({"type": "inpaint_center"})(clean)
    assert mask.sum() == 20 * 30 and mask[0, 10:30, 15:45].all()
    assert torch.equal(lq, torch.where(mask.bool(), torch.ones(()), clean))


def test_mixture_draws_all_nine_and_its_index_walks_through_them():
    clean = photograph(64)
    mixture = build_degradation({"type": "mixture"})
    by_index = [mixture.at(index)(clean, generator()).lq for index in range(18)]
    assert all(torch.equal(by_index[k], by_index[k + 9]) for k in range(9))
    drawn = mixture(clean.expand(200, -1, -1, -1), generator()).lq
    free_of_noise = by_index[:6]
    counts = [sum(torch.equal(one, lq) for one in drawn) for lq in free_of_noise]
    assert min(counts) > 8 and sum(counts) == pytest.approx(200 * 6 / 9, abs=25)


def test_compose_applies_in_the_order_given():
    members = [{"type": "blur_gauss"}, {"type": "sr4x_bicubic", "scale": 2}, {"type": "inpaint_center"}]
    composed, clean = build_degradation({"type": "compose", "of": members}), image(3, 48, 32)
    step = clean
    for member in members:
        step, mask = build_degradation(member)(step)
    assert composed.scale == 2
    assert torch.equal(composed(clean).lq, step) and torch.equal(composed(clean).mask, mask)


def test_compose_adds_holes_up_and_says_where_there_is_none():
    masks = {"type": "inpaint_freeform", "area": [0.1, 0.2]}
    both = build_degradation({"type": "compose", "of": [{"type": "inpaint_center"}, masks]})
    assert 0.25 < both(image(3, 64, 64), generator()).mask.mean() < 0.45
    never = build_degradation({"type": "compose", "of": [masks, {"type": "blur_gauss"}], "probabilities": [0, 1]})
    assert never(image(3, 64, 64), generator()).mask.sum() == 0


def test_compose_shuffles_and_skips_by_probability():
    members = [{"type": "jpeg", "quality": 5}, {"type": "jpeg_codec"}, {"type": "blur_uniform", "size": 3}]
    shuffled = build_degradation({"type": "compose", "of": members, "order": "shuffled"})
    results = {shuffled(photograph(32), generator(seed)).lq.numpy().tobytes() for seed in range(40)}
    assert len(results) == 6
    chance = build_degradation({"type": "compose", "of": [{"type": "decolor"}], "probabilities": [0.3]})
    clean = photograph(8)
    kept = sum(torch.equal(one, clean) for one in chance(clean.expand(400, -1, -1, -1), generator()).lq)
    assert kept == pytest.approx(280, abs=30)


def test_real_esrgan_resembles_the_image_at_its_scale():
    clean = photograph(96)
    small = build_degradation({"type": "sr4x_pool", "scale": 2})(clean).lq
    degraded = build_degradation({"type": "real_esrgan", "scale": 2})(clean.expand(8, -1, -1, -1), generator()).lq
    for one in degraded:
        assert one.min() >= 0 and one.max() <= 1
        assert np.corrcoef(one.flatten().numpy(), small.flatten().numpy())[0, 1] > 0.7
    assert torch.equal((degraded * 255).round() / 255, degraded)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "jpeg", "quality": 0}, "degradation.quality is 0; .*1 to 100"),
        ({"type": "jpeg", "quality": 101}, "degradation.quality is 101"),
        ({"type": "jpeg_codec", "quality": [90, 10]}, r"degradation.quality is \[90, 10\].*range"),
        ({"type": "blur_uniform", "size": 4}, "degradation.size is 4; give an odd number"),
        ({"type": "blur_gauss", "sigma": 0}, "degradation.sigma is 0.0; give a number from 0.1"),
        ({"type": "blur_gauss", "padding": "mirror"}, "degradation.padding is 'mirror'.*reflect"),
        ({"type": "blur_motion", "length": [5, 900]}, r"degradation.length is \[5.*900"),
        ({"type": "blur_kernel"}, "degradation.path is missing"),
        ({"type": "blur_kernel", "path": "nowhere.npy"}, "degradation.path nowhere.npy: no such file"),
        ({"type": "noise_gauss", "sigma": 25}, "degradation.sigma reaches 25.*as 0.09804"),
        ({"type": "noise_poisson", "peak": 0}, "degradation.peak is 0"),
        ({"type": "decolor", "weights": "max"}, "degradation.weights is 'max'"),
        ({"type": "inpaint_freeform", "area": [0.2, 0.1]}, r"degradation.area is \[0.2, 0.1\]"),
        ({"type": "inpaint_masks", "masks": "nowhere"}, "degradation.masks nowhere: no such file or folder"),
        ({"type": "mixture", "masks": "nowhere.npz"}, "degradation.masks nowhere.npz: no such file"),
        ({"type": "compose", "of": []}, "degradation.of is empty"),
        ({"type": "compose", "of": [{"type": "jpg"}]}, r"degradation.of\[0\].*'jpg'.*jpeg"),
        ({"type": "compose", "of": [{"type": "jpeg"}], "probabilities": [2]}, r"degradation.probabilities is \[2"),
        ({"type": "compose", "of": [{"type": "sr4x_pool"}], "probabilities": [0.5]}, "sr4x_pool changes the size"),
        ({"type": "real_esrgan", "jpeg_range": [0, 95]}, r"degradation.jpeg_range is \[0.*within 1 to 100"),
        ({"type": "real_esrgan", "sinc_prob": 2}, "degradation.sinc_prob is 2"),
    ],
)
def test_wrong_values_are_named_with_the_cure(options, message):
    with pytest.raises(InputError, match=message):
        build_degradation(options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.ones((4, 5)), r"shape \(4, 5\).*both odd"),
        (np.full((3, 3), np.nan), "not finite"),
        (np.array([[1.0, -2.0, 1.0]]), "sums to 0 .*normalise: false"),
        (np.array({"a": 1}, dtype=object), "no .npy file of real numbers"),
    ],
)
def test_a_wrong_kernel_file_is_named(content, message, tmp_path):
    path = tmp_path / "kernel.npy"
    np.save(path, content, allow_pickle=True)
    with pytest.raises(InputError, match=f"kernel.npy: .*{message}"):
        build_degradation({"type": "blur_kernel", "path": str(path)})


@pytest.mark.parametrize("name", ["blur_uniform", "blur_released_uniform"])
def test_a_kernel_larger_than_the_image_is_refused(name):
    with pytest.raises(InputError, match="kernel .*9.* pixels|kernel is 9x9.*image is 8x30"):
        build_degradation({"type": name})(image(3, 8, 30))


@pytest.mark.parametrize("name", ["jpeg", "jpeg_codec", "decolor", "real_esrgan"])
def test_channels_without_colours_are_refused(name):
    with pytest.raises(InputError, match=f"{name} takes grey, RGB or RGBA images.*5 channels"):
        build_degradation({"type": name})(image(5, 16, 16))
