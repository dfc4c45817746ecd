"""Quality against the number of network evaluations, for every sampler on one trained network.

Restores the validation photographs of an option file with each sampler and each NFE, and measures PSNR and SSIM on the
Y channel and NIQE (lower is more natural; it needs no reference). One seed for all.

    python benchmarks/samplers.py -opt options/i2sb_sr4x.yml --out benchmarks/results/samplers.json \\
        --plot docs/images/samplers.png
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import torch

from basicsr_ext import compat

compat.apply()

from basicsr.data import build_dataset  # noqa: E402
from basicsr.metrics import calculate_metric  # noqa: E402
from basicsr.models import build_model  # noqa: E402

from basicsr_ext import launch, plugins  # noqa: E402
from basicsr_ext.options import add_arguments, prepare  # noqa: E402
from basicsr_ext.validation import to_image  # noqa: E402

NFES = (1, 2, 3, 5, 10, 20, 50, 100)
SETTINGS = {
    "ancestral": {"type": "ancestral"},
    "ancestral, cosine": {"type": "ancestral", "spacing": "cosine"},
    "ot_ode": {"type": "ot_ode"},
    "dbim eta 0": {"type": "dbim", "eta": 0.0},
    "dbim eta 0.5": {"type": "dbim", "eta": 0.5},
    "dbim order 2": {"type": "dbim", "order": 2},
    "dbim order 3": {"type": "dbim", "order": 3},
    "dbim order 2, first 0.999": {"type": "dbim", "order": 2, "first": 0.999},
    "dbim order 2, log_snr": {"type": "dbim", "order": 2, "spacing": "log_snr"},
    "one_step": {"type": "one_step"},
}
METRICS = {
    "psnr_y": {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True},
    "ssim_y": {"type": "calculate_ssim", "crop_border": 4, "test_y_channel": True},
    "niqe": {"type": "calculate_niqe", "crop_border": 4},
}


def build(option_file: str) -> tuple[object, list[dict]]:
    """The trained model of an option file, and its validation images."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    plugins.load_entry_points()
    args = parser.parse_args(["-opt", option_file])
    opt, _ = prepare(args, Path.cwd(), False, launch.find_launch("none"))
    datasets = [build_dataset(block) for block in opt["datasets"].values()]
    return build_model(opt), [dataset[k] for dataset in datasets for k in range(len(dataset))]


@torch.no_grad()
def measure(model: object, items: list[dict], sampler: dict) -> dict[str, float]:
    """Mean metrics of the restored ``items`` with one setting of ``val.sampler``."""
    model.take_options(model.opt | {"val": model.opt["val"] | {"sampler": sampler}})
    sums = dict.fromkeys(METRICS, 0.0)
    with model.evaluating() as net:
        for k, item in enumerate(items):
            model.feed_data({key: v[None] if torch.is_tensor(v) else [v] for key, v in item.items()})
            restored = model.restore(model.batch, net, [torch.Generator().manual_seed(k)])
            images = {"img": to_image(restored[0]), "img2": to_image(item["gt"])}
            for name, options in METRICS.items():
                data = {"img": images["img"]} if name == "niqe" else images
                sums[name] += float(calculate_metric(data, dict(options))) / len(items)
    return sums


def plot(rows: list[dict], path: str) -> None:
    """One line for each sampler: a metric against NFE."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.5), constrained_layout=True)
    for axis, metric in zip(axes, METRICS):
        for name in dict.fromkeys(row["sampler"] for row in rows):
            line = [(row["nfe"], row[metric]) for row in rows if row["sampler"] == name]
            axis.plot(*zip(*line), marker="o", markersize=3, label=name)
        axis.set(xscale="log", xlabel="network evaluations", title=metric)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def table(rows: list[dict]) -> str:
    """Markdown: samplers down, NFE across, PSNR-Y / NIQE in the cells."""
    nfes = sorted({row["nfe"] for row in rows})
    lines = ["| sampler | " + " | ".join(f"NFE {n}" for n in nfes) + " |", "| --- |" + " ---: |" * len(nfes)]
    for name in dict.fromkeys(row["sampler"] for row in rows):
        cells = {row["nfe"]: f"{row['psnr_y']:.2f} / {row['niqe']:.2f}" for row in rows if row["sampler"] == name}
        lines.append(f"| {name} | " + " | ".join(cells.get(n, "") for n in nfes) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure every setting at every NFE that it allows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-opt", required=True)
    parser.add_argument("--nfe", type=int, nargs="+", default=NFES)
    parser.add_argument("--out")
    parser.add_argument("--plot")
    args = parser.parse_args()
    model, items = build(args.opt)
    rows = []
    for name, setting in SETTINGS.items():
        for nfe in args.nfe if name != "one_step" else (1,):
            if "first" in setting and nfe < 2:
                continue
            rows.append({"sampler": name, "nfe": nfe} | measure(model, items, setting | {"nfe": nfe}))
            print(rows[-1], flush=True)
    print(table(rows))
    if args.out:
        record = {"option_file": args.opt, "torch": torch.__version__, "machine": platform.machine(), "rows": rows}
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        Path(args.out).write_text(json.dumps(record, indent=1) + "\n")
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
