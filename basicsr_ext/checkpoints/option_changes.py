"""What differs between the options that a save was made with and those it is resumed with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from basicsr_ext.common.plain_json import finite
from basicsr_ext.common.versions import versions_of

# What may change without a change of the weights: where things lie, what is logged, how fast data come.
_HARMLESS = re.compile(
    r"name|root_path|notes|start|is_train|auto_resume|manual_seed_drawn|plugins|dist|dist_params|rank|world_size"
    r"|path|logger|val|datasets\.(?!train\b)[^.]+"
    r"|datasets\.train\.(name|phase|num_worker_per_gpu|prefetch_mode|num_prefetch_queue|pin_memory|persistent_workers"
    r"|cache)"
)
_ABSENT = "not given"


def option_text(opt: Mapping[str, Any]) -> str:
    """Resolved options as JSON, for a training state and the record of a run."""
    return json.dumps(finite(opt, as_text=True), default=str)


def _leaves(block: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if where and _HARMLESS.fullmatch(where):
        return
    if isinstance(block, Mapping) and block:
        for key, value in block.items():
            yield from _leaves(value, f"{where}.{key}" if where else str(key))
    elif where:
        yield where, block


def changed_options(saved: str, opt: Mapping[str, Any]) -> list[str]:
    """Lines ``train.optim_g.lr: 0.001 -> 0.002`` for every option that matters to the weights and differs.

    Args:
        saved: Options of the save, as :func:`option_text` gives them.
        opt: Resolved options now.
    """
    before, now = dict(_leaves(json.loads(saved))), dict(_leaves(json.loads(option_text(opt))))
    return [
        f"{key}: {before.get(key, _ABSENT)} -> {now.get(key, _ABSENT)}"
        for key in dict.fromkeys([*before, *now])
        if before.get(key, _ABSENT) != now.get(key, _ABSENT)
    ]


def changed_versions(saved: Mapping[str, str]) -> list[str]:
    """Lines ``torch: 2.4.0 -> 2.5.0`` for every package that differs."""
    now = versions_of()
    return [f"{k}: {v} -> {now.get(k, _ABSENT)}" for k, v in saved.items() if v != now.get(k)]
