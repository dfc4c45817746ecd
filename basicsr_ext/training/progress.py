"""What the console shows of a training run: one bar that is kept up to date, or plain lines where it is no terminal.

The log file keeps BasicSR's own lines.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TextIO

import torch
from tqdm import tqdm
from tqdm.contrib import DummyTqdmFile

from basicsr_ext.training.sample_order import global_batch_size


class Progress:
    """One line about the training run: losses, speed, the share of waiting for data, memory, time left.

    ``opt`` holds its resolved options; ``start_iter`` iterations were done before; ``stream`` is stderr by default.
    """

    def __init__(self, opt: Mapping[str, Any], start_iter: int, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._start_iter, self._start_time = start_iter, time.perf_counter()
        self._total = int(opt["train"]["total_iter"])
        self._batch = global_batch_size(opt)
        self._hushed = False
        self._bar: tqdm | None = None
        self._consoles = [h for h in logging.getLogger("basicsr").handlers if type(h) is logging.StreamHandler]
        for handler in self._consoles:
            handler.addFilter(lambda _: not self._hushed)
        if self._stream.isatty() and _width(self._stream) > 0:
            for handler in self._consoles:
                handler.setStream(DummyTqdmFile(self._stream))  # writes above the bar
            form = "{n_fmt}/{total_fmt} {percentage:3.0f}%|{bar:18}| {desc}"
            self._bar = tqdm(
                total=self._total, initial=start_iter, file=self._stream, bar_format=form, dynamic_ncols=True
            )

    @contextmanager
    def file_alone(self) -> Iterator[None]:
        """What is logged meanwhile goes to the log file, not to the console."""
        self._hushed = True
        try:
            yield
        finally:
            self._hushed = False

    def figures(self, iteration: int, seconds: float, data_seconds: float) -> dict[str, float]:
        """What TensorBoard shows of the speed: images per second, share of waiting for data, most GiB of a GPU."""
        found = {"speed/data_share": data_seconds / seconds if seconds > 0 else 0.0}
        if self._batch and seconds > 0:
            found["speed/images_per_second"] = self._batch / seconds
        if torch.cuda.is_available():
            found["speed/memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        done = iteration - self._start_iter
        each = (time.perf_counter() - self._start_time) / done if done >= 5 else seconds
        return found | {"seconds_left": each * max(self._total - iteration, 0)}

    def show(self, iteration: int, losses: Mapping[str, float], figures: Mapping[str, float]) -> None:
        """Write or renew the line."""
        text = describe(losses, figures)
        if self._bar is None:
            width = len(str(self._total))
            said = f"{iteration:{width}d}/{self._total} {100 * iteration / self._total:3.0f}% | {text}"
            record = logging.LogRecord("basicsr", logging.INFO, __file__, 0, said, None, None)
            for handler in self._consoles:
                handler.handle(record)
            return
        self._bar.n = iteration
        self._bar.set_description_str(text)
        if iteration >= self._total:
            self._bar.close()


def describe(losses: Mapping[str, float], figures: Mapping[str, float]) -> str:
    """The line without the count of iterations."""
    parts = [f"{name} {value:.3g}" for name, value in losses.items()]
    if "speed/images_per_second" in figures:
        parts.append(f"{figures['speed/images_per_second']:.3g} images/s")
    parts.append(f"data {100 * figures['speed/data_share']:.0f}%")
    if "speed/memory_gib" in figures:
        parts.append(f"{figures['speed/memory_gib']:.1f} GiB")
    return " | ".join([*parts, f"{timedelta(seconds=round(figures['seconds_left']))} left"])


def _width(stream: TextIO) -> int:
    """Columns of a terminal; 0 where it does not tell, in which tqdm shows nothing."""
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except OSError:
        return 80
