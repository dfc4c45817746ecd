"""Bridges for programs that load their networks by spandrel.

One call makes them known::

from i2sb_plugin import spandrel_support
spandrel_support.install()
model = spandrel.ModelLoader().load_from_file("sr4x.safetensors")  # a file of `basicsr export`
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from basicsr_ext.checkpoints.networks import check_fit
from basicsr_ext.checkpoints.storage import read_configuration
from basicsr_ext.common.errors import InputError
from basicsr_ext.models import register
from basicsr_ext.options.check import model_class
from basicsr_ext.repairs.imports import import_repairs
from basicsr_ext.restoring.configuration import options_of
from basicsr_ext.restoring.restorer import Loading, Restorer
from i2sb_plugin import plugin

__all__ = ["CONFIGURATION", "Restoration", "install"]

CONFIGURATION = "basicsr_ext.configuration"  # key of the options among the tensors of a state dict


class Restoration(nn.Module):
    """A trained network with its walk: from images, N,C,h,w in [0, 1], to restored ones, N,C,H,W in [0, 1].

    Noise, where a walk draws some, is that of seed 0 for every image.
    """

    def __init__(self, restorer: Restorer) -> None:
        super().__init__()
        self.network = restorer.network
        self._restorer = restorer

    def take(self, **flags: Any) -> None:
        """Take flags of ``basicsr restore``, such as ``dial`` and ``nfe``; InputError for what is not allowed."""
        self._restorer.take(**flags)

    def forward(self, image: Tensor) -> Tensor:
        """Restore images of any height and width."""
        generators = [torch.Generator().manual_seed(0) for _ in image]
        return self._restorer.pass_through(image, None, None, generators)


def install(*, ignore_duplicates: bool = False) -> list[Any]:
    """Let spandrel's loaders, of this process, know the bridges of ``basicsr export`` and of training runs.

    What spandrel itself knows, such as a file of RRDBNet, is left to it.

    Args:
        ignore_duplicates: do nothing where it was called before, instead of raising.

    Returns:
        the ``ArchSupport`` that was added to ``spandrel.MAIN_REGISTRY``, in a list; empty if it was there.

    Raises:
        InputError: spandrel is not installed.
        spandrel.DuplicateArchitectureError: it was called before.
    """
    try:
        import spandrel
    except ImportError as error:
        cure = "run: pip install 'basicsr-i2sb[foreign]'"
        raise InputError(f"the package spandrel is missing ({error}); {cure}") from error
    for repair in import_repairs():
        repair.make()
    plugin.register()
    register.register()
    known = tuple(support.architecture.id for support in spandrel.MAIN_REGISTRY)
    support = spandrel.ArchSupport.from_architecture(_architecture(spandrel), before=known)
    added = spandrel.MAIN_REGISTRY.add(support, ignore_duplicates=ignore_duplicates)
    if added:
        read = spandrel.ModelLoader.load_state_dict_from_file
        spandrel.ModelLoader.load_state_dict_from_file = _with_configuration(read)
    return added


def _with_configuration(read: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Spandrel's reader of files, which gives the options of a bridge beside its tensors."""
    from i2sb_plugin.models.i2sb_model import I2SBModel

    @functools.wraps(read)
    def load_state_dict_from_file(self: Any, path: str | os.PathLike[str]) -> dict[str, Any]:
        state = read(self, path)
        try:
            found = read_configuration(path)
            opt = options_of(found, str(path)) if found else {}
        except InputError:  # no file of ours, or one that is spandrel's to refuse
            return state
        cls = model_class(opt) if opt else None
        return {CONFIGURATION: found, **state} if cls is not None and issubclass(cls, I2SBModel) else state

    return load_state_dict_from_file


def _architecture(spandrel: Any) -> Any:
    """The entry of spandrel's registry."""

    class I2SBArch(spandrel.Architecture[Restoration]):
        """Any network of a bridge, regression or diffusion of this package."""

        def __init__(self) -> None:
            super().__init__(id="I2SB", name="I2SB", detect=lambda state: CONFIGURATION in state)

        def load(self, state_dict: dict[str, Any]) -> Any:
            weights = dict(state_dict)
            configuration = weights.pop(CONFIGURATION)
            restorer = _restorer(configuration, weights)
            model = Restoration(restorer)
            network, (inputs, outputs) = configuration["network_g"], restorer.channels
            return spandrel.ImageModelDescriptor(
                model, model.state_dict(), self, "SR" if restorer.scale > 1 else "Restoration",
                [str(network[key]) for key in ("type", "preset") if key in network],
                supports_half=False, supports_bfloat16=False, scale=restorer.scale,
                input_channels=inputs, output_channels=outputs,
            )  # fmt: skip

    return I2SBArch()


def _restorer(configuration: dict[str, Any], weights: dict[str, Any]) -> Restorer:
    """The network of a state dict; InputError if it does not fit, or needs more than an image."""
    restorer = Restorer(options_of(configuration, CONFIGURATION), None, Loading("cpu", tile=0))
    if restorer.offers.takes_cond:
        raise InputError("this network needs condition images, which an image model of spandrel has none of")
    net = restorer.network.net
    net.load_state_dict(check_fit(weights, net, CONFIGURATION, "export the file again"))
    restorer.offers.take_configuration(configuration)
    return restorer
