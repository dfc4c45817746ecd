"""What a model, a data set and a network may offer besides what BasicSR asks of them: said once, with defaults.

Ask by type: ``isinstance(model, RestorerContract)``. What BasicSR's own classes lack has the default that stands here;
:func:`restorer_of`, :func:`restorer_class_of` and their like give an object with defaults for those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

# Flags of `basicsr restore` that a model brings: name -> (type, dotted option that it sets, help).
Flags = Mapping[str, tuple[type, str, str]]


class RestorerContract:
    """A model that restores single images; ``RestorationModel`` is the one to inherit from."""

    # Dotted section -> frozen dataclass of its options, such as {"bridge": BridgeOptions}
    option_blocks: ClassVar[dict[str, type]] = {}
    restore_flags: ClassVar[dict[str, tuple[type, str, str]]] = {}  # they lead to options that `take_options` reads
    takes_mask: ClassVar[bool] = False  # whether `restore` looks at batch["mask"]: B,1,H,W, 1 in the hole
    takes_cond: bool = False  # whether the network needs condition images beside the one to restore
    cond_channels: int | None = None  # of all condition images together; None where the network does not tell
    lq_channels: int | None = None  # channels of the images that it takes; None for those of the network
    val_limit: int | None = None  # images of a validation batch that memory was found to hold; None for all
    # What `network_g` is called with, by position, such as ("x", "time", "cond"); () for anything
    network_takes: ClassVar[tuple[str, ...]] = ()
    extras: Mapping[str, Tensor] = {}  # by name, B,C,H,W in [0, 1]: what the last `restore` left beside its result
    accumulate: int | None = None  # parts that `train.accumulate` cuts a batch into; None where it is not read
    precision: str | None = None  # fp32, bf16 or fp16, of the forward pass; None where `train.precision` is not read
    skips_bad_steps: ClassVar[bool] = False  # whether `train.nonfinite` is read
    takes_data: ClassVar[bool] = False  # whether images may be data that are no pictures (the block `data`)
    # how to restore with one draw of noise or none, as a graph of ONNX needs it; "" where any way does
    one_draw: ClassVar[str] = ""

    @classmethod
    def option_faults(cls, opt: Mapping[str, Any]) -> list[str]:
        """Faults of the options that no single block can tell, found before anything is built."""
        return []

    @classmethod
    def data_faults(cls, opt: Mapping[str, Any], item: Mapping[str, Any]) -> list[str] | None:
        """Faults of the channels and sizes of one item of the data; None to have them checked as a plain network's."""
        return None

    @property
    def network_calls(self) -> int:
        """How often one restoration calls the network."""
        return 1

    def flag_values(self) -> dict[str, Any]:
        """The values of ``restore_flags`` that the next restoration has, by name; None for what nobody set."""
        return {name: _found(self.opt, dotted.split(".")) for name, (_, dotted, _) in self.restore_flags.items()}

    def take_options(self, opt: dict[str, Any]) -> None:
        """Take the options that may change from one restoration to the next, those that ``restore_flags`` lead to."""
        self.opt = opt

    def take_configuration(self, configuration: Mapping[str, Any]) -> None:
        """Take what training measured from the options that a checkpoint holds, empty if none; after its weights."""

    def begin_training(self, batches: Iterable[dict[str, Any]]) -> None:
        """Look at some batches of the training set before the first iteration; on every process, at the same ones."""

    def training_state_extras(self) -> dict[str, Any]:
        """What a save holds besides networks, optimisers and schedules."""
        return {}

    def load_training_state_extras(self, extras: dict[str, Any]) -> None:
        """Take up :meth:`training_state_extras` of a save."""


def _found(block: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        block = block.get(key) if isinstance(block, Mapping) else None
    return block


class DatasetContract:
    """A data set of ours: BasicSR's ``__len__`` and ``__getitem__``, and what lets its images be checked without it."""

    Options: ClassVar[type | None] = None  # frozen dataclass of its options; None where the signature says them
    paths: Sequence[Mapping[str, str]] = ()  # for each index the files by role, {"lq_path": ..., "gt_path": ...}
    degradation: Any = None  # what makes `lq` from `gt`, if anything

    def read(self, index: int) -> Any:
        """Decode the images of an index, without cropping or degrading; InputError if one cannot be used."""
        raise NotImplementedError

    def clean(self, index: int) -> np.ndarray:
        """Decode the clean image of an index, H,W,C as it is stored; InputError if it cannot be used."""
        raise NotImplementedError

    def header_faults(self, index: int) -> list[str]:
        """Why the images of an index would be refused, as far as the headers of their files tell."""
        return []

    @property
    def left_out(self) -> list[str]:
        """What the folders hold that is not read, and why: a line for each folder."""
        return []

    def defer(self, device: torch.device) -> Callable[[dict[str, Any]], dict[str, Any]] | None:
        """Leave the degradation to the training loop, which calls what is returned on each batch; None to keep it."""
        return None


@runtime_checkable
class KnownOperator(Protocol):
    """A ``degradation`` whose operator A, of ``lq = A(gt)``, can be applied."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """A of x, B,C,H,W in [0, 1], without its noise; ``mask`` is B,1,H,W, 1 in the hole of an inpainting."""
        ...


@runtime_checkable
class DrawsOptions(Protocol):
    """A ``degradation`` that may draw some of its options anew for every image."""

    @property
    def drawn_options(self) -> Sequence[str]:
        """Their names; none where it is the same for every image."""
        ...


@runtime_checkable
class ListsPaths(Protocol):
    """A data set that tells the file of each image, as most of BasicSR's do: by role, or the one file there is."""

    paths: Sequence[Mapping[str, str] | str]


class NetworkContract:
    """A network: ``forward(x, *rest)`` of B,C,H,W, and what those who call it want to know."""

    multiple: int = 1  # what the sides of its input must be multiples of
    takes_any_size: ClassVar[bool] = False  # whether it pads an image to them by itself

    def compiled_parts(self) -> Iterable[nn.Module]:
        """The parts that are worth compiling one by one; none to have the blocks found that come again."""
        return ()

    def training_faults(self, images: int) -> list[str]:
        """Why it cannot be trained on so many images at a time; none if it can."""
        return []

    @classmethod
    def speed_lines(cls, device: str) -> list[str]:
        """Lines of ``basicsr doctor`` on what is fast with this network on ``device``."""
        return []


def restorer_of(model: object) -> RestorerContract:
    """The model itself where it fulfils the contract, else the defaults."""
    return model if isinstance(model, RestorerContract) else RestorerContract()


def restorer_class_of(model: type | None) -> type[RestorerContract]:
    """The class itself where it fulfils the contract, else the one with the defaults."""
    return model if isinstance(model, type) and issubclass(model, RestorerContract) else RestorerContract
