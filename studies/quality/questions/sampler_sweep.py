r"""Quality against the number of network evaluations, for every sampler on one trained network.

Restores the validation images of an option file with each sampler and each NFE, and measures PSNR and SSIM on the Y
channel, LPIPS and DISTS (lower is closer; their weights: docs/metrics.md) and NIQE (lower is more natural; it needs no
reference). One seed for all. It prints which setting is best at each NFE, and which reaches the quality of 100
ancestral steps soonest; these two are then timed in turns on one image.

    python -m studies.quality.questions.sampler_sweep -opt options/i2sb_sr4x_plain.yml \
        --out studies/quality/results/samplers.json --plot docs/images/samplers.png
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch

from basicsr_ext import repairs

repairs.apply()

from basicsr.data import build_dataset  # noqa: E402
from basicsr.models import build_model  # noqa: E402

from basicsr_ext.common import plugins  # noqa: E402
from basicsr_ext.common.errors import InputError  # noqa: E402
from basicsr_ext.images.arrays import to_image  # noqa: E402
from basicsr_ext.metrics import Sample, build_metrics  # noqa: E402
from basicsr_ext.options.arguments import add_arguments  # noqa: E402
from basicsr_ext.preflight.start import prepare  # noqa: E402
from basicsr_ext.processes import launch  # noqa: E402

NFES = (1, 2, 3, 5, 10, 20, 50, 100)
SETTINGS = {
    "ancestral": {"type": "ancestral"},
    "ancestral, cosine": {"type": "ancestral", "spacing": "cosine"},
    "ancestral, log_snr": {"type": "ancestral", "spacing": "log_snr"},
    "ot_ode": {"type": "ot_ode"},
    "dbim eta 0": {"type": "dbim", "eta": 0.0},
    "dbim eta 0.5": {"type": "dbim", "eta": 0.5},
    "dbim order 2": {"type": "dbim", "order": 2},
    "dbim order 3": {"type": "dbim", "order": 3},
    "dbim order 2, first 0.999": {"type": "dbim", "order": 2, "first": 0.999},
    "dbim order 2, cosine": {"type": "dbim", "order": 2, "spacing": "cosine"},
    "dbim order 2, log_snr": {"type": "dbim", "order": 2, "spacing": "log_snr"},
    "one_step": {"type": "one_step"},
}
METRICS = {
    "psnr_y": {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True},
    "ssim_y": {"type": "calculate_ssim", "crop_border": 4, "test_y_channel": True},
    "lpips": {"type": "lpips", "crop_border": 4},
    "dists": {"type": "dists", "crop_border": 4},
    "niqe": {"type": "calculate_niqe", "crop_border": 4},
}
HIGHER_IS_BETTER = ("psnr_y", "ssim_y")
REFERENCE = ("ancestral", 100)  # whose quality is to be reached sooner
LONG = ("ancestral", "dbim eta 0")  # the only settings that are walked beyond 20 evaluations, unless --all says so


def build(option_file: str) -> tuple[object, list[dict]]:
    """The trained model of an option file, and its validation images."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    plugins.load_entry_points()
    args = parser.parse_args(["-opt", option_file])
    opt, _ = prepare(args, Path.cwd(), False, launch.find_launch("none"))
    datasets = [build_dataset(block) for block in opt["datasets"].values()]
    return build_model(opt), [dataset[k] for dataset in datasets for k in range(len(dataset))]


def usable() -> list[str]:
    """Names of the metrics whose packages and weights are installed; prints which are missing."""
    names = []
    for name, options in METRICS.items():
        try:
            build_metrics({name: options})
            names.append(name)
        except InputError as error:
            print(f"without {name}: {error}")
    return names


@torch.no_grad()
def restore(model: object, item: dict, seed: int, sampler: dict) -> torch.Tensor:
    """One restored image, C,H,W in [0, 1], with one setting of ``val.sampler``."""
    model.take_options(model.opt | {"val": model.opt["val"] | {"sampler": sampler}})
    model.feed_data({key: v[None] if torch.is_tensor(v) else [v] for key, v in item.items()})
    with model.evaluating() as net:
        return model.restore(model.batch, net, [torch.Generator().manual_seed(seed)])[0]


def measure(model: object, items: list[dict], names: list[str], sampler: dict) -> dict[str, float]:
    """Metrics of the restored ``items``."""
    metrics = build_metrics({name: METRICS[name] for name in names})
    for k, item in enumerate(items):
        restored = to_image(restore(model, item, k, sampler))
        for metric in metrics.values():
            metric.update(Sample(k, item["lq_path"], restored, gt=to_image(item["gt"])))
    return {name: metric.compute() for name, metric in metrics.items()}


