"""The flags of `basicsr train` and `basicsr test`."""

import argparse

from basicsr_ext.common.text import path_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser BasicSR's flags for train and test."""
    add = parser.add_argument
    add("-opt", type=path_text, required=True, help="option file (YAML)")
    add("--launcher", choices=["none", "pytorch", "slurm"], default="none", help="job launcher")
    add("--auto_resume", action="store_true", help="go on from the newest state of this run")
    add("--debug", action="store_true", help="name debug_*, log each iteration, validate every 8")
    add("--local_rank", "--local-rank", type=int, default=0, help="accepted; the environment decides")
    example = "train:ema_decay=0.999 (+a:b=v for a new one)"
    add("--force_yml", nargs="+", action="extend", metavar="a:b=v", help=f"set options, as {example}")
