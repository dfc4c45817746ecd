"""Peak memory and time of `basicsr restore` on a large photograph, measured in a process of its own.

    python studies/speed/restore_memory.py --size 4096 --nfe 1 --preset tiny

Takes an ADMUNet, untrained but for a random last layer, at scale 1; Linux and macOS.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def photograph(size: int, path: Path) -> None:
    """Repeat a photograph to size x size pixels."""
    import numpy as np
    from PIL import Image
    from skimage import data

    small = data.astronaut()
    times = -(-size // small.shape[0])
    tiles = [np.concatenate([small, small[:, ::-1]][k % 2 : k % 2 + 1] * times, axis=1) for k in range(times)]
    Image.fromarray(np.concatenate(tiles)[:size, :size]).save(path, compress_level=1)


def checkpoint(path: Path, **layout: object) -> None:
    """Write a safetensors file with its configuration; ``layout`` changes options of the network."""
    import torch
    from safetensors.torch import save_file

    from i2sb_plugin.archs.adm_unet_arch import ADMUNet

    torch.manual_seed(0)
    network = {"preset": "tiny", "in_channels": 3, "out_channels": 3, **layout}
    net = ADMUNet(**network)
    torch.nn.init.normal_(net.out[2].weight, std=0.01)
    network["type"] = "ADMUNet"
    config = {"model_type": "I2SBModel", "scale": 1, "network_g": network, "bridge": {"steps": 1000}}
    save_file(net.state_dict(), path, {"config": json.dumps(config)})


def child(arguments: list[str]) -> None:
    """Restore small.png, then photograph.png; print seconds and peak resident memory, in MiB, of both."""
    sys.path.insert(0, str(ROOT))
    from basicsr_ext import cli

    found = {}
    for name in ("small", "photograph"):
        start = time.perf_counter()
        if cli.main(["restore", "-i", f"{name}.png", "-o", f"{name}-restored.png", *arguments]):
            raise SystemExit(1)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        found |= {f"{name}_seconds": round(time.perf_counter() - start, 1), f"{name}_mib": round(peak)}
    print(json.dumps(found))


def measure(size: int, nfe: int, folder: Path, *flags: str, **layout: object) -> dict[str, float]:
    """Restore photographs of 128 x 128, then of size x size pixels, in one child process."""
    photograph(128, folder / "small.png")
    photograph(size, folder / "photograph.png")
    checkpoint(folder / "tiny.safetensors", **layout)
    words = ["--checkpoint", "tiny.safetensors", "--device", "cpu", "--nfe", str(nfe), *flags]
    run = [sys.executable, str(Path(__file__).resolve()), "--child", *words]
    return json.loads(subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True, cwd=folder).stdout)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--nfe", type=int, default=1)
    parser.add_argument("--preset", default="tiny", help="of ADMUNet")
    args, flags = parser.parse_known_args()
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args.size, args.nfe, Path(folder), *flags, preset=args.preset)
    what = f"{args.preset}, {args.size} x {args.size} pixels, nfe {args.nfe}"
    print(f"{what}: {found['photograph_mib']} MiB at the peak", end=", ")
    print(f"{found['photograph_seconds']} s; {found['small_mib']} MiB with 128 x 128 pixels")


if __name__ == "__main__":
    main()
