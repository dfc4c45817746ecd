"""A trained model, loaded to restore images, without a run around it."""

from __future__ import annotations

import contextlib
import copy
import logging
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from basicsr_ext.checkpoints.networks import check_fit, network_channels, network_multiple
from basicsr_ext.checkpoints.storage import AnyPath, load_weights, read_configuration
from basicsr_ext.common.contracts import RestorerContract, restorer_of
from basicsr_ext.common.errors import InputError
from basicsr_ext.images.arrays import displayed
from basicsr_ext.images.pictures import Picture, network_planes, with_planes
from basicsr_ext.images.values import values_of
from basicsr_ext.restoring.configuration import find_options, single_image_model, with_flags
from basicsr_ext.restoring.tiling import TiledNetwork

Draw = Callable[[Tensor], Tensor]  # gives noise of the shape, type and device of a tensor
Seeds = int | Sequence[int]  # of the noise: one for all images, or one for each
_KINDS = {1: "grey", 2: "grey with alpha", 3: "RGB", 4: "RGB with alpha"}


@dataclass(frozen=True)
class Loading:
    """Where a network restores, and how much of a picture it sees at once.

    A ``tile`` is in pixels of what the network sees, a multiple of what it needs; None for 512 of the restored image.
    """

    device: str = "auto"  # auto (a GPU where there is one), cpu, cuda, cuda:1, mps
    tile: int | None = None  # 0 for none
    overlap: int | None = None  # pixels that tiles share; None for an eighth of the tile
    tile_batch: int = 1  # tiles at once
    say: Callable[[str], None] = print  # told of a tile that was halved because memory ran out


