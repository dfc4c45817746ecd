"""Short runs of the command for the tests."""

import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from basicsr_ext import cli

ROOT = Path(__file__).parents[2]
OPTIONS = ROOT / "options"

# Overrides that make the network of an option file small enough for a test.
NETWORKS = {
    "i2sb_sr4x": ["network_g:channel_mult=[1]", "network_g:attention_ds=[]"],
    "i2sb_sr4x_plain": ["network_g:channel_mult=[1]", "network_g:attention_ds=[]"],
    "network": ["network_g:channel_mult=[1]", "network_g:attention_ds=[]"],
    "i2sb_paired": ["network_g:channel_mult=[1, 1]", "network_g:attention_ds=[]"],
    "i2sb_sr4x_own_data": ["network_g:channel_mult=[1, 1]", "network_g:attention_ds=[]"],
    "swinir_light_sr4x": ["network_g:depths=[2]", "network_g:num_heads=[2]", "network_g:embed_dim=12"],
    "msrresnet_sr4x": ["network_g:num_feat=8", "network_g:num_block=1"],
    "rrdbnet_sr4x": ["network_g:num_feat=8", "network_g:num_block=1", "network_g:num_grow_ch=4"],
}


def small(name: str, steps: int | None = None, every: int | None = None) -> list[str]:
    """Overrides for ``--force_yml``: a small network and, with ``steps``, a training run of that many iterations."""
    overrides = list(NETWORKS[name])
    if steps is None:
        return overrides
    overrides += [
        f"train:total_iter={steps}",
        "train:warmup_iter=-1",
        "datasets:train:gt_size=32",
        "datasets:train:batch_size_per_gpu=2",
        "+datasets:train:dataset_enlarge_ratio=100",
        "datasets:train:num_worker_per_gpu=0",
        f"val:val_freq={every}",
        f"logger:save_checkpoint_freq={every}",
        f"logger:print_freq={every}",
    ]
    if name.startswith("i2sb"):
        overrides += [f"train:scheduler:periods=[{steps}]"]
    if name == "i2sb_sr4x_own_data":
        overrides += ["datasets:train:persistent_workers=false"]
    return overrides


# ---- processes of their own


def environment(**more: str) -> dict[str, str]:
    """This process's environment for another one, which finds the packages from any folder."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | more


def python(*words: object, processes: int = 1, **settings: Any) -> subprocess.CompletedProcess:
    """Run a module or script from a fresh interpreter, by torchrun where there are several processes.

    Each process imports torch, which takes seconds: :func:`apart` does without.
    """
    command = [*torchrun(processes), *map(str, words)] if processes > 1 else [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300, **settings)


def torchrun(processes: int) -> list[str]:
    """The beginning of a command that starts so many processes."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]


def command(*words: object, processes: int = 1) -> subprocess.CompletedProcess:
    """Run ``basicsr`` in processes of their own, which are the ranks of a group where there are several."""
    return apart(cli.main, [str(word) for word in words], processes=processes)


def apart(
    act: Callable[..., int | None], *arguments: object, processes: int = 1, folder: Path | None = None
) -> subprocess.CompletedProcess:
    """Call a function of a module in processes of their own, in a folder or where this one is.

    They are forked from a process that has imported everything, so a start is quick. Where there are several they find
    each other as ranks of a group, as under torchrun, but nothing ends the others if one fails.

    Returns:
        The exit code, of several processes the first that is not 0, and what all of them said.

    """
    start = context()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    sizes = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    with tempfile.TemporaryDirectory() as said_in:
        outputs = [Path(said_in) / name for name in ("stdout", "stderr")]
        children = []
        for rank in range(processes):
            places = {"RANK": str(rank), "LOCAL_RANK": str(rank), **sizes, **meeting} if processes > 1 else {}
            settings = (str(folder or os.getcwd()), environment(**places), [str(path) for path in outputs])
            children.append(start.Process(target=_be_apart, args=(settings, act, arguments)))
            children[-1].start()
        for child in children:
            child.join(300)
            child.kill()
            child.join()
        codes = [child.exitcode for child in children]
        said = [path.read_text() if path.exists() else "" for path in outputs]
    return subprocess.CompletedProcess(list(arguments), next((code for code in codes if code), 0), *said)


def context() -> Any:
    """What starts processes that share nothing with this one, forked from one that has imported everything."""
    if os.name != "posix":
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["tests.support.imported"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)  # the server looks there for what it is to import
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
    return found


def _be_apart(settings: tuple[str, dict[str, str], list[str]], act: Callable, arguments: tuple) -> None:
    folder, variables, outputs = settings
    for number, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    code = 1
    try:
        code = act(*arguments) or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
