"""Records of a made-up benchmark with real picture files, in the format that the page reads."""

import json
from pathlib import Path

import cv2
import numpy as np

METRICS = [
    ("psnr_y", "PSNR-Y", "dB", 2, True, False),
    ("lpips", "LPIPS", None, 3, False, False),
    ("fid", "FID", None, 1, False, True),
]


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """A smooth random picture H,W,3 uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def method(name: str, label: str, group: str | None = None, nfe: int | None = None, seconds: float = 0.1) -> dict:
    return {
        "name": name, "label": label, "kind": "options", "group": group, "nfe": nfe, "sampler": None, "status": "done",
        "reason": None, "parameters": 1_500_000, "flops": 2.5e9 * (nfe or 1), "seconds_per_image": seconds,
        "peak_memory_mib": 321.0,
    }  # fmt: skip


def default_methods() -> list[dict]:
    """Bicubic, a network and one bridge at three numbers of evaluations; the labels hold markup."""
    bridge = [method(f"i2sb_{n}", f"I2SB, {n}", "i2sb", n, 0.2 * n) for n in (1, 5, 20)]
    return [method("bicubic", "Bicubic", seconds=0.001), method("net", "<script>boom()</script>", None, 1), *bridge]


def write_records(
    root: Path, methods: list[dict] | None = None, count: int = 4, size: tuple[int, int] = (48, 64), sets: int = 1
) -> Path:
    """Write pictures and records.json below ``root``; method m adds to image i an error that grows with both."""
    methods = default_methods() if methods is None else methods
    datasets, results = [], []
    for d in range(sets):
        name = f"set {d} <b>&"
        images = [image(root, d, k, size) for k in range(count)]
        datasets.append({"name": name, "images": images})
        results += [restored(root, name, images, m, one) for m, one in enumerate(methods)]
    failed = method("broken", "Broken") | {"status": "failed", "reason": "weights of the wrong kind: <img src=x>"}
    keys = ("name", "label", "unit", "digits", "higher_is_better", "set_level")
    records = {
        "format": 1, "name": "made_up", "title": "Made-up <script>alert(1)</script>",
        "environment": {"torch": "2.0", "cpu": "one"}, "protocol": {"seed": 0, "baseline": methods[0]["name"]},
        "methods": [*methods, failed], "datasets": datasets,
        "metrics": [dict(zip(keys, metric)) | {"provenance": {"library": "made up"}} for metric in METRICS],
        "results": results,
        "significance": [{
            "dataset": datasets[0]["name"], "metric": "psnr_y", "method": methods[-1]["name"],
            "baseline": methods[0]["name"], "difference": 1.5, "low": 1.0, "high": 2.0, "p": 0.01,
        }],
    }  # fmt: skip
    path = root / "records.json"
    path.write_text(json.dumps(records))
    return path


def image(root: Path, dataset: int, k: int, size: tuple[int, int]) -> dict:
    name = "<script>alert(2)</script>" if k == 1 else f"photo {k}"
    gt = picture(*size, seed=100 * dataset + k)
    save(root / f"gt/{dataset}/{k}.png", gt)
    save(root / f"lq/{dataset}/{k}.png", gt[::4, ::4])
    return {
        "name": name, "gt": f"gt/{dataset}/{k}.png", "lq": f"lq/{dataset}/{k}.png", "width": size[1], "height": size[0]
    }  # fmt: skip


def restored(root: Path, dataset: str, images: list[dict], m: int, one: dict) -> dict:
    """Results of method number ``m``: PSNR-Y of image k is 30 - m + k, for the second method 25 + 3 k."""
    rows = []
    for k, shown in enumerate(images):
        gt = cv2.imread(str(root / shown["gt"]))
        changed = gt.astype(np.int16)
        changed[8:20, 10 + 4 * m : 26 + 4 * m] += 10 * (m + 1)
        file = f"{one['name']}/{shown['gt']}"
        save(root / file, changed.clip(0, 255).astype(np.uint8))
        row = {"image": shown["name"], "file": file, "seconds": one["seconds_per_image"], "trajectory": None}
        row |= {"deviation": None, "psnr_y": 25.0 + 3 * k if m == 1 else 30.0 - m + k, "lpips": 0.3 - 0.04 * m}
        if one["nfe"] == 20 and k == 0:
            save(root / "walk.png", np.hstack([gt, gt, gt]))
            save(root / "std.png", gt)
            row |= {"trajectory": "walk.png", "deviation": "std.png"}
        rows.append(row)

    def summary(metric: str) -> dict:
        value = float(np.mean([row[metric] for row in rows]))
        return {"value": value, "low": value * 0.98, "high": value * 1.02}

    means = {name: summary(name) for name in ("psnr_y", "lpips")}
    means["fid"] = {"value": 90.0 - 10 * m, "low": None, "high": None}
    return {"method": one["name"], "dataset": dataset, "summary": means, "images": rows}
