"""The regression that trains the bridge's network."""

from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from basicsr_ext.common.errors import InputError, did_you_mean

__all__ = ["BridgeLoss"]

NORMS = ("l2", "l1")
WEIGHTINGS = {"uniform": 0, "sigma": 1, "sigma2": 2}  # powers of sigma


@LOSS_REGISTRY.register()
class BridgeLoss(nn.Module):
    """Mean distance between the network's prediction and the bridge's target, where the mask is 1.

    Args:
        loss_weight: factor of the result.
        norm: 'l2', the mean of squares of the paper, or 'l1', the mean of magnitudes.
        per_hole: with a mask, take the mean over each image's hole, and then over the images; the release divides by
            all elements, so that small holes count less.
        weighting: 'uniform', that of the paper, or the factor 'sigma' or 'sigma2' of the node; 'sigma2' makes the
            regression of eq. 12 one of x0.

    Raises:
        ValueError: ``norm`` or ``weighting`` is unknown.

    Source: I2SB (2302.05872) eq. 12.
    """

    def __init__(
        self, loss_weight: float = 1.0, norm: str = "l2", per_hole: bool = False, weighting: str = "uniform"
    ) -> None:
        super().__init__()
        if weighting not in WEIGHTINGS:
            raise InputError(f"weighting of BridgeLoss is {weighting!r}; {did_you_mean(weighting, WEIGHTINGS)}")
        if norm not in NORMS:
            raise InputError(f"norm of BridgeLoss is {norm!r}; {did_you_mean(norm, NORMS)}")
        self.loss_weight = loss_weight
        self.norm = norm
        self.per_hole = per_hole
        self.power = WEIGHTINGS[weighting]

    def forward(
        self, prediction: Tensor, target: Tensor, mask: Tensor | None = None, sigma: Tensor | None = None
    ) -> Tensor:
        """Compare in the precision of the target.

        Args:
            prediction: network output, (B, C, H, W), any precision.
            target: what :meth:`i2sb_plugin.bridge.Bridge.target` says, same shape.
            mask: weights in [0, 1], (B, 1, H, W), (1, 1, H, W) or (B, C, H, W), 1 where the image is to be restored;
                both prediction and target are multiplied by it, and the mean is over all elements, not over the mask,
                unless ``per_hole`` is set.
            sigma: (B,), the bridge's sigma at each image's node; needed by a ``weighting`` other than uniform.

        Returns:
            The loss, a scalar.

        Raises:
            ValueError: shapes that do not fit, or no ``sigma`` where it is needed.
        """
        if prediction.shape != target.shape:
            raise InputError(
                f"BridgeLoss got a prediction of shape {tuple(prediction.shape)} for a target of "
                f"{tuple(target.shape)}; network_g.out_channels must be the channels of gt"
            )
        difference = prediction.to(target.dtype) - target
        if mask is not None:
            self._check_mask(mask, target)
            difference = difference * mask
        size = difference.square() if self.norm == "l2" else difference.abs()
        if self.power:
            if sigma is None:
                raise ValueError("BridgeLoss with a weighting needs sigma, that of each image's node")
            size = size * sigma.to(size).pow(self.power).reshape(-1, *[1] * (size.ndim - 1))
        if mask is not None and self.per_hole:
            inside = mask.expand_as(size).flatten(1).sum(1).clamp_min(1)
            return self.loss_weight * (size.flatten(1).sum(1) / inside).mean()
        return self.loss_weight * size.mean()

    @staticmethod
    def _check_mask(mask: Tensor, target: Tensor) -> None:
        fits = mask.ndim == target.ndim and all(m in (1, n) for m, n in zip(mask.shape[:2], target.shape[:2]))
        if not fits or mask.shape[2:] != target.shape[2:]:
            raise InputError(
                f"BridgeLoss got a mask of shape {tuple(mask.shape)} for a target of {tuple(target.shape)}; "
                "it must be (B, 1, H, W) of the same height and width"
            )
