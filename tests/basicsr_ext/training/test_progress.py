"""The console's line of a training run, and what stays in the log file."""

import io
import logging
import re
import time

import pytest

from basicsr_ext import repairs
from tests.support.basicsr_runs import options, train, train_here

repairs.apply()

from basicsr.utils import MessageLogger  # noqa: E402

from basicsr_ext.training.progress import Progress, describe  # noqa: E402

OPT = {
    "name": "x",
    "logger": {"print_freq": 1, "use_tb_logger": True},
    "train": {"total_iter": 200},
    "datasets": {"train": {"batch_size_per_gpu": 8}},
    "world_size": 2,
}
LINE = re.compile(
    r"^ *(\d+)/6 +\d+% \| l_pix [\d.e-]+ \| [\d.e+]+ images/s \| data \d+% \|( [\d.]+ GiB \|)? 0:00:0\d left$"
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def console():
    """A console handler like BasicSR's, and what it writes."""
    logger = logging.getLogger("basicsr")
    stream = io.StringIO()
    logger.addHandler(logging.StreamHandler(stream))
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger, stream


class Board(dict):
    def add_scalar(self, name, value, iteration):
        self[name] = value, iteration


def test_the_speed_is_that_of_all_processes():
    found = Progress(OPT, 0, io.StringIO()).figures(100, seconds=0.5, data_seconds=0.05)
    assert found["speed/images_per_second"] == pytest.approx(16 / 0.5)
    assert found["speed/data_share"] == pytest.approx(0.1)


def test_the_memory_is_that_of_the_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda: 3 * 2**30)
    assert Progress(OPT, 0, io.StringIO()).figures(1, 0.5, 0.05)["speed/memory_gib"] == 3


def test_the_time_left_counts_from_where_the_run_began(monkeypatch):
    progress = Progress(OPT, 100, io.StringIO())
    assert progress.figures(102, seconds=2.0, data_seconds=0.0)["seconds_left"] == pytest.approx(98 * 2.0)
    later = time.perf_counter() + 40  # seconds, of ten iterations
    monkeypatch.setattr(time, "perf_counter", lambda: later)
    assert progress.figures(110, 2.0, 0.0)["seconds_left"] == pytest.approx(90 * 4.0, rel=0.01)
    assert progress.figures(200, 2.0, 0.0)["seconds_left"] == 0


def test_the_line_reads_well():
    figures = {
        "speed/data_share": 0.034,
        "speed/images_per_second": 41.23,
        "speed/memory_gib": 2.06,
        "seconds_left": 3725,
    }
    assert (
        describe({"l_bridge": 0.01234}, figures) == "l_bridge 0.0123 | 41.2 images/s | data 3% | 2.1 GiB | 1:02:05 left"
    )


def test_a_terminal_shows_one_bar_and_messages_above_it():
    logger, _ = console()
    stream = Terminal()
    progress = Progress(OPT, 0, stream)
    for k in (50, 100):
        progress.show(k, {"l_pix": 0.1 / k}, progress.figures(k, 0.1, 0.01))
    logger.info("a message")
    progress.show(200, {"l_pix": 0.0005}, progress.figures(200, 0.1, 0.01))
    shown = stream.getvalue()
    assert shown.count("a message\n") == 1
    assert shown.count("\n") == 2, "after the message, and after the last iteration"
    assert re.search(r"\r200/200 100%\|#+\| l_pix 0.0005 \| \d+ images/s \| data 10% \| ", shown)


def test_figures_with_a_slash_go_to_tensorboard_alone():
    _, stream = console()
    board = Board()
    messages = MessageLogger(OPT, 0, board)
    said = []
    messages.logger = type("Log", (), {"info": staticmethod(said.append)})
    part = {"time": 0.5, "data_time": 0.1, "l_pix": 0.25, "lr": 1e-3, "grad_norm": 3.0, "loss_by_time/0.0-0.1": 0.7}
    messages({"epoch": 0, "iter": 7, "lrs": [1e-3], **part})
    assert "l_pix: 2.5000e-01 lr: 1.0000e-03 grad_norm: 3.0000e+00" in said[0] and "loss_by_time" not in said[0]
    assert board["losses/l_pix"] == (0.25, 7) and board["loss_by_time/0.0-0.1"] == (0.7, 7)
    assert board["speed/images_per_second"] == (pytest.approx(32), 7)
    assert {"lr", "grad_norm", "speed/data_share"} <= set(board) and "seconds_left" not in board
    assert stream.getvalue().startswith("  7/200   4% | l_pix 0.25 | 32 images/s | data 20% | ")


def test_without_a_terminal_a_run_says_plain_lines_and_logs_basicsr_s(tmp_path):
    opt = options(tmp_path)
    opt["logger"]["print_freq"] = 2
    done = train(opt, tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.partition("INFO: ")[2] for line in done.stderr.splitlines()]
    found = [LINE.fullmatch(line) for line in lines if "images/s" in line]
    assert all(found) and [match[1] for match in found] == ["2", "4", "6"]
    assert "[epoch:" not in done.stderr and "\r" not in done.stderr.split("Start training")[1].split("End of")[0]
    assert "Saving models and training states." in done.stderr, "other messages are said"
    log = next((tmp_path / "experiments" / "run").glob("*.log")).read_text()
    assert re.findall(r"\[epoch: +\d, iter: +(\d), lr:\(", log) == ["2", "4", "6"] and "images/s" not in log


def test_the_log_of_a_run_in_this_process_is_basicsr_s(tmp_path, monkeypatch):
    log = train_here(options(tmp_path), tmp_path, monkeypatch)
    assert log.count("[eta: ") == 6 and "GiB" not in log
