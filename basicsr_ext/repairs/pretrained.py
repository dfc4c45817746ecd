"""Repair to the networks that load a file themselves: what it holds can not run."""

from __future__ import annotations

import importlib
import types
from typing import Any

import torch

from basicsr_ext.checkpoints.storage import load_checkpoint
from basicsr_ext.repairs.repair import Repair

__all__ = ["REPAIRS"]

# load_path, spynet_path and dict_path of networks, and the files of VGG and Inception
_LOADERS = ("spynet_arch", "basicvsr_arch", "dfdnet_arch", "tof_arch", "vgg_arch", "inception")


class _SafeTorch(types.ModuleType):
    """``torch``, except that ``load`` takes tensors and plain containers only, onto the CPU, and names the file."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def load(f: str, *_: Any, **__: Any) -> Any:
        """Stand in for ``torch.load``; raises InputError as :func:`basicsr_ext.checkpoints.storage.load_checkpoint` does."""
        return load_checkpoint(f)


def _modules() -> list[types.ModuleType]:
    return [importlib.import_module(f"basicsr.archs.{name}") for name in _LOADERS]


def _load_anything() -> bool:
    return any(module.torch is torch for module in _modules())


def _apply() -> None:
    for module in _modules():
        module.torch = _SafeTorch("torch")


REPAIRS = [
    Repair(
        "pretrained-files",
        "SpyNet, BasicVSR, DFDNet, TOFlow, VGG and Inception unpickle any file that an option names, code included "
        "where torch is older than 2.6.",
        _load_anything,
        _apply,
    )
]
