"""Take the disk away under a save: full at every stage, a limit on file sizes, read-only, a folder that is gone.

    python -m studies.reliability.runs.disk_full

As root a tmpfs of 1 MiB is filled so that 0, 4, 8, ... KiB are left, up to more than a save needs; a save of iteration
4 is tried each time, with one of iteration 2 lying there. A limit on file sizes, for which none needs to be root, grows
likewise. Every failure must name the file and the cause, and leave iteration 2 and net_g_latest.pth whole.
"""

import argparse
import contextlib
import os
import re
import resource
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from basicsr_ext.checkpoints.resumable import newest_resumable
from basicsr_ext.checkpoints.storage import load_checkpoint
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.files import SaveError
from studies.reliability.runs import tiny_runs as tiny


def saved_model(root: Path):
    """A model in folders of its own, with a whole save of iteration 2."""
    from basicsr.models import build_model

    opt = tiny.options(root, "full")
    here = tiny.folders(root, opt)["path"]
    for folder in here.values():
        Path(folder).mkdir(parents=True)
    model = build_model({**opt, "dist": False, "is_train": True, "path": {**here, "strict_load_g": True}})
    model.save(0, 2)
    return model, opt


def attempt(model, root: Path) -> dict[str, str] | None:
    """Save iteration 4 counting failures anew; what was said, and file and cause in it; None if all went well."""
    del model._saves
    try:
        model.save(0, 4)
    except SaveError as error:
        named = re.search(r"cannot save (\S+?): ([^;]+);", str(error))
        return {"file": Path(named[1]).name, "cause": named[2], "said": str(error).replace(str(root), "...")}
    return None


def latest_is_whole(root: Path) -> bool:
    try:
        load_checkpoint(root / "experiments/full/models/net_g_latest.pth")
    except InputError:
        return False
    return True


@contextlib.contextmanager
def small_disk(size: int = 1 << 20) -> Iterator[Path]:
    """A tmpfs of its own."""
    with tempfile.TemporaryDirectory(prefix="disk-full-") as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True, capture_output=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


@contextlib.contextmanager
def left_free(root: Path, size: int) -> Iterator[None]:
    """Fill the disk but for ``size`` bytes."""
    free = os.statvfs(root).f_bavail * os.statvfs(root).f_bsize
    filler = root / "filler"
    filler.write_bytes(b"x" * (free - size))
    try:
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def file_limit(_: Path, size: int) -> Iterator[None]:
    """Let no file grow over ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def read_only(root: Path, _: int) -> Iterator[None]:
    """Remount the disk for reading only."""
    subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(root)], check=True)


@contextlib.contextmanager
def gone(root: Path, _: int) -> Iterator[None]:
    """Take the folder of the networks away for a while."""
    models, aside = root / "experiments/full/models", root / "aside"
    models.rename(aside)
    try:
        yield
    finally:
        shutil.rmtree(models, ignore_errors=True)
        aside.rename(models)


Obstacle = Callable[[Path, int], contextlib.AbstractContextManager]


def try_sizes(root: Path, obstacle: Obstacle, sizes: range | list[int]) -> dict:
    """Meet an obstacle at several sizes; where saves stopped, why, and what was lost."""
    model, opt = saved_model(root)
    files, causes, count, example = Counter(), Counter(), Counter(), None
    for size in sizes:
        with obstacle(root, size):
            found = attempt(model, root)
        newest = newest_resumable(tiny.folders(root, opt))[0]
        count["saves tried"] += 1
        count["saves that failed, with file and cause"] += found is not None
        count["saves that went well"] += found is None and newest is not None and newest.name == "4.state"
        count["earlier saves lost"] += newest is None or (found is not None and newest.name != "2.state")
        count["latest lost"] += not latest_is_whole(root)
        if found is not None:
            files[found["file"]] += 1
            causes[found["cause"]] += 1
            example = example or found["said"]
        for left in (root / "experiments/full").glob("*/*4*"):
            left.unlink()
    return {**count, "failed at": dict(files), "causes": dict(causes), "said": example}


def campaign(step: int) -> dict:
    """All obstacles; those that need a disk of one's own only as root."""
    tiny.warm_up()
    record = {}
    with tempfile.TemporaryDirectory(prefix="limit-") as folder:
        record["limit on file sizes"] = try_sizes(Path(folder), file_limit, range(0, 48 << 10, step))
    with tempfile.TemporaryDirectory(prefix="gone-") as folder:
        record["folder removed"] = try_sizes(Path(folder), gone, [0])
    if os.geteuid() == 0:
        with small_disk() as root:
            record["disk full"] = try_sizes(root, left_free, range(0, 80 << 10, max(step, 4096)))
        with small_disk() as root:
            record["read-only"] = try_sizes(root, read_only, [0])
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", type=int, default=1024, help="bytes between two limits (disk: whole pages)")
    parser.add_argument("--out", type=Path, default=tiny.RESULTS / "disk_full.json")
    args = parser.parse_args()
    tiny.store(args.out, campaign(args.step))


if __name__ == "__main__":
    main()
