"""Operators of degradations: transposes, pseudo-inverses, and consistency with a measurement."""

import math
from pathlib import Path

import pytest
import torch

from basicsr_ext.common.errors import InputError
from i2sb_plugin.degradations import DEGRADATIONS, Operator, build_degradation, known_operator
from i2sb_plugin.degradations.filters import PlanarFilter, SeparableFilter, least_squares
from tests.support.degradation_examples import NAMES, build, example, generator, image

SIZE = (48, 96)
OPERATORS = [name for name in NAMES if isinstance(build(name), Operator)]
LINEAR = [name for name in OPERATORS if build(name).linear]
KINDS = ("uniform", "gauss", "motion", "anisotropic", "kernel")
EXACT = [name for name in LINEAR if name not in [f"blur_{kind}" for kind in KINDS]]
OTHERS = [{"type": f"blur_{kind}", "padding": "zeros"} for kind in KINDS[:4]]
OTHERS += [{**example("blur_kernel"), "padding": "zeros"}, {"type": "decolor", "channels": 1}]
OTHERS += [{"type": "sr4x_bicubic", "scale": 3}, {"type": "blur_released_uniform", "stable": False}]
ALL = [example(name) for name in LINEAR] + OTHERS


def titled(options):
    """Without the folder of files, which differs from process to process."""
    return ", ".join(f"{key} {Path(str(value)).name}" for key, value in options.items())


def dot(a, b):
    return (a * b).sum().item()


def hole():
    return build("inpaint_freeform")(image(2, 3, *SIZE), generator()).mask.double()


def test_the_known_operators_are_these():
    assert set(OPERATORS) - set(LINEAR) == {"jpeg"}
    blurs = {f"blur_{kind}" for kind in (*KINDS, "released_uniform", "released_gauss")}
    holes = {"inpaint_center", "inpaint_freeform", "inpaint_masks"}
    assert set(LINEAR) == {"sr4x_pool", "sr4x_bicubic", "decolor"} | blurs | holes


@pytest.mark.parametrize("options", ALL, ids=titled)
def test_transpose(options):
    """<A x, y> = <x, A^T y>, and |A x| is not 0."""
    operator, mask = build_degradation(options), hole()
    x = image(2, 3, *SIZE).double() - 0.5
    a_x = operator.forward(x, mask)
    y = image(*a_x.shape, seed=1).double() - 0.5
    left, right = dot(a_x, y), dot(x, operator.adjoint(y, SIZE, mask))
    assert abs(left - right) <= 1e-10 * math.sqrt(dot(a_x, a_x) * dot(y, y))
    assert dot(a_x, a_x) > 1e-3 * dot(x, x)


