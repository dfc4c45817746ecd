"""Peak memory and time of `basicsr restore` on a large photograph, measured in a process of its own.

    python studies/speed/restore_memory.py --size 4096 --nfe 1 --preset tiny
    python studies/speed/restore_memory.py --size 4096 --nfe 1 --preset tiny --by test --tile 512

With `--by test` it is that of `basicsr test`: restored in tiles (val.tile), measured (PSNR, SSIM) and written.

Takes an ADMUNet, untrained but for a random last layer, at scale 1; Linux and macOS.
"""

import argparse
import contextlib
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


def test_options(name: str, layout: dict, nfe: int, tile: int) -> dict:
    """Options of a test of the picture ``name`` alone, with noise, restored by the network of :func:`checkpoint`."""
    folder = Path(f"{name}-pictures")
    folder.mkdir()
    Path(f"{name}.png").rename(folder / f"{name}.png")
    data = {"type": "PairedDegradationDataset", "dataroot_gt": str(folder), "degradation": {"type": "noise_gauss"}}
    metrics = {kind: {"type": f"calculate_{kind}", "crop_border": 0} for kind in ("psnr", "ssim")}
    return {
        "name": name,
        "model_type": "I2SBModel",
        "scale": 1,
        "num_gpu": 0,
        "datasets": {"test": data},
        "network_g": {"type": "ADMUNet", "preset": "tiny", "in_channels": 3, "out_channels": 3, **layout},
        "bridge": {"steps": 1000},
        "path": {"pretrain_network_g": "tiny.safetensors"},
        "val": {"save_img": True, "tile": tile, "sampler": {"nfe": nfe}, "metrics": metrics},
    }


def child(by: str, arguments: list[str]) -> None:
    """Restore small.png, then photograph.png; print seconds and peak resident memory, in MiB, of both."""
    sys.path.insert(0, str(ROOT))
    from basicsr_ext import cli

    found = {}
    for name in ("small", "photograph"):
        start = time.perf_counter()
        words = ["restore", "-i", f"{name}.png", "-o", f"{name}-restored.png", *arguments]
        if by == "test":
            Path(f"{name}.json").write_text(json.dumps(test_options(name, *map(json.loads, arguments))))
            words = ["test", "-opt", f"{name}.json"]
        with contextlib.redirect_stdout(sys.stderr):
            code = cli.main(words)
        if code:
            raise SystemExit(1)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        found |= {f"{name}_seconds": round(time.perf_counter() - start, 1), f"{name}_mib": round(peak)}
    print(json.dumps(found))


def measure(size: int, nfe: int, folder: Path, *flags: str, **layout: object) -> dict[str, float]:
    """Restore photographs of 128 x 128, then of size x size pixels, in one child process."""
    words = ["--checkpoint", "tiny.safetensors", "--device", "cpu", "--nfe", str(nfe), *flags]
    return _measured("restore", size, folder, words, layout)


def measure_test(size: int, nfe: int, tile: int, folder: Path, **layout: object) -> dict[str, float]:
    """Test with photographs of 128 x 128, then of size x size pixels, in one child process."""
    return _measured("test", size, folder, [json.dumps(layout), str(nfe), str(tile)], layout)


def _measured(by: str, size: int, folder: Path, words: list[str], layout: dict) -> dict[str, float]:
    photograph(128, folder / "small.png")
    photograph(size, folder / "photograph.png")
    checkpoint(folder / "tiny.safetensors", **layout)
    run = [sys.executable, str(Path(__file__).resolve()), "--child", by, *words]
    return json.loads(subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True, cwd=folder).stdout)


def _tile(flags: list[str]) -> int:
    own = argparse.ArgumentParser()
    own.add_argument("--tile", type=int, default=512)
    return int(own.parse_args(flags).tile)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--nfe", type=int, default=1)
    parser.add_argument("--preset", default="tiny", help="of ADMUNet")
    parser.add_argument("--by", choices=("restore", "test"), default="restore", help="the command that restores")
    args, flags = parser.parse_known_args()
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as folder:
        if args.by == "test":
            found = measure_test(args.size, args.nfe, _tile(flags), Path(folder), preset=args.preset)
        else:
            found = measure(args.size, args.nfe, Path(folder), *flags, preset=args.preset)
    what = f"{args.preset}, {args.size} x {args.size} pixels, nfe {args.nfe}"
    print(f"{what}: {found['photograph_mib']} MiB at the peak", end=", ")
    print(f"{found['photograph_seconds']} s; {found['small_mib']} MiB with 128 x 128 pixels")


if __name__ == "__main__":
    main()
