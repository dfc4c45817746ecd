"""I2SB as a BasicSR model: `model_type: I2SBModel`."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from basicsr.losses import build_loss
from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn

from basicsr_ext.common.errors import InputError
from basicsr_ext.common.seeds import seed_from
from basicsr_ext.images.arrays import displayed
from basicsr_ext.models.restoration_model import RestorationModel
from i2sb_plugin import samplers, space
from i2sb_plugin.bridge import Bridge, sent, standard_normal
from i2sb_plugin.models.bridge_options import (
    BridgeOptions,
    BridgeTrainOptions,
    BridgeValOptions,
    SamplerOptions,
    read_block,
)
from i2sb_plugin.models.channels import channel_faults, input_channels
from i2sb_plugin.models.consistency import consistent, with_low_frequencies
from i2sb_plugin.models.x0_losses import X0Losses, loss_faults, trial_faults
from i2sb_plugin.preconditioning import Direct, Preconditioning

__all__ = ["I2SBModel", "drawn"]

_ROUNDING = 1e-12  # mean square of what float32 leaves between equal images; a step of 16 bits is 1e-9
_DIAL, _ENDS = 0.5, 0.2  # where the dial stands if nobody sets it, and the share of samples at one of its ends
_HOLES = "val.sampler.low_frequencies is given, but a hole has none that are known; leave it out"


@MODEL_REGISTRY.register()
class I2SBModel(RestorationModel):
    """Image-to-Image Schroedinger Bridge (arXiv 2302.05872): algorithm 1 trains, algorithm 2 restores."""

    option_blocks: ClassVar[dict[str, type]] = {
        "bridge": BridgeOptions,
        "val.sampler": SamplerOptions,
        "train": BridgeTrainOptions,
        "val": BridgeValOptions,
    }
    restore_flags: ClassVar[dict[str, tuple[type, str, str]]] = {
        "sampler": (str, "val.sampler.type", "how to walk from the image to its restoration"),
        "nfe": (int, "val.sampler.nfe", "network evaluations: 1 gives the mean, more draw one sharp image"),
        "samples": (int, "val.sampler.draws", "restorations that are averaged; their spread is saved as well"),
        "eta": (float, "val.sampler.eta", "noise of the sampler dbim, 0 to 1"),
        "order": (int, "val.sampler.order", "order of the sampler dbim, 1 to 3"),
        "spacing": (str, "val.sampler.spacing", "how the steps are spread"),
        "dial": (float, "val.sampler.dial", "of a bridge with one: from 0, realism, to 1, fidelity"),
        "low_frequencies": (float, "val.sampler.low_frequencies", "take colours from the input: pixels of the blur"),
    }
    takes_mask: ClassVar[bool] = True
    network_takes: ClassVar[tuple[str, ...]] = ("x", "time", "cond")
    one_draw: ClassVar[str] = "any sampler with --nfe 1; with more evaluations --sampler ot_ode, or dbim with --eta 0"
    path_block: ClassVar[str] = "bridge"  # the block of options that builds what is walked
    plain_loss: ClassVar[Mapping[str, Any]] = {"type": "BridgeLoss"}  # of training where the options give none

    def __init__(self, opt: dict) -> None:
        self.bridge_options = self._read(opt, self.path_block)
        self.bridge = self.bridge_options.build()
        self.parametrization: Direct | Preconditioning = Direct(self.bridge)
        self._precondition(opt, self.bridge_options.residual_variance)
        self.take_options(opt)
        self.scale = opt.get("scale", 1)
        super().__init__(opt)
        self.channels = getattr(self.get_bare_model(self.net_g), "in_channels", None)  # of xt
        cond_x1 = self.bridge_options.cond_x1
        self.lq_channels, self.takes_cond = input_channels(opt, self.channels, cond_x1, self.maps(opt))
        if self.takes_cond and not cond_x1:
            self.cond_channels = opt["network_g"]["cond_channels"] - self.maps(opt)

    def take_options(self, opt: dict) -> None:
        """Take ``val.sampler``; InputError for more steps than there are, or a dial where there is none."""
        super().take_options(opt)
        self.sampler_options = self._read(opt, "val.sampler")
        if faults := self._dial_faults({**opt, "train": None}, {}):
            raise InputError(faults[0])
        self.steps = _grid(self.bridge, self.sampler_options)

    @classmethod
    def _read(cls, opt: Mapping[str, Any], dotted: str) -> Any:
        """The options of one of ``option_blocks``; InputError if they are wrong."""
        block: Any = opt
        for key in dotted.split("."):
            block = (block or {}).get(key)
        return read_block(cls.option_blocks[dotted], block, dotted)

    @classmethod
    def maps(cls, opt: Mapping[str, Any]) -> int:
        """Channels of the condition that are no images: the one of a dial."""
        return int(cls._read(opt, cls.path_block).dial)

    def curve(self, iteration: int) -> dict[str, dict]:
        """The sampler at each number of evaluations in ``val.nfe_curve``, every ``val.nfe_curve_freq`` iterations."""
        val = self.opt.get("val") or {}
        every = val.get("nfe_curve_freq")
        if every and iteration % every:
            return {}
        return {f"nfe_{nfe}": _with_nfe(self.opt, nfe) for nfe in val.get("nfe_curve") or ()}

    @property
    def network_calls(self) -> int:
        """One for each step of each walk."""
        return (len(self.steps) - 1) * self.sampler_options.draws

    def flag_values(self) -> dict[str, Any]:
        """The values in ``val.sampler``, the dial's as it is taken where nobody set it."""
        keys = {name: dotted.rpartition(".")[2] for name, (_, dotted, _) in self.restore_flags.items()}
        values = {name: getattr(self.sampler_options, key) for name, key in keys.items()}
        return values | ({"dial": self._dial} if values.get("dial") is None and self._has_dial else {})

    @property
    def _has_dial(self) -> bool:
        return bool(self.bridge_options.dial)

    @property
    def _dial(self) -> float:
        return _DIAL if self.sampler_options.dial is None else self.sampler_options.dial

    @classmethod
    def option_faults(cls, opt: Mapping[str, Any]) -> list[str]:
        """Faults that no single block can tell, found before anything is built."""
        losses = (opt.get("train") or {}).get("x0_losses") or {}
        if faults := loss_faults(losses) + cls._dial_faults(opt, losses):
            return faults
        bridge = cls._read(opt, cls.path_block).build()
        try:
            _grid(bridge, cls._read(opt, "val.sampler"))
        except InputError as error:
            return [str(error)]
        for nfe in (opt.get("val") or {}).get("nfe_curve") or ():
            try:
                _grid(bridge, cls._read(_with_nfe(opt, nfe), "val.sampler"))
            except InputError as error:
                return [f"val.nfe_curve: {error}"]
        return []

    @classmethod
    def _dial_faults(cls, opt: Mapping[str, Any], losses: Mapping[str, Any]) -> list[str]:
        """A dial that is asked for, but not there, or that changes nothing."""
        dial = cls._read(opt, cls.path_block).dial
        if cls._read(opt, "val.sampler").dial is not None and not dial:
            return [
                f"val.sampler.dial is given, but {cls.path_block}.dial is false: this network has none; leave it out"
            ]
        if dial and "optim_g" in (opt.get("train") or {}) and not losses:
            return ["bridge.dial is true, but it weighs train.x0_losses, and there are none; give "
                    "{lpips: {type: LPIPSLoss, at: x1}}, or leave the dial out"]  # fmt: skip
        return []

    @classmethod
    def data_faults(cls, opt: Mapping[str, Any], item: Mapping[str, Any]) -> list[str]:
        """Faults of the channels of one image of the data: xt has those of gt, lq may have others.

        In a training also what keeps ``train.x0_losses`` from looking at crops: missing weights, channels, sizes.
        """
        options = cls._read(opt, cls.path_block)
        faults = channel_faults(opt, item, options.cond_x1, cls.maps(opt))
        if opt.get("is_train") and "gt" in item:
            size = opt["datasets"]["train"].get("gt_size") or min(item["gt"].shape[-2:])
            faults += trial_faults(opt["train"].get("x0_losses") or {}, item["gt"].shape[-3], size)
        if "mask" in item and cls._read(opt, "val.sampler").low_frequencies is not None:
            faults.append(_HOLES)
        return faults

    # ---- preconditioning

    def _precondition(self, opt: Mapping[str, Any], variance: float | str | None) -> None:
        """Scale the network by the mean square of x0 - x1, once it is known, if the options ask for it."""
        options = self.bridge_options
        if options.predicts != "preconditioned" or not isinstance(variance, float | int):
            return
        self.parametrization = options.precondition(self.bridge, float(variance))
        opt[self.path_block]["residual_variance"] = float(variance)  # so that every save holds it

    @property
    def _lacks_variance(self) -> bool:
        return self.bridge_options.predicts == "preconditioned" and isinstance(self.parametrization, Direct)

    def take_configuration(self, configuration: Mapping[str, Any]) -> None:
        """Take the measured ``residual_variance`` of a checkpoint where the options say ``auto``."""
        if not self._lacks_variance:
            return
        self._precondition(self.opt, (configuration.get(self.path_block) or {}).get("residual_variance"))
        if self._lacks_variance and not self.is_train:
            raise InputError(
                f"{self.path_block}.residual_variance is auto, but the checkpoint does not hold the number that its "
                "training measured; give the number, which the training's log has"
            )

    def begin_training(self, batches: Iterable[dict[str, Any]]) -> None:
        """Measure ``residual_variance`` where it is ``auto`` and no checkpoint has it: the mean square of x0 - x1.

        With masks, that of the hole. InputError if every degraded image is the clean one, but for rounding.
        """
        if not self._lacks_variance:
            return
        total = count = images = 0.0
        for batch in batches:
            self.feed_data(batch)
            x0, (x1, _) = space.encode(self.batch["gt"]), self.ends(self.batch)
            counted = self.batch.get("mask", torch.ones_like(x0)).expand_as(x0)
            total += float(((x0 - x1).square() * counted).sum(dtype=torch.float64))
            count += float(counted.sum(dtype=torch.float64))
            images += len(x0)
        variance, where = total / max(count, 1), f"{self.path_block}.residual_variance"
        if variance < _ROUNDING:
            seen = f"the {images:.0f} degraded images of the training set that were looked at are the clean ones"
            raise InputError(f"{where} is auto, but {seen}; correct datasets.train, or give a number above 0")
        self._precondition(self.opt, variance)
        get_root_logger().info(f"{where}: {variance:.6g}, measured on {images:.0f} images of the training set.")

    # ---- training

    def init_losses(self) -> None:
        """Build ``train.bridge_opt``, :attr:`plain_loss` where it is left out, and ``train.x0_losses``."""
        train = self.opt["train"]
        self.cri_bridge = build_loss(dict(train.get("bridge_opt") or self.plain_loss)).to(self.device)
        self.x0_losses = X0Losses(train.get("x0_losses") or {}).to(self.device)

    def training_loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Regress the target of eq. 12 at a random node of the bridge (algorithm 1)."""
        generators = batch.get("generators")
        x0 = space.encode(batch["gt"])
        dial = self._sample_dial(len(x0), generators)
        x1, cond = self.ends(batch, generators, dial)
        self._check_sizes(x0, x1, batch)
        step = self._sample_step(len(x0), generators)
        xt = self.bridge.sample_xt(x0, self._with_noise(x1, generators), step, generators)
        prediction = self._call(self.net_g, xt, x1, step, cond).float()
        target, sigma = self.parametrization.target(xt, x0, x1, step), sent(self.bridge.sigma[step].float(), xt.device)
        loss = self.cri_bridge(prediction, target, batch.get("mask"), sigma)
        error = (prediction.detach() - target).square().flatten(1).mean(1)
        time = sent(step / self.bridge.last_step, error.device)
        self.loss_by_time.add(time, error)
        if not self.x0_losses:
            return {"l_bridge": loss}
        found = self.parametrization.x0_from(xt, prediction, x1, step)
        if "mask" in batch:
            found = torch.where(batch["mask"].bool(), found, x0)
        weight = None if dial is None else sent((1 - dial) ** 2, x0.device)
        shift = drawn("shift", 2, len(x0), generators)
        return {"l_bridge": loss} | self.x0_losses(found, x0, step == self.bridge.last_step, time, weight, shift)

    def _check_sizes(self, x0: Tensor, x1: Tensor, batch: dict[str, Any]) -> None:
        if x0.shape != x1.shape:
            raise InputError(
                f"gt is {tuple(x0.shape[1:])} but lq at scale {self.scale} is {tuple(x1.shape[1:])} "
                f"(channels, height, width) for {batch['lq_path'][0]}; the bridge needs them equal"
            )

    def _call(self, net: nn.Module, xt: Tensor, x1: Tensor, step: Tensor, cond: Tensor | None) -> Tensor:
        """The network's output at a node for each image, ``x1`` being the start without noise of its own."""
        fed = self.parametrization.network_input(xt, x1, step)
        return net(fed, sent(self.bridge.time(step), xt.device), cond)

    def _sample_step(self, count: int, generators: list[torch.Generator] | None) -> Tensor:
        """Draw a training step for each image, on the CPU: (count,) int64."""
        if generators is None:
            return self.bridge.sample_step(count)
        seeds = [seed_from("step", generator.initial_seed()) for generator in generators]
        return torch.cat([self.bridge.sample_step(1, torch.Generator().manual_seed(seed)) for seed in seeds])

    def _sample_dial(self, count: int, generators: list[torch.Generator] | None) -> Tensor | None:
        """Draw the dial of each sample, on the CPU: (count,) in [0, 1], one in five at an end; None without a dial."""
        if not self.bridge_options.dial:
            return None
        found = drawn("dial", 2, count, generators)
        return torch.where(found[:, 1] < _ENDS, found[:, 0].round(), found[:, 0])

    def restore(self, batch: dict[str, Any], net: nn.Module, generators: Any, callback: Any = None) -> Tensor:
        """Walk from x1 to x0 by ``val.sampler`` (algorithm 2): B,C,H,W in [0, 1], the mean of ``draws`` walks.

        With several draws ``extras["std"]`` is four times their standard deviation, so that white stands for 0.25.
        """
        draws = self.sampler_options.draws
        mean = self._walk(batch, net, generators, callback)
        squares = torch.zeros_like(mean)
        for draw in range(2, draws + 1):
            image = self._walk(batch, net, generators, None)
            change = image - mean
            mean = mean + change / draw
            squares = squares + change * (image - mean)
        self.extras = {"std": (4 * (squares / (draws - 1)).sqrt()).clamp(0, 1)} if draws > 1 else {}
        return mean

    def _walk(self, batch: dict[str, Any], net: nn.Module, generators: Any, callback: Any) -> Tensor:
        options = self.sampler_options
        if "mask" in batch and options.low_frequencies is not None:
            raise InputError(_HOLES)
        dial = torch.full((len(batch["lq"]),), self._dial)
        clean, cond = self.ends(batch, generators, dial if self.bridge_options.dial else None)
        x1 = self._with_noise(clean, generators)
        predict_x0 = self.predictor(net, clean, cond)
        if options.consistency is not None:
            operator, strength = options.consistency.build(), options.consistency.strength
            predict_x0 = consistent(predict_x0, operator, batch["lq"], batch.get("mask"), strength)
        bounded = self.is_bounded
        keywords = {"generator": generators, "clip": options.clip and bounded, "callback": callback, **options.own}
        restored = space.decode(self._sample(predict_x0, x1, batch.get("mask"), keywords), bounded)
        if options.low_frequencies is None:
            return restored
        return with_low_frequencies(restored, space.decode(clean, bounded), options.low_frequencies, bounded)

    def _sample(self, predict_x0: samplers.PredictX0, x1: Tensor, mask: Tensor | None, keywords: dict) -> Tensor:
        sampler = samplers.SAMPLERS[self.sampler_options.type]
        return sampler(predict_x0, self.bridge, x1, self.steps, mask=mask, **keywords)

    def predictor(self, net: nn.Module, x1: Tensor, cond: Tensor | None) -> samplers.PredictX0:
        """Turn a network into the ``predict_x0`` that samplers call; x1 and cond are those of :meth:`ends`."""

        def predict_x0(xt: Tensor, step: int) -> Tensor:
            steps = torch.full((len(xt),), step)
            with self.autocast():
                prediction = self._call(net, xt, x1, steps, cond)
            return self.parametrization.x0_from(xt, prediction.float(), x1, steps)

        return predict_x0

    def progress_strip(self, batch: dict[str, Any], net: nn.Module, seed: int = 0) -> Tensor:
        """The walk of one image side by side: x1, up to six points of it with the last, and the ground truth if any."""
        points = [space.decode(self.start(batch, [torch.Generator().manual_seed(seed)])[0])[0]]
        wanted = {self.steps[k] for k in samplers.space_indices(len(self.steps), min(len(self.steps), 7))[1:]}
        self.restore(batch, net, [torch.Generator().manual_seed(seed)], _keep(points, wanted))
        if "gt" in batch:
            points.append(batch["gt"][0])
        return torch.cat([displayed(point, self.values)[:3].cpu().clamp(0, 1) for point in points], dim=-1)

    def start(self, batch: dict[str, Any], generators: Any = None) -> tuple[Tensor, Tensor | None]:
        """Where a walk starts, x1 with noise of its own where the options add some, and the condition."""
        x1, cond = self.ends(batch, generators)
        return self._with_noise(x1, generators), cond

    def ends(
        self, batch: dict[str, Any], generators: Any = None, dial: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The end of the bridge and the condition for a batch: x1, B,C,H,W, and cond, B,Cc,H,W in [-1, 1], or None.

        The hole of a mask is filled first, then the condition is taken: x1, images of the data set, and a map of the
        dial, (B,) in [0, 1], as far as there are any. x1 may be a part of cond, so that a large image lies in memory
        once.
        """
        lifted = space.encode(batch["lq"], self.scale, self.bridge_options.lift)
        if "mask" in batch and self.bridge_options.hole == "noise":
            lifted = torch.where(batch["mask"].bool(), standard_normal(lifted, generators), lifted)
        seen = ([lifted] if self.bridge_options.cond_x1 else []) + ([batch["cond"] * 2 - 1] if "cond" in batch else [])
        if dial is not None:
            level = sent(2 * dial - 1, lifted.device).to(lifted)
            seen.append(level[:, None, None, None].expand(lifted.shape[0], 1, *lifted.shape[2:]))
        cond = torch.cat(seen, 1) if seen else None
        if cond is not None and self.bridge_options.cond_x1:
            lifted = cond[:, : lifted.shape[1]]
        return space.match_channels(lifted, self.channels) if self.channels else lifted, cond

    def _with_noise(self, x1: Tensor, generators: Any) -> Tensor:
        """x1 plus noise of the scale ``add_x1_noise``, which the condition does not have, as in the release."""
        scale = float(self.bridge_options.add_x1_noise)
        return x1.add(standard_normal(x1, generators), alpha=scale) if scale else x1


def drawn(purpose: str, numbers: int, count: int, generators: list[torch.Generator] | None) -> Tensor:
    """Uniform numbers in [0, 1) for each image, (count, numbers) on the CPU, that follow from its generator."""
    if generators is None:
        return torch.rand(count, numbers)
    seeds = [seed_from(purpose, generator.initial_seed()) for generator in generators]
    return torch.cat([torch.rand(1, numbers, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def _keep(points: list[Tensor], wanted: set[int]) -> samplers.Callback:
    def callback(step: int, xt: Tensor, _: Tensor) -> None:
        if step in wanted:
            points.append(space.decode(xt)[0])

    return callback


def _with_nfe(opt: Mapping[str, Any], nfe: int) -> dict[str, Any]:
    val = opt.get("val") or {}
    return {**opt, "val": {**val, "sampler": {**(val.get("sampler") or {}), "nfe": nfe}}}


def _grid(bridge: Bridge, options: SamplerOptions) -> list[int]:
    try:
        return samplers.step_grid(bridge, options.nfe, options.spacing, options.first)
    except ValueError as error:
        raise InputError(f"val.sampler.{error}") from None
