"""Pixels to the bridge and back."""

import pytest
import torch

from i2sb_plugin import space


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_decode_undoes_encode(channels):
    image = torch.rand(2, channels, 7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(space.decode(space.encode(image)), image, rtol=0, atol=1e-15)


@pytest.mark.parametrize("mode", space.LIFTS)
def test_a_constant_stays_constant_and_the_size_is_multiplied(mode):
    lifted = space.lift(torch.full((1, 3, 5, 7), 0.3), 4, mode)
    assert lifted.shape == (1, 3, 20, 28)
    assert torch.allclose(lifted, torch.full_like(lifted, 0.3), rtol=0, atol=1e-6)


def test_nearest_repeats_each_pixel():
    image = torch.arange(4.0).reshape(1, 1, 2, 2)
    assert space.lift(image, 2, "nearest")[0, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def test_encode_leaves_its_input_alone():
    image = torch.rand(1, 3, 4, 4)
    before = image.clone()
    space.encode(image)
    assert torch.equal(image, before)


def test_an_unknown_mode_is_named():
    with pytest.raises(ValueError, match="bridge.lift is 'cubic'.*bicubic, bilinear, nearest"):
        space.lift(torch.zeros(1, 1, 2, 2), 2, "cubic")


@pytest.mark.parametrize("mode", space.LIFTS)
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_traced_lift_gives_the_same_on_any_size(mode, scale):
    """As a convolution, which every runtime of graphs knows."""
    traced = torch.jit.trace(lambda image: space.lift(image, scale, mode), torch.rand(1, 3, 9, 7))
    for shape in ((2, 3, 16, 5), (1, 3, 1, 1), (1, 3, 2, 13)):
        image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(traced(image), space.lift(image, scale, mode), rtol=0, atol=1e-5)
