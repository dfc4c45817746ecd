"""What restores the images of a benchmark, once its weights are loaded."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from basicsr_ext.benchmark.run.store import GIVEN
from basicsr_ext.checkpoints.storage import load_checkpoint
from basicsr_ext.common.errors import InputError
from basicsr_ext.models.acceleration import synchronize
from basicsr_ext.options.check import model_class
from basicsr_ext.restoring.configuration import with_flags
from basicsr_ext.restoring.restorer import Loading, Restorer, find_device
from basicsr_ext.restoring.tiling import TiledNetwork

Items = Sequence[Mapping[str, Any]]  # of a data set
Restored = tuple[Tensor, dict[str, Tensor]]


class Facts(NamedTuple):
    """What is known of a method once it ran on one image: ``flops`` are for that image."""

    parameters: int
    flops: float
    network_calls: int
    sampler: str | None


class _Enough(Exception):
    """Ends a restoration whose first network call has been seen; has its arguments."""


class Runner:
    """The common part: a network, and one call of it seen from outside."""

    device: torch.device
    network: nn.Module
    network_calls = 1
    sampler: str | None = None

    def restore(self, items: Items, seeds: Sequence[int]) -> list[Restored]:
        """Restore items of a data set of one size at once, each with the noise of its own seed.

        Returns C,H,W in [0, 1] on the CPU for each, and further pictures of that size by name.
        """
        raise NotImplementedError

    def walk(self, item: Mapping[str, Any], seed: int) -> Tensor | None:
        """A picture C,H,W of how the restoration came about; None where there is nothing to show."""
        return None

    @torch.no_grad()
    def facts(self, item: Mapping[str, Any]) -> Facts:
        """Call the network once, as the restoration of ``item`` will, and count what a whole restoration takes."""
        arguments = self._first_call([item])
        with FlopCounterMode(display=False) as counter:
            self.network(*arguments)
        parameters = sum(weight.numel() for weight in self.network.parameters())
        flops = float(counter.get_total_flops()) * self.network_calls
        return Facts(parameters, flops, self.network_calls, self.sampler)

    @torch.no_grad()
    def warm_up(self, items: Items) -> None:
        """Call the network once, as the restoration of ``items`` will, so that it compiles before seconds are taken."""
        self.network(*self._first_call(items))
        synchronize(self.device)

    def _first_call(self, items: Items) -> tuple[Any, ...]:
        def stop(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            raise _Enough(arguments)

        handle = self.network.register_forward_pre_hook(stop)
        try:
            self.restore(items, [0] * len(items))
        except _Enough as enough:
            return enough.args[0]
        finally:
            handle.remove()
        raise RuntimeError("a restoration made no network call")


class TrainedRunner(Runner):
    """A registered model, by the same path as ``basicsr restore``."""

    def __init__(
        self, opt: Mapping[str, Any], weights: Path | None, flags: dict, device: str, tile: int | None
    ) -> None:
        val = (opt.get("val") or {}) if tile is None else {"tile": tile}
        how = Loading(device, val.get("tile", 0), val.get("tile_overlap"))
        self._restorer, self._flags = Restorer(opt, weights, how), flags
        self._restorer.take(**flags)
        self.device, self.network = self._restorer.device, self._restorer.network
        self.network_calls = self._restorer.offers.network_calls
        if "sampler" in self._restorer.offers.restore_flags:
            block: Any = with_flags(opt, model_class(opt), flags)  # type: ignore[arg-type]
            for key in self._restorer.offers.restore_flags["sampler"][1].split("."):
                block = block.get(key) if isinstance(block, Mapping) else None
            self.sampler = block

    def restore(self, items: Items, seeds: Sequence[int]) -> list[Restored]:
        """Restore items: see the base."""
        given = {key: torch.stack([item[key] for item in items]) for key in GIVEN if key in items[0]}
        images, extras = self._restorer.restore(given.pop("lq"), **given, seed=seeds, **self._flags)
        return [(image, {name: pictures[k] for name, pictures in extras.items()}) for k, image in enumerate(images)]

    def walk(self, item: Mapping[str, Any], seed: int) -> Tensor | None:
        """The model's own picture of a restoration of several steps."""
        if self.network_calls < 2:
            return None
        given = {key: item[key][None] for key in GIVEN if key in item}
        return self._restorer.walk(given.pop("lq"), **given, seed=seed, **self._flags)


def load_foreign(path: Path) -> Any:
    """Load weights by the package spandrel, which finds out their architecture; only tensors are unpickled.

    Raises InputError if the file is damaged, spandrel does not know its architecture, or that restores no single image.
    """
    from spandrel import ImageModelDescriptor, ModelLoader

    state = load_checkpoint(path, "spandrel")
    try:
        model = ModelLoader("cpu").load_from_state_dict(state)
    except Exception as error:  # the package's own kinds, and whatever a wrong shape raises
        words = " ".join(str(error).split()[:30]) or type(error).__name__
        raise InputError(f"spandrel: {path} is of no architecture that spandrel knows ({words})") from error
    if not isinstance(model, ImageModelDescriptor):
        raise InputError(f"spandrel: {path} is a {model.architecture.name}, which does not restore single images")
    return model


class ForeignRunner(Runner):
    """Weights of another toolkit, loaded by spandrel; it pads and crops as the architecture needs."""

    def __init__(self, weights: Path, device: str, tile: int | None) -> None:
        self.device = find_device(device)
        self._model = load_foreign(weights).to(self.device).eval()
        self.network = TiledNetwork(_Plain(self._model), tile or 0).eval()

    @torch.no_grad()
    def restore(self, items: Items, seeds: Sequence[int]) -> list[Restored]:
        """Restore items: see the base; ``seeds`` have no effect."""
        images, wanted = torch.stack([item["lq"] for item in items]), self._model.input_channels
        if wanted == 3 and images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        if images.shape[1] != wanted:
            found = images.shape[1]
            raise InputError(f"the images have {found} channels, but the network takes {wanted}; convert them")
        restored = self.network(images.to(self.device)).float().cpu()
        if not torch.isfinite(restored).all():
            raise InputError("the network gave NaN or infinite values; are these weights whole?")
        return [(image, {}) for image in restored.clamp(0, 1)]


class _Plain(nn.Module):
    """What spandrel loaded, as a module of its own."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.net, self._call = model.model, model

    def forward(self, image: Tensor) -> Tensor:
        return self._call(image)
