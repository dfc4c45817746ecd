"""``basicsr doctor``: what is installed, what was repaired, what is wrong, and the cure."""

import argparse
import importlib.util
import os
import platform

from basicsr_ext import repairs
from basicsr_ext.common import plugins
from basicsr_ext.common.contracts import NetworkContract
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.versions import PACKAGES, version_of

_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "SLURM_PROCID", "CUDA_VISIBLE_DEVICES")


def run(argv: list[str]) -> int:
    """Print the report; returns 1 if something is wrong, else 0."""
    argparse.ArgumentParser(prog="basicsr doctor", description=__doc__).parse_args(argv)
    wrong: list[str] = []
    print(f"python {platform.python_version()} on {platform.platform()}")
    for name in (*PACKAGES, "lmdb", "tensorboard"):
        print(f"  {name:<14} {_version(name, wrong)}")
    print(f"device\n  {_device(wrong)}")
    variables = [f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ]
    print(f"launcher\n  {' '.join(variables) or 'none: one process'}")
    _repairs(wrong)
    _plugins(wrong)
    _speed()
    print("wrong" if wrong else "nothing is wrong", *wrong, sep="\n  - ")
    return 1 if wrong else 0


def _version(name: str, wrong: list[str]) -> str:
    found = version_of(name)
    if found is None and importlib.util.find_spec({"opencv-python": "cv2"}.get(name, name)) is None:
        cure = "python -m basicsr_ext.install" if name == "basicsr" else f"pip install {name}"
        wrong.append(f"{name} is not installed; run: {cure}")
        return "missing"
    return found or "present, version unknown"


def _device(wrong: list[str]) -> str:
    try:
        import torch
    except ImportError as error:
        wrong.append(f"torch cannot be imported ({error}); reinstall it: pip install --force-reinstall torch")
        return "unknown"
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        return f"CPU, {torch.get_num_threads()} threads (torch {built}; no usable GPU)"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"CUDA {torch.version.cuda}: {', '.join(names)} ({'' if torch.cuda.is_bf16_supported() else 'no '}bf16)"


def _speed() -> None:
    """What is chosen by device, of the toolkit and of each network that says so in ``speed_lines(device)``."""
    try:
        import torch
        from basicsr.utils.registry import ARCH_REGISTRY

        from basicsr_ext.models import acceleration
    except ImportError:
        return  # already said
    device = "cuda" if torch.cuda.is_available() else "cpu"
    locked = "page-locked" if device == "cuda" else "not page-locked, as for a GPU"
    lines = [
        *acceleration.choose(device).lines(),
        "loading        workers are kept from epoch to epoch (datasets.train.persistent_workers)",
        f"               batches are {locked} (datasets.train.pin_memory)",
        "               the next batch is not fetched ahead (datasets.train.prefetch_mode: cpu, cuda)",
        "               workers degrade (datasets.train.degrade_on: device)",
    ]
    for name, network in ARCH_REGISTRY:
        if isinstance(network, type) and issubclass(network, NetworkContract):
            lines += [f"{name:<14} {line}" for line in network.speed_lines(device)]
    print("chosen for speed (and the option that forces it)", *lines, sep="\n  ")


def _repairs(wrong: list[str]) -> None:
    print("repairs to BasicSR, made in memory")
    try:
        found = repairs.apply()
    except (InputError, ImportError) as error:
        wrong.append(f"BasicSR cannot be used: {error}")
        print("  none: BasicSR cannot be imported")
        return
    for repair in found:
        print(f"  {'applied' if repair.applied else 'not needed':<10} {repair.name}: {repair.fault}")


def _plugins(wrong: list[str]) -> None:
    print(f"plugins (entry points of the group {plugins.GROUP})")
    found = plugins.load_entry_points()
    for plugin in found:
        print(f"  {'loaded' if plugin.ok else 'FAILED':<10} {plugin.name} ({plugin.source})")
        if not plugin.ok:
            cure = "update or uninstall the package that brings it"
            wrong.append(f"plugin {plugin.name} failed to load: {plugin.error}; {cure}")
    if not found:
        print("  none found")
