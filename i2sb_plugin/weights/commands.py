"""The commands ``basicsr import-i2sb``, ``basicsr export-i2sb`` and ``basicsr import-adm``."""

import argparse
import pickle
from pathlib import Path
from typing import Any

from basicsr_ext.checkpoints.storage import atomic_save
from basicsr_ext.common.errors import InputError
from i2sb_plugin.weights import layout, released, tasks
from i2sb_plugin.weights.pickles import load_namespace

__all__ = ["export_i2sb", "import_adm", "import_i2sb"]


def import_i2sb(rest: list[str]) -> int:
    """Run ``basicsr import-i2sb``: from the release's layout to one file of ours and an option file to test it with.

    Raises:
        InputError: A file is missing, damaged, refused or does not fit; an option is unknown to the release.

    """
    parser = argparse.ArgumentParser(prog="basicsr import-i2sb", description="Import a checkpoint of I2SB's release.")
    parser.add_argument("checkpoint", help="latest.pt of the release")
    parser.add_argument("options", nargs="?", help="its options.pkl (default: the one beside it)")
    parser.add_argument("-o", dest="out", required=True, metavar="OUT", help=".safetensors (average) or .pth (both)")
    parser.add_argument("--corrupt", help="without options.pkl: the task, with the paper's settings, such as sr4x-pool")
    _add_head_channels(parser)
    parser.add_argument("--new-attention-order", action="store_true", help="trained with use_new_attention_order")
    args = parser.parse_args(rest)
    out = _checked_out(args.out)
    found = released.read_released(args.checkpoint)
    options, source = _release_options(args)
    network = layout.infer_network(
        released.shapes_of(found.net), args.checkpoint, args.num_head_channels, args.new_attention_order
    )
    ours = tasks.bridge_configuration(options, network.get("cond_channels", 0), source)
    ours["network_g"] = network
    ours["released"] |= {"ema_decay": found.decay, "ema_updates": found.updates}
    released.write_weights(out, found.net, found.ema, ours, released.LICENCE)
    file = out.with_suffix(".yml")
    file.write_text(tasks.option_file(ours, out, file), encoding="utf-8")
    print(f"wrote {out}: {len(found.ema)} averaged tensors, task {ours['released']['corrupt']}, settings from {source}")
    print(released.LICENCE)
    print(f"test it: basicsr test -opt {file}")
    return 0


def export_i2sb(rest: list[str]) -> int:
    """Run ``basicsr export-i2sb``: from a file of ours to the release's ``latest.pt`` (and ``options.pkl``).

    Raises:
        InputError: The file is missing, damaged or no ``ADMUNet``.

    """
    parser = argparse.ArgumentParser(prog="basicsr export-i2sb", description="Write the layout of I2SB's release.")
    parser.add_argument("file", help="imported .safetensors or .pth, or net_g_*.pth of a training run with ADMUNet")
    parser.add_argument("-o", dest="out", required=True, metavar="latest.pt", help="file to write")
    _add_head_channels(parser)
    args = parser.parse_args(rest)
    out = Path(args.out)
    weights = released.read_weights(args.file, args.num_head_channels)
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_save(released.release_layout(weights), out)
    print(f"wrote {out}: {len(weights.net)} tensors and their average; the optimiser starts anew")
    beside = out.with_name("options.pkl")
    if "released" not in weights.configuration:
        print(
            f"{args.file} does not say what bridge it was trained on: write options.pkl yourself. The release walks "
            "its own grid: weights trained with bridge.schedule: released fit it, those of one_clock do not"
        )
    elif not beside.exists():
        run = out.resolve().parent.name
        options = argparse.Namespace(**tasks.release_options(weights.configuration, run))
        beside.write_bytes(pickle.dumps(options, protocol=4))
        print(f"wrote {beside}")
    return 0


def import_adm(rest: list[str]) -> int:
    """Run ``basicsr import-adm``: from ADM's unconditional weights to the start of a training run.

    Raises:
        InputError: The file is missing, damaged or no unconditional U-Net of ADM.

    """
    parser = argparse.ArgumentParser(
        prog="basicsr import-adm", description="Make a training run's first weights out of ADM's unconditional ones."
    )
    parser.add_argument("file", help="256x256_diffusion_uncond.pt")
    parser.add_argument("-o", dest="out", required=True, metavar="OUT", help="file to write: .safetensors or .pth")
    parser.add_argument("--cond-channels", type=int, default=0, help="channels of the condition; 3 with bridge.cond_x1")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights that the condition needs")
    _add_head_channels(parser)
    args = parser.parse_args(rest)
    out = _checked_out(args.out)
    state, network = released.adm_initialisation(args.file, args.cond_channels, args.seed, args.num_head_channels)
    licence = "Made from ADM's weights (openai/guided-diffusion, MIT)."
    released.write_weights(out, None, state, {"network_g": network}, licence)
    print(f"wrote {out}: start a training run from it with path.pretrain_network_g and these options:")
    print(f"network_g: {network}")
    return 0


def _add_head_channels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--num-head-channels",
        type=int,
        default=layout.ADM_HEAD_CHANNELS,
        metavar="N",
        help="channels of an attention head, which the weights do not tell (default: 64, as in ADM's 256x256 network)",
    )


def _checked_out(name: str) -> Path:
    if not name.endswith((".safetensors", ".pth")):
        raise InputError(f"-o {name}: give a name that ends in .safetensors, or in .pth for BasicSR's layout")
    return Path(name)


def _release_options(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The run's options and where they come from: the file given, the one beside the checkpoint, or --corrupt."""
    if args.corrupt is not None:
        if args.options is not None:
            raise InputError(f"--corrupt {args.corrupt} and {args.options} are both given; keep one of them")
        return tasks.paper_options(args.corrupt), f"the paper's {args.corrupt}"
    beside = Path(args.checkpoint).with_name("options.pkl")
    if args.options is None and not beside.is_file():
        raise InputError(
            f"no options.pkl beside {args.checkpoint}: give its path, or the task as --corrupt, which takes the "
            f"paper's settings; known: {', '.join(tasks.TASKS)}"
        )
    path = args.options or str(beside)
    return load_namespace(path), path
