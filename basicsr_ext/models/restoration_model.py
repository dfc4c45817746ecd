"""One model for every restorer: BasicSR's SRModel with precision, accumulation, clipping, EMA and exact validation.

A restorer overrides two hooks, :meth:`RestorationModel.training_loss` and :meth:`RestorationModel.restore`.
"""

import contextlib
from collections.abc import Iterator
from functools import reduce
from operator import add
from typing import Any, ClassVar

import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn

from basicsr_ext.common.contracts import RestorerContract
from basicsr_ext.common.seeds import seed_from
from basicsr_ext.images.values import values_of
from basicsr_ext.models import acceleration
from basicsr_ext.models.loss_by_time import LossByTime
from basicsr_ext.models.options import TrainOptions, ValOptions
from basicsr_ext.models.validation import validate
from basicsr_ext.processes import collectives
from basicsr_ext.restoring.tiling import TiledNetwork
from basicsr_ext.training.nonfinite import Guard, Step, poisoned

Batch = dict[str, Any]


def ema_decay_at(update: int, decay: float, warmup: bool) -> float:
    """Decay of EMA update ``update`` = 1, 2, ...; with ``warmup`` min(decay, (1 + update) / (10 + update))."""
    return min(decay, (1 + update) / (10 + update)) if warmup else decay


