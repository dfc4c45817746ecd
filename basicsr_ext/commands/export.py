"""``basicsr export``: a trained network and its options in one ``.safetensors`` file, to give away."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from basicsr_ext import repairs
from basicsr_ext.common import plugins
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.text import path_text

if TYPE_CHECKING:
    from torch import Tensor

ABOUT, LICENSE = "about", "license"  # keys of the file's metadata
_OF_A_RUN = ("path", "is_train", "num_gpu", "manual_seed")


def run(argv: list[str]) -> int:
    """Write the file that the command line asks for; returns 0, or raises InputError or SaveError."""
    description = "Put a trained network (averaged weights, where there are some) and its options into one file."
    parser = argparse.ArgumentParser(prog="basicsr export", description=description)
    parser.add_argument("checkpoint", type=path_text, help="net_g_*.pth of a run, or a .safetensors")
    parser.add_argument(
        "-o", dest="out", type=path_text, required=True, metavar="FILE", help="file to write; ends in .safetensors"
    )
    parser.add_argument(
        "-opt", type=path_text, help="option file; without it, the one inside the checkpoint or of its run"
    )
    parser.add_argument(
        "--mix", nargs=2, metavar=("OTHER", "SHARE"), help="mix in that share, 0 to 1, of another training's weights"
    )
    parser.add_argument("--half", action="store_true", help="16-bit floats, half the size; fp32 again when loaded")
    parser.add_argument("--license", help="licence of the weights, kept in the file")
    parser.add_argument("--about", help="a line that says what the network does, kept in the file")
    args = parser.parse_args(argv)
    out = Path(args.out).expanduser()
    if out.suffix != ".safetensors":
        raise InputError(f"-o {out}: give a name that ends in .safetensors")
    if out.exists() and out.samefile(Path(args.checkpoint).expanduser()):
        raise InputError(f"-o {out} is the checkpoint itself; give another name")
    repairs.apply()
    from basicsr_ext.checkpoints.storage import CONFIGURATION, save_safetensors
    from basicsr_ext.restoring.configuration import find_options
    from basicsr_ext.restoring.restorer import Loading, Restorer

    plugins.load_entry_points()
    found, _ = find_options(args.checkpoint, args.opt)
    share = _share(args.mix[1]) if args.mix else 0.0
    restorer = Restorer(found, args.checkpoint, Loading("cpu"))
    options = {key: value for key, value in restorer.opt.items() if key in found and key not in _OF_A_RUN}
    weights: Mapping[str, Tensor] = restorer.network.net.state_dict()
    if args.mix:
        other_options, _ = find_options(args.mix[0], option="--mix")
        other = Restorer(other_options, args.mix[0], Loading("cpu"))
        _warn_of_differences(restorer.opt, other.opt)
        weights = _mixed(weights, other.network.net.state_dict(), share, args.mix[0])
    if args.half:
        weights = {name: _halved(name, value) for name, value in weights.items()}
    notes = {CONFIGURATION: json.dumps(options), LICENSE: args.license, ABOUT: args.about}
    out.parent.mkdir(parents=True, exist_ok=True)
    digest = save_safetensors(weights, out, {key: text for key, text in notes.items() if text})
    count = sum(value.numel() for value in weights.values())
    print(f"wrote {out}: {count:,} weights, {out.stat().st_size:,} bytes, SHA-256 {digest}")
    return 0


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise InputError(f"--mix OTHER {text}: the share of OTHER must be a number from 0 to 1")
    return share


def _warn_of_differences(opt: Mapping, other: Mapping) -> None:
    """Say which options by which networks tell what they predict are not the same."""
    keys = ("model_type", "scale", "bridge", "diffusion")
    differ = [key for key in keys if opt.get(key) != other.get(key)]
    if differ:
        print(f"note: the two differ in {', '.join(differ)}; the file has the first one's options", file=sys.stderr)


def _mixed(
    weights: "Mapping[str, Tensor]", other: "Mapping[str, Tensor]", share: float, name: str
) -> "dict[str, Tensor]":
    """(1 - share) of the weights and share of the other ones (network interpolation: 1811.10515)."""
    unlike = [key for key, value in weights.items() if key not in other or other[key].shape != value.shape]
    unlike += [key for key in other if key not in weights]
    if unlike:
        raise InputError(
            f"--mix {name}: its network is another one, {unlike[0]} of {len(unlike)} weights differs in size or is "
            "missing; networks that are mixed have the same options network_g"
        )
    return {
        key: value.lerp(other[key], share) if value.is_floating_point() else value for key, value in weights.items()
    }


def _halved(name: str, value: "Tensor") -> "Tensor":
    import torch

    if not value.is_floating_point():
        return value
    half = value.to(torch.float16)
    if not torch.isfinite(half).all():
        raise InputError(f"--half: {name} has values beyond 65504, the largest of 16 bits; leave --half out")
    return half
