"""Files of studies/quality/results made by hand: small, with figures that are known."""

import json
from pathlib import Path

HIGHER = {"psnr": True, "ssim": True, "lpips": False, "dists": False, "patch_fid": False}


def method(group, nfe, **figures):
    """One method: figures of each image by metric, ``patch_fid`` as one number; on each data set of ``on``."""
    return {"group": group, "nfe": nfe, "figures": figures}


def write(folder, comparison, task, seed, methods, datasets=("crops",), seconds=100.0):
    """Write the file of a unit; every method has the same figures on each data set."""
    names = {f"{m['group']}_nfe{m['nfe']}" if m["nfe"] else m["group"]: m for m in methods}
    results = []
    for dataset in datasets:
        for name, m in names.items():
            images = {metric: value for metric, value in m["figures"].items() if isinstance(value, list)}
            whole = {metric: sum(v) / len(v) if isinstance(v, list) else v for metric, v in m["figures"].items()}
            summary = {metric: {"value": value, "low": None, "high": None} for metric, value in whole.items()}
            results.append({"method": name, "dataset": dataset, "summary": summary, "images": images})
    metrics = list(methods[0]["figures"])
    content = {
        "unit": f"{comparison}-{task}-{seed}",
        "iterations": 700,
        "data": "made-up photographs",
        "trained": {"i2sb": {"iterations": 700, "seconds": seconds, "processes at once": 2}},
        "environment": {"torch": "9.9", "device": "CPU, 1 thread(s)", "cpu": "Abacus", "commit": "c0ffee"},
        "protocol": {"seed": seed},
        "metrics": [{"name": m, "label": m, "higher_is_better": HIGHER[m]} for m in metrics],
        "methods": [_method(name, m) for name, m in names.items()],
        "results": results,
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{content['unit']}.json").write_text(json.dumps(content))


def _method(name, m):
    curve = m["nfe"] is not None
    costs = {"parameters": 1_200_000 if curve else None, "flops": 1e9, "seconds_per_image": 0.5}
    group = m["group"] if curve else None
    return {"name": name, "group": group, "nfe": m["nfe"], "status": "done", "reason": None, **costs}