@MODEL_REGISTRY.register()
class RestorationModel(RestorerContract, SRModel):
    """Plain regression with ``train.pixel_opt``; the base of every other restorer."""

    option_blocks: ClassVar[dict[str, type]] = {"train": TrainOptions, "val": ValOptions}
    skips_bad_steps: ClassVar[bool] = True
    takes_data: ClassVar[bool] = True
    ema_decay: float = 0.0
    accumulate: int = 1
    _tiled: TiledNetwork | None = None

    def __init__(self, opt: dict) -> None:
        self.acceleration = acceleration.choose("cuda" if opt["num_gpu"] != 0 else "cpu", opt.get("train"))
        self.acceleration.start()
        self.precision = self.acceleration.precision
        self.scaler = self.acceleration.scaler()
        self.values = values_of(opt)  # of data that are no pictures
        super().__init__(opt)

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Move a network to the device in the chosen memory layout, wrapped where several processes train it."""
        return super().model_to_device(self.acceleration.prepare(net))

    def get_optimizer(self, optim_type: str, params: Any, lr: float, **kwargs: Any) -> torch.optim.Optimizer:
        """Build an optimiser of torch, as one kernel where there is one."""
        return super().get_optimizer(optim_type, params, lr, **self.acceleration.optimizer_options(optim_type, kwargs))

    # ---- the two hooks

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of one batch, each a scalar; their sum is minimised, each is logged by its name.

        ``batch["generators"]`` holds a random generator for each image, on its device.
        """
        return {"l_pix": self.cri_pix(self.net_g(batch["lq"]), batch["gt"])}

    def restore(self, batch: Batch, net: nn.Module, generators: list[torch.Generator]) -> Tensor:
        """Restore ``batch['lq']`` (B,C,h,w in [0, 1]) with ``net``: B,C,H,W in [0, 1].

        ``generators`` holds one for each image, so that an image is restored alike in any batch and on any rank.
        """
        restored = net(batch["lq"]).float()
        return restored.clamp(0, 1) if self.is_bounded else restored

    @property
    def is_bounded(self) -> bool:
        """Whether nothing lies outside of [0, 1]: so it is of pictures, and of data with a range."""
        return self.values is None or self.values.bounded

    def progress_strip(self, batch: Batch, net: nn.Module, seed: int = 0) -> Tensor | None:
        """A picture C,H,W in [0, 1] of how one image is restored with the noise of ``seed``; None for none."""
        return None

    def curve(self, iteration: int) -> dict[str, dict]:
        """Settings to compare at the validation of an iteration: options for :meth:`take_options` by name."""
        return {}

    # ---- training

    def init_training_settings(self) -> None:
        """Build EMA, losses, optimiser and schedulers."""
        train = self.opt["train"]
        self.net_g.train()
        self.ema_decay = train.get("ema_decay", 0)
        self.accumulate = train.get("accumulate", 1)
        if self.ema_decay > 0:
            self._init_ema()
        self.init_losses()
        self.setup_optimizers()
        self.setup_schedulers()
        self._log_sums: dict[str, Tensor] = {}
        self._log_count = 0
        self.loss_by_time = LossByTime()  # `training_loss` may add to it
        self._validated: set[tuple[str, int | str]] = set()
        self.guard = Guard(self, self.scaler.is_enabled())
        chosen = [f"A batch is taken in {self.accumulate} part(s).", *self.acceleration.lines()]
        get_root_logger().info("\n  ".join(chosen))

    def init_losses(self) -> None:
        """Build the losses that :meth:`training_loss` uses."""
        self.cri_pix = build_loss(self.opt["train"]["pixel_opt"]).to(self.device)

    def _init_ema(self) -> None:
        net = build_network(self.opt["network_g"]).to(self.device).eval().requires_grad_(False)
        self.net_g_ema = self.acceleration.prepare(net)
        path = self.opt["path"].get("pretrain_network_g")
        if path is None:
            self.model_ema(0)
        else:
            self.load_network(self.net_g_ema, path, self.opt["path"].get("strict_load_g", True), "params_ema")

    def feed_data(self, data: Batch) -> None:
        """Take a batch to the device."""
        self.batch = {k: v.to(self.device, non_blocking=True) if torch.is_tensor(v) else v for k, v in data.items()}
        self.lq, self.gt = self.batch["lq"], self.batch.get("gt")

    def optimize_parameters(self, current_iter: int) -> None:
        """One step of the optimiser on the batch last fed.

        Raises NonFiniteLoss if the loss or the gradient is NaN or infinite (on a GPU it is said two steps later).
        """
        self.optimizer_g.zero_grad(set_to_none=True)
        losses: dict[str, Tensor] = {}
        parts = list(_split(self.batch | {"generators": self._generators(current_iter)}, self.accumulate))
        for k, (part, share) in enumerate(parts):
            # only the last part of a batch exchanges gradients between ranks
            apart = k < len(parts) - 1 and isinstance(self.net_g, nn.parallel.DistributedDataParallel)
            with self.net_g.no_sync() if apart else contextlib.nullcontext():
                with self.autocast():
                    part_losses = self.training_loss(part)
                self.scaler.scale(poisoned(reduce(add, part_losses.values()) * share)).backward()
            for name, value in part_losses.items():
                losses[name] = losses.get(name, 0) + value.detach() * share
        self.scaler.unscale_(self.optimizer_g)
        step = self.guard.step(current_iter, self.batch, losses)
        if self.guard.refuses(step):
            self.scaler.update()
        else:
            self._update_weights(step)

    def _generators(self, current_iter: int) -> list[torch.Generator]:
        """One for each image, by its place in the batch of all ranks: what it draws does not depend on their number."""
        seed, ranks = self.opt.get("manual_seed") or 0, collectives.world_size()
        places = range(collectives.rank(), len(self.lq) * ranks, ranks)
        seeds = [seed_from("image", seed, current_iter, place) for place in places]
        return [torch.Generator(self.device).manual_seed(number) for number in seeds]

    def _update_weights(self, step: Step) -> None:
        norm = step.norm.nan_to_num(0, 0) if self.scaler.is_enabled() else step.norm
        for name, value in (step.losses | {"grad_norm": norm}).items():
            self._log_sums[name] = self._log_sums.get(name, 0) + value.detach().float()
        self._log_count += 1
        if (clip := self.opt["train"].get("grad_clip")) is not None:
            step.clip(clip)
        self.scaler.step(self.optimizer_g)
        self.scaler.update()
        if self.ema_decay > 0:
            warmup = self.opt["train"].get("ema_warmup", False)
            self.model_ema(ema_decay_at(step.iteration, self.ema_decay, warmup))

    def get_current_log(self) -> dict[str, float]:
        """Means since the last call, over all ranks, the learning rate, the loss by time, and skipped steps."""
        self.guard.settle()
        sums = {name: float(value) for name, value in self._log_sums.items()} | {"count": float(self._log_count)}
        sums = collectives.all_reduce_sum(sums)
        count = sums.pop("count") or 1.0
        self._log_sums, self._log_count = {}, 0
        skipped = {"skipped": float(self.guard.skipped)} if self.guard.skips else {}
        means = {name: value / count for name, value in sums.items()}
        return means | {"lr": self.get_current_learning_rate()[0]} | skipped | self.loss_by_time.read()

    def save(self, epoch: int, current_iter: int) -> None:
        """Save the networks, then the training state; refuses to save after a bad step."""
        self.guard.settle()
        super().save(epoch, current_iter)

    def autocast(self) -> torch.autocast:
        """The context of a network call at the model's precision."""
        return self.acceleration.autocast()

    def training_state_extras(self) -> dict[str, Any]:
        """What a save holds besides networks, optimisers and schedules: the scale of the loss in fp16."""
        return {"scaler": self.scaler.state_dict()}

    def load_training_state_extras(self, extras: dict[str, Any]) -> None:
        """Take up :meth:`training_state_extras` of a save; one of another precision brings no scale."""
        if self.scaler.is_enabled() and extras.get("scaler"):
            self.scaler.load_state_dict(extras["scaler"])
        for optimizer in self.optimizers:
            acceleration.match_layouts(optimizer)

    # ---- validation and test

    @property
    def eval_net(self) -> nn.Module:
        """The network that restores: the averaged one where there is one, without a distributed wrapper."""
        return self.net_g_ema if self.ema_decay > 0 else self.get_bare_model(self.net_g)

    @torch.no_grad()
    def test(self) -> None:
        """Restore the batch last fed into ``self.output``."""
        generators = [torch.Generator().manual_seed(k) for k in range(len(self.lq))]
        with self.evaluating() as net:
            self.output = self.restore(self.batch, net, generators)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[nn.Module]:
        """Lend :attr:`eval_net` in evaluation mode, in tiles where ``val.tile`` asks for them."""
        net = self.eval_net
        training = net.training
        net.eval()
        try:
            yield self._in_tiles(net)
        finally:
            net.train(training)

    def _in_tiles(self, net: nn.Module) -> nn.Module:
        """The network as ``val.tile`` has it; the same object again, which knows the tile that memory holds."""
        val = self.opt.get("val") or {}
        if not val.get("tile"):
            return net
        if self._tiled is None or self._tiled.net is not net:
            warn = get_root_logger().warning
            self._tiled = TiledNetwork(net, val["tile"], val.get("tile_overlap"), say=warn).eval()
        return self._tiled

    def validation(self, dataloader: Any, current_iter: int | str, tb_logger: Any, save_img: bool = False) -> None:
        """Restore the data set, shared out over the ranks, and log the metrics; the same figures on any number."""
        if self.is_train:
            self.guard.settle()
            done = (dataloader.dataset.opt["name"], current_iter)
            if done in self._validated:  # the loop validates once more at its end
                return
            self._validated.add(done)
        validate(self, dataloader.dataset, current_iter, tb_logger, save_img)


def _split(batch: Batch, parts: int) -> Iterator[tuple[Batch, float]]:
    """Cut a batch into ``parts`` along its first axis; with each part, its share of the images."""
    size = len(batch["lq"])
    bounds = [round(k * size / parts) for k in range(parts + 1)]
    for start, stop in zip(bounds, bounds[1:]):
        if stop > start:
            yield {k: v[start:stop] for k, v in batch.items()}, (stop - start) / size
