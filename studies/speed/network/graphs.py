r"""Graphs of ONNX against the networks that they were made from: how far they differ, and processor seconds.

Every family of networks, untrained but for the built-in one, with random weights: as `basicsr restore` runs it, and its
graph by onnxruntime on the same image, one thread each, in the order A B A B. Seconds are those of the processor, which
other work on the machine hardly disturbs. Where the package openvino is installed it runs the file too.

    OMP_NUM_THREADS=1 python -m studies.speed.network.graphs --out studies/speed/results/graphs.json
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from i2sb_plugin import Restorer, plugin
from i2sb_plugin.weights import builtin
from studies.timing import machine, write

SCALE = 4
SIZES = ((37, 53), (64, 64), (101, 30))  # height and width of the images on which the difference is taken
_BRIDGE = {"model_type": "I2SBModel", "bridge": {"cond_x1": True}, "val": {"sampler": {"type": "ot_ode", "nfe": 1}}}
_DIAL = {**_BRIDGE, "bridge": {"cond_x1": True, "dial": True}}
_REGRESSION = {"model_type": "RegressionModel", "regression": {"cond_x1": True}}
_SEES_X1 = {"in_channels": 3, "out_channels": 3, "cond_channels": 3}
_MSR = {"type": "MSRResNet", "num_feat": 32, "num_block": 4}
_RRDB = {"type": "RRDBNet", "num_feat": 32, "num_block": 2, "num_grow_ch": 16}
FAMILIES: dict[str, dict[str, Any] | None] = {
    "built-in network (ADMUNet, fast)": None,
    "ADMUNet, tiny": {**_BRIDGE, "network_g": {"type": "ADMUNet", "preset": "tiny", **_SEES_X1}},
    "ADMUNet, fast, full_size 16, dial": {
        **_DIAL, "network_g": {"type": "ADMUNet", "preset": "fast", "full_size": 16, **_SEES_X1, "cond_channels": 4},
    },
    "ConditionalNAFNet, fast": {**_BRIDGE, "network_g": {"type": "ConditionalNAFNet", "preset": "fast", **_SEES_X1}},
    "BridgeAdapter, MSRResNet": {
        **_BRIDGE, "network_g": {"type": "BridgeAdapter", "network": _MSR, "unshuffle": 4, **_SEES_X1},
    },
    "BridgeAdapter, RRDBNet": {
        **_BRIDGE, "network_g": {"type": "BridgeAdapter", "network": _RRDB, "unshuffle": 4, **_SEES_X1},
    },
    "RegressionModel, ADMUNet, fast": {**_REGRESSION, "network_g": {"type": "ADMUNet", "preset": "fast", **_SEES_X1}},
}  # fmt: skip
WALKS: dict[str, dict[str, Any]] = {
    "nfe 1": {"nfe": 1},
    "nfe 4": {"nfe": 4, "sampler": "ot_ode"},
    "nfe 1, dial 0.5": {"nfe": 1, "dial": 0.5},
}
__all__ = ["main", "measure", "table"]


def _checkpoint(opt: Mapping[str, Any] | None, folder: Path) -> Path:
    """The built-in network's file, or one with small random weights, none of them zero."""
    from safetensors.torch import save_file

    if opt is None:
        return Path(builtin.checkpoint())
    from basicsr.archs import build_network

    torch.manual_seed(0)
    net = build_network(dict(opt["network_g"]))
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Conv1d) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.02)
    path = folder / "network.safetensors"
    save_file(net.state_dict(), path, {"config": json.dumps({"scale": SCALE, **opt})})
    return path


def _walks_of(opt: Mapping[str, Any] | None) -> list[str]:
    if opt is not None and opt["model_type"] == "RegressionModel":
        return ["nfe 1"]
    return list(WALKS) if opt is None or opt["bridge"].get("dial") else ["nfe 1", "nfe 4"]


