r"""Milliseconds of a degraded image against DDRM's operators by SVD, and JPEG against unfold and fold.

DDRM is not part of this project: take a copy of its repository (github.com/bahjat-kawar/ddrm, MIT) and name its
folder. Its operators are called as its sampler calls them: V^T, singular values, U. Every figure is a ratio of
neighbours in the order A B A B ..., in one process, on random images that are smooth at the scale of 8 pixels. DDRM's
blur is the released one, which is not the blur of its kernel: the difference of the true blur is that to the kernel
convolved directly.

    python -m studies.speed.training.degradations --ddrm ../ddrm --threads 1 \
        --out studies/speed/results/degradations.json
"""

import argparse
import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F

from i2sb_plugin.degradations import build_degradation
from studies.timing import machine, paired, write

SEED = 0
QUALITY = 10
PLAIN_YCC = ((0.299, 0.587, 0.114), (-0.1687, -0.3313, 0.5), (0.5, -0.4187, -0.0813))
UNIFORM = (1 / 9,) * 9
GAUSS = tuple(torch.softmax(-(torch.arange(-2.0, 3.0) ** 2) / 200, 0).tolist())  # sigma 10 cut to 5 taps, as released
Run = Callable[[], Tensor]


def images(batch: int, size: int, device: torch.device) -> Tensor:
    """Smooth random images in [0,1]: B,3,size,size."""
    coarse = torch.rand(batch, 3, -(-size // 8), -(-size // 8), generator=torch.Generator().manual_seed(SEED))
    return F.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1).to(device)


def svd_module(folder: Path) -> ModuleType:
    """DDRM's operators, out of a copy of its repository."""
    path = folder / "functions" / "svd_replacement.py"
    if not path.is_file():
        raise SystemExit(f"{path}: no such file; give the folder of a copy of github.com/bahjat-kawar/ddrm with --ddrm")
    spec = importlib.util.spec_from_file_location("svd_replacement", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cubic16() -> Tensor:
    """Cubic kernel (a = -0.5) stretched 4 times, 16 taps."""
    distance = (torch.arange(16.0) - 7.5).abs() / 4
    inner = 1.5 * distance**3 - 2.5 * distance**2 + 1
    outer = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    taps = torch.where(distance <= 1, inner, torch.where(distance < 2, outer, 0))
    return taps / taps.sum()


def convolved(x: Tensor, taps: tuple[float, ...]) -> Tensor:
    """The true blur as two depthwise convolutions of the mirrored image, the edge repeated."""
    half = len(taps) // 2
    kernel = torch.tensor(taps, device=x.device)
    size = x.shape[-1]
    index = torch.arange(-half, size + half, device=x.device) % (2 * size)
    index = torch.minimum(index, 2 * size - 1 - index)
    planes = x[..., index, :][..., index].flatten(0, 1)[:, None]
    return F.conv2d(F.conv2d(planes, kernel[None, None, None]), kernel[None, None, :, None]).view(x.shape)


def dct64(device: torch.device) -> Tensor:
    """Orthonormal DCT of an 8x8 block, 64 x 64."""
    k = torch.arange(8.0, dtype=torch.float64)
    rows = torch.cos(torch.pi / 8 * (k + 0.5) * k[:, None]) / 2
    rows[0] /= 2**0.5
    return torch.kron(rows, rows).float().to(device)


class FoldedJpeg:
    """The pipeline of ``jpeg`` written with unfold and fold: colours, blocks, DCT, table, rounding, and back."""

    def __init__(self, quality: int, device: torch.device) -> None:
        jpeg = build_degradation({"type": "jpeg", "quality": quality})
        self.dct = dct64(device)
        self.tables = {plane: jpeg.table(plane).to(device)[:, None] for plane in ("luma", "chroma")}
        self.to_ycc = torch.tensor(PLAIN_YCC, device=device)
        self.to_rgb = torch.tensor(
            [[1.0, -3.68199903e-05, 1.40198758], [1.0, -0.344113281, -0.714103821], [1.0, 1.77197812, -1.34583413e-04]],
            device=device,
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Compress and decode B,3,H,W in [0,1] whose sides 16 divides."""
        ycc = self._colours(x * 255, self.to_ycc)
        luma = self._coded(ycc[:, :1] - 128, "luma") + 128
        small = F.interpolate(ycc[:, 1:], scale_factor=0.5, mode="nearest")
        chroma = F.interpolate(self._coded(small, "chroma"), scale_factor=2, mode="nearest")
        return self._colours(torch.cat([luma, chroma], 1), self.to_rgb) / 255

    def _colours(self, x: Tensor, matrix: Tensor) -> Tensor:
        return torch.stack([sum(weight * x[:, k] for k, weight in enumerate(row)) for row in matrix.tolist()], 1)

    def _coded(self, planes: Tensor, plane: str) -> Tensor:
        blocks = F.unfold(planes.flatten(0, 1)[:, None], 8, stride=8)
        quantised = (torch.einsum("kp,npl->nkl", self.dct, blocks) / self.tables[plane]).round()
        pixels = torch.einsum("kp,nkl->npl", self.dct, quantised * self.tables[plane])
        return F.fold(pixels, planes.shape[-2:], 8, stride=8).view(planes.shape)


def cases(ddrm: Path | None, x: Tensor) -> list[tuple[str, str, Run, Run, Run]]:
    """What is compared: name, the reference's name, reference, ours, and what ours must equal."""
    size, device = x.shape[-1], x.device
    folded = partial(FoldedJpeg(QUALITY, device), x)
    found = [("jpeg 10", "unfold and fold", folded, degraded("jpeg", x, quality=QUALITY), folded)]
    svd = None if ddrm is None else svd_module(ddrm)
    if svd is not None:
        bicubic = partial(svd.SRConv(cubic16().to(device), 3, size, device, stride=4).H, x)
        pool = partial(svd.SuperResolution(3, size, 4, device).H, x)
        found += [
            ("bicubic", "DDRM SRConv", bicubic, degraded("sr4x_bicubic", x), bicubic),
            ("pool", "DDRM SuperResolution", pool, degraded("sr4x_pool", x), pool),
        ]
    gauss = {"type": "blur_gauss", "sigma": 10.0, "size": 5}
    for name, taps, options in (("uniform 9", UNIFORM, {"type": "blur_uniform", "size": 9}), ("gauss 5", GAUSS, gauss)):
        true, direct = degraded(x=x, **options), partial(convolved, x, taps)
        found.append((f"true blur, {name}", "conv2d of rows, then columns", direct, true, direct))
        if svd is not None:
            blur = partial(svd.Deblurring(torch.tensor(taps, device=device), 3, size, device).H, x)
            released = degraded(options["type"].replace("_", "_released_"), x, stable=device.type == "cuda")
            found.append((f"true blur, {name}", "DDRM Deblurring", blur, true, direct))
            found.append((f"released blur, {name}", "DDRM Deblurring", blur, released, blur))
    return found


def degraded(type: str, x: Tensor, **options: object) -> Run:
    """Our degradation of ``x``."""
    degradation = build_degradation({"type": type, **options})
    return lambda: degradation(x).lq


def measure(
    ddrm: Path | None = None,
    batch: int = 8,
    size: int = 256,
    pairs: int = 15,
    device: str = "cpu",
) -> list[dict[str, object]]:
    """One row for each degradation; without ``ddrm`` those alone that need no other project."""
    device = torch.device(device)
    x = images(batch, size, device)
    rows = []
    with torch.inference_mode():
        for name, other, reference, ours, expected in cases(ddrm, x):
            mine = ours()
            difference = float((mine - expected().view(mine.shape)).abs().max())
            row = {"what": name, "reference": other, "batch": batch, "size": size, "max_abs_difference": difference}
            row |= paired(reference, ours, pairs, device)
            rows.append(row)
    return rows


def quick() -> list[dict[str, object]]:
    """What a check of a few seconds needs."""
    return measure(batch=2, size=64, pairs=3)


def table(rows: list[dict[str, object]]) -> str:
    """The rows as Markdown."""
    head = "| degradation | reference | reference, ms | ours, ms | ratio (least to most) | largest difference |"
    lines = [
        f"| {r['what']} | {r['reference']} | {1000 * r['reference_seconds'] / r['batch']:.2f} "
        f"| {1000 * r['seconds'] / r['batch']:.2f} "
        f"| {r['ratio_median']:.1f} ({r['ratio_min']:.1f} to {r['ratio_max']:.1f}) | {r['max_abs_difference']:.0e} |"
        for r in rows
    ]
    return "\n".join([head, "| --- | --- | --- | --- | --- | --- |", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ddrm", type=Path, help="folder of a copy of DDRM's repository; without it JPEG alone")
    parser.add_argument("--batch", type=int, default=8, help="images in a batch")
    parser.add_argument("--size", type=int, default=256, help="height and width in pixels, a multiple of 16")
    parser.add_argument("--pairs", type=int, default=15, help="measured pairs per figure")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = measure(args.ddrm, args.batch, args.size, args.pairs, args.device)
    print(table(rows))
    write(args.out, {"machine": machine(device=torch.device(args.device)), "seed": SEED, "rows": rows})


if __name__ == "__main__":
    main()
