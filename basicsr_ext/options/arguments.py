"""The flags of `basicsr train` and `basicsr test`."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser BasicSR's flags for train and test."""
    parser.add_argument("-opt", type=str, required=True, help="option file (YAML)")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm"], default="none", help="job launcher")
    parser.add_argument("--auto_resume", action="store_true", help="go on from the newest state of this run")
    parser.add_argument("--debug", action="store_true", help="name debug_*, log each iteration, validate every 8")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help="accepted; the environment decides")
    parser.add_argument(
        "--force_yml",
        nargs="+",
        action="extend",
        default=None,
        metavar="a:b=v",
        help="set options, as train:ema_decay=0.999 (+a:b=v for a new one)",
    )
