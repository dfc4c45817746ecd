"""BridgeLoss against its formula."""

import pytest
import torch

from i2sb_plugin.models.bridge_loss import BridgeLoss

# isort: split
from basicsr.losses import build_loss

PREDICTION = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
TARGET = torch.tensor([[[[0.0, 2.0], [5.0, 1.0]]]])  # differences 1, 0, -2, 3
MASK = torch.tensor([[[[1.0, 1.0], [0.0, 1.0]]]])


@pytest.mark.parametrize(("norm", "expected"), [("l2", 14 / 4), ("l1", 6 / 4)])
def test_mean_over_all_elements(norm, expected):
    assert float(BridgeLoss(norm=norm)(PREDICTION, TARGET)) == pytest.approx(expected)


@pytest.mark.parametrize(("norm", "expected"), [("l2", 10 / 4), ("l1", 4 / 4)])
def test_a_mask_hides_elements_and_the_mean_stays_over_all(norm, expected):
    assert float(BridgeLoss(norm=norm)(PREDICTION, TARGET, MASK)) == pytest.approx(expected)


def test_one_mask_serves_a_batch_and_all_channels():
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(3, 4, 5, 6, generator=g) for _ in range(2))
    mask = (torch.rand(1, 1, 5, 6, generator=g) > 0.5).to(torch.uint8)
    expected = (mask * a - mask * b).square().sum() / a.numel()
    torch.testing.assert_close(BridgeLoss()(a, b, mask), expected)
    torch.testing.assert_close(BridgeLoss()(a, b, mask.expand(3, 4, 5, 6)), expected)


def test_per_hole_every_image_counts_alike_however_large_its_hole():
    difference = torch.tensor([2.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 3, 4, 4)
    mask = torch.zeros(2, 1, 4, 4)
    mask[0, :, :1, :1], mask[1] = 1, 1
    both = BridgeLoss(per_hole=True)(difference, torch.zeros_like(difference), mask)
    alone = [BridgeLoss(per_hole=True)(d[None], torch.zeros_like(d[None]), m[None]) for d, m in zip(difference, mask)]
    assert [float(loss) for loss in alone] == [4.0, 1.0] and float(both) == 2.5
    mask[0] = 0
    assert float(BridgeLoss(per_hole=True)(difference, torch.zeros_like(difference), mask)) == 0.5, "no hole, no error"


def test_weight_multiplies_and_the_gradient_is_twice_the_mean_difference():
    prediction = PREDICTION.clone().requires_grad_()
    BridgeLoss(loss_weight=0.5)(prediction, TARGET).backward()
    torch.testing.assert_close(prediction.grad, 0.5 * 2 * (PREDICTION - TARGET) / 4)


def test_a_half_precision_prediction_is_compared_in_float32():
    loss = BridgeLoss()(torch.full((1, 1, 2, 2), 300.0, dtype=torch.float16), torch.zeros(1, 1, 2, 2))
    assert loss.dtype == torch.float32
    assert float(loss) == 90_000


def test_basicsr_builds_it_by_name():
    loss = build_loss({"type": "BridgeLoss", "loss_weight": 2.0, "norm": "l1"})
    assert float(loss(PREDICTION, TARGET)) == pytest.approx(3.0)


def test_an_unknown_norm_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"norm of BridgeLoss is 'l3'; .*l1"):
        BridgeLoss(norm="l3")


@pytest.mark.parametrize("shape", [(1, 3, 2, 2), (1, 1, 2, 1), (2, 1, 2, 2)])
def test_shapes_that_differ_are_refused_instead_of_broadcast(shape):
    with pytest.raises(ValueError, match=r"prediction of shape .* for a target of"):
        BridgeLoss()(torch.zeros(shape), TARGET)


@pytest.mark.parametrize("shape", [(2, 2), (1, 1, 1, 2), (2, 1, 2, 2), (1, 3, 2, 2)])
def test_masks_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match="mask of shape"):
        BridgeLoss()(PREDICTION, TARGET, torch.ones(shape))
