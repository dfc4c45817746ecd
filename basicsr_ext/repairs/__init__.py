"""Repairs made after ``import basicsr``, grouped by the part of BasicSR that they touch."""

from __future__ import annotations

import importlib

from basicsr_ext.repairs.imports import Repair

__all__ = ["all_repairs"]

_MODULES = (
    "house",
    "process_group",
    "models",
    "gpu_only",
    "checkpoints",
    "resume",
    "progress",
    "training_loop",
    "images",
    "pretrained",
)


def all_repairs() -> list[Repair]:
    """Every post-import repair, in the order in which they are made."""
    repairs: list[Repair] = []
    for name in _MODULES:
        repairs += importlib.import_module(f"basicsr_ext.repairs.{name}").REPAIRS
    return repairs
