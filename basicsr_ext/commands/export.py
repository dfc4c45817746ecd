"""``basicsr export``: a trained network and its options in one file, to give away: ``.safetensors`` or ``.onnx``."""

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

    from basicsr_ext.restoring.restorer import Restorer

ABOUT, LICENSE = "about", "license"  # keys of the file's metadata
_OF_A_RUN = ("path", "is_train", "num_gpu", "manual_seed")


def run(argv: list[str]) -> int:
    """Write the file that the command line asks for; returns 0, or raises InputError or SaveError."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    out = Path(args.out).expanduser()
    _check(args, rest, out)
    repairs.apply()
    from basicsr_ext.restoring.configuration import find_options
    from basicsr_ext.restoring.restorer import Loading, Restorer, load_for_graph

    plugins.load_entry_points()
    found, _ = find_options(args.checkpoint, args.opt)
    graph = out.suffix == ".onnx"
    restorer = load_for_graph(found, args.checkpoint) if graph else Restorer(found, args.checkpoint, Loading("cpu"))
    if args.mix:
        _mix(restorer, *args.mix)
    out.parent.mkdir(parents=True, exist_ok=True)
    if graph:
        _write_graph(restorer, args, rest, out)
    else:
        options = {key: value for key, value in restorer.opt.items() if key in found and key not in _OF_A_RUN}
        _write_weights(restorer, args, options, out)
    return 0


def _parser() -> argparse.ArgumentParser:
    description = "Put a trained network (averaged weights, where there are some) and its options into one file."
    epilog = (
        "A graph takes the flags of `basicsr restore` as well, such as --nfe 1, --dial 0.3 or --sampler ot_ode: they "
        "are then built in."
    )
    parser = argparse.ArgumentParser(prog="basicsr export", description=description, epilog=epilog, allow_abbrev=False)
    parser.add_argument("checkpoint", type=path_text, help="net_g_*.pth of a run, or a .safetensors")
    parser.add_argument(
        "-o",
        dest="out",
        type=path_text,
        required=True,
        metavar="FILE",
        help="file to write: .safetensors (weights and options) or .onnx (a graph)",
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
    parser.add_argument(
        "--mask", action="store_true", help="of a graph: it has a second input, a mask of what is to be filled"
    )
    return parser


def _check(args: argparse.Namespace, rest: list[str], out: Path) -> None:
    if out.suffix not in (".safetensors", ".onnx"):
        raise InputError(f"-o {out}: give a name that ends in .safetensors or .onnx")
    if Path(args.checkpoint).suffix.lower() == ".onnx":
        raise InputError(f"{args.checkpoint} is a graph, of which no other file is made; give what it was made from")
    if out.exists() and out.samefile(Path(args.checkpoint).expanduser()):
        raise InputError(f"-o {out} is the checkpoint itself; give another name")
    if args.mix:
        _share(args.mix[1])
    if out.suffix == ".safetensors" and (args.mask or rest):
        flag = "--mask" if args.mask else rest[0]
        raise InputError(
            f"{flag} is built into a graph, -o NAME.onnx, alone; with {out.name} `basicsr restore` takes it"
        )
    if out.suffix == ".onnx" and out.exists():
        raise InputError(f"-o {out} is there already; give another name, or delete it first")


def _write_weights(restorer: "Restorer", args: argparse.Namespace, options: Mapping, out: Path) -> None:
    from basicsr_ext.checkpoints.storage import CONFIGURATION, save_safetensors

    weights: Mapping[str, Tensor] = restorer.network.net.state_dict()
    if args.half:
        weights = {name: _halved(name, value) for name, value in weights.items()}
    notes = {CONFIGURATION: json.dumps(options), LICENSE: args.license, ABOUT: args.about}
    digest = save_safetensors(weights, out, {key: text for key, text in notes.items() if text})
    count = sum(value.numel() for value in weights.values())
    print(f"wrote {out}: {count:,} weights, {out.stat().st_size:,} bytes, SHA-256 {digest}")


def _write_graph(restorer: "Restorer", args: argparse.Namespace, rest: list[str], out: Path) -> None:
    from basicsr_ext.checkpoints.storage import is_safetensors, read_safetensors_metadata
    from basicsr_ext.commands.model_flags import read_flags
    from basicsr_ext.common.files import digest, write_whole
    from basicsr_ext.restoring.onnx_graph import make_graph

    restorer.take(**read_flags(restorer.offers.restore_flags, rest, _parser()))
    net = restorer.network.net
    if args.half:
        net.load_state_dict({name: _halved(name, value) for name, value in net.state_dict().items()})
    source = Path(args.checkpoint).expanduser()
    kept = read_safetensors_metadata(source) if is_safetensors(source) else {}
    task = "inpainting" if args.mask else "super-resolution" if restorer.scale > 1 else "restoration"
    notes = {
        "name": out.stem,
        "task": task,
        LICENSE: args.license or kept.get(LICENSE),
        ABOUT: args.about or kept.get(ABOUT),
        "model_type": restorer.opt["model_type"],
        "network": restorer.opt["network_g"]["type"],
    }
    texts = {key: text for key, text in notes.items() if text}
    content, difference = make_graph(restorer, texts, args.mask, args.half)
    write_whole(out, content, durable=True)
    count = sum(value.numel() for value in net.state_dict().values())
    print(f"wrote {out}: {count:,} weights, {len(content):,} bytes, SHA-256 {digest(out)}")
    print(f"on small images it differs from the network by {difference:.1g} of 1 at most")


def _mix(restorer: "Restorer", name: str, share: str) -> None:
    """Give the network that share of another one's weights."""
    from basicsr_ext.restoring.configuration import find_options
    from basicsr_ext.restoring.restorer import Loading, Restorer

    other = Restorer(find_options(name, option="--mix")[0], name, Loading("cpu"))
    _warn_of_differences(restorer.opt, other.opt)
    net = restorer.network.net
    net.load_state_dict(_mixed(net.state_dict(), other.network.net.state_dict(), _share(share), name))


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