def best_of_each_nfe(rows: list[dict], metrics: list[str]) -> str:
    """Markdown: for each NFE, the setting that is best in each metric, and its figure."""
    lines = ["| NFE | " + " | ".join(metrics) + " |", "| ---: |" + " --- |" * len(metrics)]
    for nfe in sorted({row["nfe"] for row in rows}):
        group = [row for row in rows if row["nfe"] == nfe]
        cells = []
        for metric in metrics:
            best = (max if metric in HIGHER_IS_BETTER else min)(group, key=lambda row: row[metric])
            cells.append(f"{best['sampler']}: {best[metric]:.4g}")
        lines.append(f"| {nfe} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def time_to_quality(model: object, item: dict, rows: list[dict], metrics: list[str], pairs: int) -> list[dict]:
    """For some of the metrics, the row of least NFE that is as good as the reference; both timed in turns."""
    reference = next((row for row in rows if (row["sampler"], row["nfe"]) == REFERENCE), None)
    found = []
    for wanted in (["lpips"], ["dists"], ["lpips", "dists"], ["niqe"]):
        if reference is None or not set(wanted) <= set(metrics):
            continue
        good = [row for row in rows if all(row[metric] <= reference[metric] for metric in wanted)]
        quick = min(good, key=lambda row: row["nfe"])
        ratios = [seconds(model, item, reference) / seconds(model, item, quick) for _ in range(pairs)]
        spread = {"ratio_median": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}
        found.append({"as good in": wanted, "sampler": quick["sampler"], "nfe": quick["nfe"], **spread, "pairs": pairs})
    return found


def seconds(model: object, item: dict, row: dict) -> float:
    """Seconds of restoring ``item`` as in ``row``."""
    start = time.perf_counter()
    restore(model, item, 0, SETTINGS[row["sampler"]] | {"nfe": row["nfe"]})
    return time.perf_counter() - start


def plot(rows: list[dict], path: str) -> None:
    """One line for each sampler: a metric against NFE."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    metrics = [metric for metric in METRICS if metric in rows[0]]
    figure, axes = pyplot.subplots(1, len(metrics), figsize=(5 * len(metrics), 4.5), constrained_layout=True)
    for axis, metric in zip(axes, metrics):
        for name in dict.fromkeys(row["sampler"] for row in rows):
            line = [(row["nfe"], row[metric]) for row in rows if row["sampler"] == name]
            axis.plot(*zip(*line), marker="o", markersize=3, label=name)
        axis.set(xscale="log", xlabel="network evaluations", title=metric)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def table(rows: list[dict]) -> str:
    """Markdown: samplers down, NFE across, PSNR-Y / LPIPS (NIQE without its weights) in the cells."""
    second, digits = ("lpips", 3) if "lpips" in rows[0] else ("niqe", 2)
    nfes = sorted({row["nfe"] for row in rows})
    lines = ["| sampler | " + " | ".join(f"NFE {n}" for n in nfes) + " |", "| --- |" + " ---: |" * len(nfes)]
    for name in dict.fromkeys(row["sampler"] for row in rows):
        cells = {
            row["nfe"]: f"{row['psnr_y']:.2f} / {row[second]:.{digits}f}" for row in rows if row["sampler"] == name
        }
        lines.append(f"| {name} | " + " | ".join(cells.get(n, "") for n in nfes) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure every setting at every NFE that it allows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-opt", required=True)
    parser.add_argument("--nfe", type=int, nargs="+", default=NFES)
    parser.add_argument("--all", action="store_true", help="walk every setting beyond 20 evaluations too")
    parser.add_argument("--pairs", type=int, default=3, help="of timed restorations")
    parser.add_argument("--out")
    parser.add_argument("--plot")
    args = parser.parse_args()
    model, items = build(args.opt)
    names, rows = usable(), []
    for name, setting in SETTINGS.items():
        for nfe in args.nfe if name != "one_step" else (1,):
            if ("first" in setting and nfe < 2) or (nfe > 20 and name not in LONG and not args.all):
                continue
            rows.append({"sampler": name, "nfe": nfe} | measure(model, items, names, setting | {"nfe": nfe}))
            print(rows[-1], flush=True)
    sooner = time_to_quality(model, items[0], rows, names, args.pairs)
    print(table(rows), best_of_each_nfe(rows, names), json.dumps(sooner, indent=1), sep="\n\n")
    if args.out:
        record = {"option_file": args.opt, "torch": torch.__version__, "machine": platform.machine()}
        record |= {"threads": torch.get_num_threads(), "images": len(items), "time to quality": sooner, "rows": rows}
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        Path(args.out).write_text(json.dumps(record, indent=1) + "\n")
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
