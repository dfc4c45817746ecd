"""Short runs of the command for the tests."""

import os
import socket
import subprocess
import sys
from pathlib import Path

OPTIONS = Path(__file__).parents[2] / "options"

# Overrides that make the network of an option file small enough for a test.
NETWORKS = {
    "i2sb_sr4x": ["network_g:channel_mult=[1]", "network_g:attention_ds=[]"],
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


def command(*arguments: str, processes: int = 1) -> subprocess.CompletedProcess:
    """Run ``basicsr`` with ``arguments`` in processes of their own, by torchrun where there are several."""
    start = [sys.executable, "-m", "basicsr_ext"]
    if processes > 1:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        start = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            f"--nproc-per-node={processes}",
            f"--master-port={port}",
        ]
        start += ["-m", "basicsr_ext"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([*start, *arguments], capture_output=True, text=True, env=environment, timeout=300)