class Restorer:
    """Any registered model of single images with its trained network.

    Attributes:
        scale: how much larger its images are.
        channels: of the images that it takes and gives; None where the network does not tell.
        offers: what the model offers besides what BasicSR asks of it: its flags, masks, conditions.
        values: what the numbers of data mean that it was trained on; None for pictures.
        network: the network, in tiles; its ``progress`` is told, during a call, which share of them is done.
    """

    def __init__(self, opt: Mapping[str, Any], checkpoint: AnyPath | None, how: Loading | None = None) -> None:
        how = how or Loading()
        self.device = find_device(how.device)
        self.opt = {**opt, "num_gpu": int(self.device.type == "cuda"), "dist": False, "rank": 0, "world_size": 1}
        self.scale = int(self.opt.get("scale", 1))
        self._model = _build(self.opt, self.device)
        self.offers = restorer_of(self._model)
        self._of_basicsr = not isinstance(self._model, RestorerContract)
        inputs, outputs = network_channels(self.opt["network_g"])
        self.channels = inputs if self.offers.lq_channels is None else self.offers.lq_channels, outputs
        net = self._model.net_g
        if checkpoint is not None:
            _load(net, checkpoint)
            if not self._of_basicsr:
                self.offers.take_configuration(read_configuration(checkpoint, "--checkpoint"))
                self.opt = copy.deepcopy(self._model.opt)
        tile = self._default_tile(network_multiple(net)) if how.tile is None else how.tile
        self.network = TiledNetwork(net, tile, how.overlap, how.tile_batch, say=how.say).eval()
        if self._of_basicsr:
            self._model.net_g = self.network
        self._given: dict[str, Any] = {}
        self.values = values_of(self.opt)
        if self.values is not None and not self.values.measured:
            self.values.interval(1)

    @classmethod
    def load(cls, checkpoint: AnyPath, options: AnyPath | None = None, **how: Any) -> Restorer:
        """Load ``net_g_*.pth`` of a run, or a ``.safetensors``; the plugins that it needs must be registered.

        ``options`` is an option file, None to find them by :func:`.configuration.find_options`; ``how`` are fields of
        :class:`Loading`. Raises InputError if the file is missing or damaged, its options are not found or wrong, it is
        of another architecture, the device is not there, or the network cannot take such tiles.
        """
        return cls(find_options(checkpoint, options)[0], checkpoint, Loading(**how))

    def with_network(self, net: torch.nn.Module) -> Restorer:
        """One that calls ``net`` where this one calls its network in tiles."""
        other = copy.copy(self)
        other.network = net  # type: ignore[assignment]  # what stands in has no tiles to tell of
        if self._of_basicsr:
            self._model.net_g = net
        return other

    def _default_tile(self, multiple: int) -> int:
        """A tile of about 512 restored pixels, not below 128 given ones, that the network can take."""
        from basicsr_ext.models.restoration_model import RestorationModel

        plain = self._of_basicsr or type(self._model).restore is RestorationModel.restore
        enlarges = self.scale if plain else 1  # as far as it is known: a bridge's image is lifted before
        return -(-max(512 // enlarges, 128) // multiple) * multiple

    def take(self, **flags: Any) -> None:
        """Take values for the model's own options (InputError); those not named fall back to the option file's."""
        given = {name: value for name, value in flags.items() if value is not None}
        if given != self._given:
            self.offers.take_options(with_flags(self.opt, type(self._model), given))
            self._given = given

    @torch.no_grad()
    def restore(
        self, image: Tensor, mask: Tensor | None = None, seed: Seeds = 0, cond: Tensor | None = None, **flags: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Restore images.

        Args:
            image: B,C,h,w in [0, 1], C as the network takes it.
            mask: B,1,h,w, 1 in the hole; the hole is painted white first, and nothing outside of it is changed.
            seed: of the noise, one for all or one for each image; an image is restored alike whatever is restored
                beside it, up to rounding.
            cond: condition images, B,Cc,H,W in [0, 1], of the restored size.
            flags: those of the model's ``restore_flags``.

        Returns B,C,H,W in [0, 1] on the CPU, and the model's further pictures of that size by name. Raises InputError
        for wrong channels, an unfit mask, an option out of range, seeds of another number than images, or too little
        memory.
        """
        self.take(**flags)
        found, wanted = image.shape[1], self.channels[0]
        if wanted not in (None, found):
            kinds = [_KINDS.get(count, "other") if self.values is None else "data" for count in (found, wanted)]
            has, takes = f"has {found} channel(s) ({kinds[0]})", f"takes {wanted} ({kinds[1]})"
            raise InputError(f"the image {has}, but the network {takes}; convert it")
        seeds, count = _seeds(seed, len(image)), len(image)
        batch = self._batch(image, mask, cond)
        try:
            restored = self._run(batch, [torch.Generator().manual_seed(seed) for seed in seeds]).float().cpu()
        except torch.cuda.OutOfMemoryError as error:
            several = f"{count} images of {_size(image)} pixels at once do not fit into memory ({error})"
            alone = f"an image of {_size(image)} pixels does not fit into memory ({error}); --device cpu"
            raise InputError(f"{several}; restore fewer at once" if count > 1 else alone) from error
        if not torch.isfinite(restored).all():
            raise InputError("the network gave NaN or infinite values; is this the checkpoint of a run that diverged?")
        extras = {name: picture.float().cpu() for name, picture in self.offers.extras.items()}
        return _finished(restored, image, mask, self.is_bounded), extras

    @property
    def is_bounded(self) -> bool:
        """Whether nothing lies outside of [0, 1]: so it is of pictures, and of data with a range."""
        return self.values is None or self.values.bounded

    def pass_through(
        self, image: Tensor, mask: Tensor | None, cond: Tensor | None, noise: list[torch.Generator] | Draw
    ) -> Tensor:
        """:meth:`restore` with tensors on the network's device and its own options, and nothing checked.

        ``noise`` is a generator for each image, or a function that gives what is asked for.
        """
        if not self._of_basicsr:
            self._model.device = image.device
        return _finished(self._run(_fed(image, mask, cond), noise).float(), image, mask, self.is_bounded)

    @torch.no_grad()
    def walk(
        self, image: Tensor, mask: Tensor | None = None, seed: int = 0, cond: Tensor | None = None, **flags: Any
    ) -> Tensor | None:
        """A picture C,H,W in [0, 1] of how :meth:`restore` comes to one image; None from a model without one."""
        self.take(**flags)
        if self._of_basicsr:
            return None
        self._model.feed_data(self._batch(image, mask, cond))
        return self._model.progress_strip(self._model.batch, self.network, seed)

    def _batch(self, image: Tensor, mask: Tensor | None, cond: Tensor | None) -> dict[str, Any]:
        """What the model is fed; InputError for a mask or condition images that it does not take or that do not fit."""
        name = type(self._model).__name__
        if mask is not None:
            if not self.offers.takes_mask:
                raise InputError(f"a mask is given, but {name} does not look at masks; leave it out")
            if mask.shape[-2:] != image.shape[-2:]:
                sizes = f"the mask has {_size(mask)} pixels, the image {_size(image)} (height x width)"
                raise InputError(f"{sizes}; they must agree")
            if mask.shape != (wanted := (len(image), 1, *image.shape[-2:])):
                raise InputError(f"the mask has the shape {tuple(mask.shape)}, but the images need {wanted}")
            if not mask.flatten(1).any(1).all():
                raise InputError("the mask has no hole: no pixel of it is white; paint white what is to be filled")
        if cond is not None:
            if not self.offers.takes_cond:
                raise InputError(f"condition images are given, but {name} takes none here; leave them out")
            found, size = tuple(cond.shape[-2:]), tuple(self.scale * length for length in image.shape[-2:])
            if found != size:
                raise InputError(f"the condition has {found} pixels, the restored image {size}; make them agree")
        return _fed(image, mask, cond)

    def _run(self, batch: dict[str, Any], noise: list[torch.Generator] | Draw) -> Tensor:
        model = self._model
        model.feed_data(batch)
        if not self._of_basicsr:
            return model.restore(model.batch, self.network, noise)
        model.test()
        return model.output

    def restore_pictures(
        self,
        pictures: Sequence[Picture],
        masks: Sequence[Tensor] | None = None,
        seed: Seeds = 0,
        conds: Sequence[Tensor] | None = None,
        **flags: Any,
    ) -> list[tuple[Picture, dict[str, Picture]]]:
        """Restore pictures of one size at once as :meth:`restore` does tensors.

        Those of data must be of :attr:`values`. A grey picture is given to a network of three channels as RGB. Alpha
        goes through the network if that has as many channels, otherwise it is enlarged bicubically.
        """
        images = [network_planes(picture, self.channels[0]) for picture in pictures]
        if len({image.shape for image in images}) > 1:
            raise InputError("the pictures differ in size or channels; restore those that are alike together")
        mask, cond = (None if planes is None else torch.stack(list(planes)) for planes in (masks, conds))
        restored, extras = self.restore(torch.stack(images), mask, seed, cond, **flags)
        if self.values is None and restored.shape[1] not in _KINDS:
            raise InputError(f"the network gives {restored.shape[1]} channels, which no picture can hold; 1 to 4 can")
        results = []
        for k, picture in enumerate(pictures):
            shown = {name: displayed(planes[k], self.values)[:3] for name, planes in extras.items()}
            further = {name: Picture(planes, None, picture.bits) for name, planes in shown.items()}
            result = with_planes(picture, restored[k])
            if masks is not None and self.values is not None and result.colours.shape == picture.colours.shape:
                known = torch.where(masks[k].bool(), result.colours, picture.colours)  # as they are stored, unrounded
                result = replace(result, colours=known)
            results.append((result, further))
        return results


def load_for_graph(opt: Mapping[str, Any], checkpoint: AnyPath) -> Restorer:
    """A :class:`Restorer` on the CPU and in float32 whatever its options say, as a graph is made of it."""
    return Restorer({**opt, "train": {**opt["train"], "precision": "fp32"}}, checkpoint, Loading("cpu"))


def _fed(image: Tensor, mask: Tensor | None, cond: Tensor | None) -> dict[str, Any]:
    """A model's batch: the image, its hole painted white, with its mask and condition."""
    batch: dict[str, Any] = {"lq": image, "lq_path": ["image"] * len(image)}
    if mask is not None:
        batch |= {"lq": torch.where(mask.bool(), torch.ones_like(image), image), "mask": mask.float()}
    return batch if cond is None else batch | {"cond": cond.float()}


def _finished(restored: Tensor, image: Tensor, mask: Tensor | None, is_bounded: bool) -> Tensor:
    """What was restored, in [0, 1] where it is bounded, with what lies outside the hole as it was."""
    if mask is not None and restored.shape == image.shape:
        restored = torch.where(mask.bool(), restored, image)
    return restored.clamp(0, 1) if is_bounded else restored


def find_device(name: str) -> torch.device:
    """Turn auto, cpu, cuda, cuda:1 or mps into a device; InputError if there is no such device here."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if count else torch.device("cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise ValueError(f"{name} is no device of ours")
    except (RuntimeError, TypeError, ValueError):
        raise InputError(f"device is {name!r}; it must be auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda" and (device.index or 0) >= count:
        raise InputError(f"device is {name}, but torch finds {count} CUDA device(s) here; give auto or cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("device is mps, but torch finds none here; give auto or cpu")
    return device


def _seeds(seed: Seeds, count: int) -> list[int]:
    """A seed for each image; InputError if they are no such whole numbers, or of another number."""
    try:
        given = seed if isinstance(seed, Sequence) else [seed] * count
        seeds = [-1 if isinstance(one, bool) else operator.index(one) for one in given]
    except TypeError:
        seeds = [-1]
    if not all(0 <= one < 2**63 for one in seeds):
        raise InputError(f"seed is {seed!r}; it must be a whole number from 0 to 2**63 - 1, or one for each image")
    if len(seeds) != count:
        raise InputError(f"seed has {len(seeds)} numbers for {count} image(s); give one for each, or one for all")
    return seeds


def _size(image: Tensor) -> str:
    return " x ".join(map(str, image.shape[-2:]))


def _build(opt: dict[str, Any], device: torch.device) -> Any:
    """Build the model; random streams, BasicSR's log and the options stay as they are."""
    cls = single_image_model(opt)
    if cls.__module__.startswith("basicsr."):
        # The class that does the restoring: what some add for training needs a GPU to be built
        cls = next(base for base in cls.__mro__ if "test" in vars(base))
    here = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
    devices = [device.index or 0] if device.type == "cuda" else []
    with _silent_toolkit(), torch.random.fork_rng(devices=devices), here:
        try:
            model = cls(copy.deepcopy(opt))
        except (TypeError, KeyError, AssertionError) as error:
            raise InputError(f"network_g: {opt['network_g']['type']} cannot be built: {error}") from error
    if device.type not in ("cpu", "cuda") or device.index is not None:
        model.device = device
        model.net_g = model.net_g.to(device)
    model.net_g.requires_grad_(False)
    return model


@contextlib.contextmanager
def _silent_toolkit() -> Iterator[None]:
    """Leave BasicSR's logger without handlers or levels that it gives itself on its first use."""
    from basicsr.utils import logger as home

    logger = logging.getLogger("basicsr")
    before = list(logger.handlers), logger.level, logger.propagate, logger.disabled, dict(home.initialized_logger)
    logger.disabled = True
    try:
        yield
    finally:
        logger.handlers[:], level, logger.propagate, logger.disabled, home.initialized_logger = before
        logger.setLevel(level)


def _load(net: torch.nn.Module, checkpoint: AnyPath) -> None:
    """Load the averaged weights, or the only ones."""
    path = Path(checkpoint).expanduser()
    weights = load_weights(path, "params_ema", "--checkpoint")
    lead = f"--checkpoint {path} is of another architecture than network_g, which is {type(net).__name__}"
    net.load_state_dict(check_fit(weights, net, lead, "give its own option file with -opt"))
