"""``basicsr benchmark``: restore, measure and write the records, tables, pictures and the page."""

import argparse
import sys

from basicsr_ext import repairs
from basicsr_ext.common import folder_lock
from basicsr_ext.common.text import path_text
from basicsr_ext.processes import launch


def run(argv: list[str]) -> int:
    """Run a benchmark; returns 1 if a method failed, else 0. InputError lists every fault before anything is done."""
    description = "Compare methods on data sets by metrics. An interrupted run goes on where it stopped."
    parser = argparse.ArgumentParser(prog="basicsr benchmark", description=description)
    arguments = parser.add_argument
    arguments("-opt", type=path_text, required=True, help="option file of the benchmark (YAML)")
    arguments("--launcher", choices=["none", "pytorch", "slurm"], default="none", help="job launcher")
    arguments("--local_rank", "--local-rank", type=int, default=0, help="accepted; the environment decides")
    arguments("--force_yml", nargs="+", action="extend", metavar="a:b=v", help="set options, as manual_seed=1")
    args = parser.parse_args(argv)
    repairs.apply()
    from basicsr.utils.dist_util import init_dist

    from basicsr_ext.benchmark.report import publish, records
    from basicsr_ext.benchmark.run import measure, settings

    here = launch.find_launch(args.launcher)
    bench = settings.read(args.opt, here, args.force_yml)
    try:
        if here.is_main:
            folder_lock.hold(bench.store.root)
            for note in filter(None, [here.note, *bench.notes]):
                print(f"note: {note}", file=sys.stderr, flush=True)
        if here.launcher != "none":
            init_dist(here.launcher, **({"backend": "gloo"} if bench.options.num_gpu == 0 else {}))
        found = records.compose(bench, measure.restore_and_measure(bench))
        if not here.is_main:
            return 0
        print(*publish.publish(found, bench.store.root), sep="\n", file=sys.stderr, flush=True)
        return int(any(method["status"] == "failed" for method in found["methods"]))
    finally:
        folder_lock.release_all()
