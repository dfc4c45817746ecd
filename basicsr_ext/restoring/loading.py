"""Whatever restores, by its file: a checkpoint by torch, a graph of ONNX by onnxruntime."""

from pathlib import Path
from typing import Any

from basicsr_ext.checkpoints.storage import AnyPath
from basicsr_ext.common.errors import InputError
from basicsr_ext.restoring.onnx_restorer import OnnxRestorer
from basicsr_ext.restoring.restorer import Loading, Restorer

__all__ = ["is_onnx", "load_restorer"]


def is_onnx(path: AnyPath | None) -> bool:
    """Whether a file is a graph of ONNX, by its name."""
    return path is not None and Path(path).suffix.lower() == ".onnx"


def load_restorer(checkpoint: AnyPath, options: AnyPath | None = None, **how: Any) -> Restorer:
    """:meth:`Restorer.load`, or a graph of ``basicsr export``, which has its options built in (InputError)."""
    if not is_onnx(checkpoint):
        return Restorer.load(checkpoint, options, **how)
    if options is not None:
        raise InputError(f"-opt {options}: {checkpoint} has its options built in; leave -opt out")
    return OnnxRestorer(Path(checkpoint).expanduser(), Loading(**how))