@pytest.mark.parametrize("options", ALL, ids=titled)
def test_linear(options):
    operator, mask = build_degradation(options), hole()
    x, z = image(2, 3, *SIZE).double(), image(2, 3, *SIZE, seed=5).double()
    expected = 2 * operator.forward(x, mask) - 3 * operator.forward(z, mask)
    torch.testing.assert_close(operator.forward(2 * x - 3 * z, mask), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", OPERATORS)
def test_forward_is_what_the_degradation_does(name):
    operator, clean = build(name), image(2, 3, *SIZE)
    lq, mask = operator(clean, generator())
    known = 1 if mask is None else 1 - mask
    torch.testing.assert_close(operator.forward(clean, mask), lq * known, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", EXACT)
def test_moore_and_penrose(name):
    """A A+ A = A, A+ A A+ = A+, and both products are symmetric."""
    operator, mask = build(name), hole()
    x, z = image(2, 3, *SIZE).double(), image(2, 3, *SIZE, seed=2).double()

    def forward(v):
        return operator.forward(v, mask)

    def inverse(v):
        return operator.pseudo_inverse(v, SIZE, mask)

    y = image(*forward(x).shape, seed=3).double()
    torch.testing.assert_close(forward(inverse(forward(x))), forward(x), rtol=0, atol=1e-8)
    torch.testing.assert_close(inverse(forward(inverse(y))), inverse(y), rtol=0, atol=1e-6)
    assert dot(inverse(forward(x)), z) == pytest.approx(dot(x, inverse(forward(z))), rel=1e-8)
    assert dot(forward(inverse(y)), forward(z)) == pytest.approx(dot(y, forward(inverse(forward(z)))), rel=1e-8)


@pytest.mark.parametrize("name", sorted(set(LINEAR) - set(EXACT)))
def test_blurs_are_undone_except_for_what_they_all_but_remove(name):
    """The sharpened image blurs to the measurement to two grey levels, and is nearer to the clean one."""
    clean = build("blur_gauss")(image(2, 3, *SIZE).double()).lq  # smooth, as images are
    operator = build(name)
    y = operator.forward(clean)
    sharp = operator.pseudo_inverse(y, SIZE)
    assert (operator.forward(sharp) - y).abs().max() < 2 / 255
    assert (sharp - clean).square().mean() < 0.5 * (y - clean).square().mean()


@pytest.mark.parametrize("name", OPERATORS)
def test_one_step_makes_an_image_consistent_with_the_measurement(name):
    """x + A+ y - A+ A x is what the degradation turns into lq, whatever fills the hole of lq."""
    operator = build(name)
    lq, mask = operator(image(2, 3, *SIZE), generator())
    guess = image(2, 3, *SIZE, seed=9)
    fixed = guess + operator.pseudo_inverse(lq, SIZE, mask)
    fixed = fixed - operator.pseudo_inverse(operator.forward(guess, mask), SIZE, mask)
    known = 1 if mask is None else 1 - mask
    before = (operator.forward(guess, mask) - lq * known).square().mean()
    after = (operator.forward(fixed, mask) - lq * known).square().mean()
    assert after < 5e-3 * before
    if name in EXACT or name == "jpeg":
        assert after < 1e-9


def test_jpeg_padding_is_consistent_as_well():
    jpeg = build_degradation({"type": "jpeg", "quality": 30})
    lq, guess = jpeg(image(3, 33, 47)).lq, image(3, 33, 47, seed=1)
    fixed = guess + lq - jpeg.forward(guess)
    assert (jpeg.forward(fixed) - lq).square().mean() < 0.05 * (jpeg.forward(guess) - lq).square().mean()


def test_conjugate_gradients_find_the_smallest_least_squares_solution():
    matrix = image(4, 6).double()
    y = image(2, 1, 4, 1, seed=4).double()
    x = least_squares(lambda v: matrix @ v, lambda v: matrix.T @ v, y)
    torch.testing.assert_close(x, torch.linalg.pinv(matrix) @ y, rtol=0, atol=1e-9)


@pytest.mark.parametrize("padding", ["reflect", "zeros"])
def test_a_separable_kernel_filters_the_same_as_a_matrix_and_as_a_convolution(padding):
    taps = (0.1, 0.2, 0.4, 0.2, 0.1)
    kernel = torch.outer(torch.tensor(taps).double(), torch.tensor(taps).double())
    matrix, convolution = SeparableFilter(taps, padding), PlanarFilter(kernel, padding)
    x = image(2, 3, 20, 31).double()
    torch.testing.assert_close(matrix.forward(x), convolution.forward(x), rtol=0, atol=1e-7)
    torch.testing.assert_close(matrix.adjoint(x), convolution.adjoint(x), rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(OPERATORS)))
def test_an_unknown_operator_is_refused_with_the_known_ones(name):
    with pytest.raises(InputError, match=f"degradation.type is {name}.*sr4x_pool"):
        known_operator(build(name))


def test_an_operator_drawn_for_every_image_is_refused():
    blur = build_degradation({"type": "blur_motion", "angle": [0, 180]})
    with pytest.raises(InputError, match="degradation.angle is a range"):
        known_operator(blur)
    with pytest.raises(InputError, match="degradation.angle is a range"):
        blur.forward(image(3, 48, 48))
    fixed = build_degradation({"type": "blur_motion", "angle": 180})
    assert known_operator(fixed) is fixed


def test_an_inpainting_of_own_masks_needs_the_mask():
    with pytest.raises(InputError, match="FreeformInpainting: .*mask"):
        build("inpaint_freeform").forward(image(3, 48, 96))


def test_every_linear_operator_has_a_transpose():
    assert all(hasattr(DEGRADATIONS.get(name), "adjoint") for name in LINEAR)