def _seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def _ratios(reference: Callable[[], object], others: Mapping[str, Callable[[], object]], pairs: int) -> dict[str, Any]:
    """Of the reference's seconds to those of each of the others, all in turn, after one run that is not measured."""
    for run in (reference, *others.values()):
        run()
    times = [(_seconds(reference), {name: _seconds(run) for name, run in others.items()}) for _ in range(pairs)]
    return {name: sorted(first / rest[name] for first, rest in times) for name in others}


def _openvino(path: Path) -> Callable[[np.ndarray], np.ndarray] | None:
    try:
        import openvino
    except ImportError:
        return None
    model = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_NUM_THREADS": 1})
    return lambda image: model([image])[0]


def _opencv(path: Path, images: list[torch.Tensor], wanted: list[torch.Tensor]) -> float | None:
    """The largest difference by OpenCV's dnn; None where it does not read the file."""
    import cv2

    try:
        net, worst = cv2.dnn.readNetFromONNX(str(path)), 0.0
        for image, known in zip(images, wanted):
            net.setInput(image.numpy(), "image")
            worst = max(worst, float(np.abs(net.forward() - known.numpy()).max()))
    except cv2.error:
        return None
    return worst


def measure(size: int, pairs: int, families: list[str]) -> Iterator[dict[str, Any]]:
    """A row for each family and walk; ratios above 1: the graph takes fewer processor seconds than the network."""
    from basicsr_ext import cli, repairs

    repairs.apply()
    plugin.register()
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(1, 3, *shape, generator=generator) for shape in SIZES]
    large = torch.rand(1, 3, size, size, generator=generator)
    for family in families:
        for walk in _walks_of(FAMILIES[family]):
            with tempfile.TemporaryDirectory() as name:
                checkpoint, path = _checkpoint(FAMILIES[family], Path(name)), Path(name) / "graph.onnx"
                flags = {} if "Regression" in family else WALKS[walk]
                words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
                if code := cli.main(["export", str(checkpoint), "-o", str(path), *words]):
                    raise SystemExit(code)
                network, graph = Restorer.load(checkpoint, device="cpu"), Restorer.load(path, device="cpu")
                wanted = [network(image, **flags) for image in images]
                differs = [float((graph(image) - known).abs().max()) for image, known in zip(images, wanted)]
                row = {"network": family, "walk": walk, "bytes": path.stat().st_size, "differences": differs}
                row |= {"opencv": _opencv(path, images, wanted)}
                others: dict[str, Callable[[], object]] = {"onnxruntime": lambda: graph(large)}  # noqa: B023
                if (openvino := _openvino(path)) is not None:
                    others["openvino"] = lambda: openvino(large.numpy())
                yield row | {"ratios": _ratios(lambda: network(large, **flags), others, pairs)}  # noqa: B023


def _ratio(found: list[float]) -> str:
    return f"{statistics.median(found):.2f} ({found[0]:.2f} to {found[-1]:.2f})" if found else ""


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    sizes = [f"difference at {height} x {width}" for height, width in SIZES]
    head = ["network", "walk", "file, MB", *sizes, "by OpenCV", "torch / onnxruntime", "torch / OpenVINO"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for row in rows:
        opencv = row["opencv"]
        cells = [row["network"], row["walk"], f"{row['bytes'] / 1e6:.1f}", *(f"{v:.1e}" for v in row["differences"])]
        cells += ["not read" if opencv is None else f"{opencv:.1e}"]
        cells += [_ratio(row["ratios"].get(name, [])) for name in ("onnxruntime", "openvino")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print a row for each family and walk as it is measured, and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=40, help="side of the image that is timed, enlarged 4 times")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=FAMILIES, default=list(FAMILIES), metavar="NETWORK")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = []
    for row in measure(args.size, args.pairs, args.only):
        print(json.dumps(row), flush=True)
        rows.append(row)
    packages = ["onnx", "onnxruntime", "opencv-python", *(["openvino"] if "openvino" in rows[0]["ratios"] else [])]
    write(args.out, {**machine(*packages), "size": args.size, "pairs": args.pairs, "rows": rows})


if __name__ == "__main__":
    main()
