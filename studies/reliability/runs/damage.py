"""Damage the newest save of a run: cut it short, flip bits, wipe ranges; an earlier save must be taken, and said so.

    python -m studies.reliability.runs.damage --flips 1000 --step 1

Cuts are made at every ``step``-th length of every file of the save, flips at random bits over all its bytes. A damage
counts as detected if the search for a state to resume from passes over the save and takes the one before it. The same
flips are made in a lone copy of the network, without a record of checksums: there a flip is refused (CRC-32), or it
fell on a byte without meaning and every weight that is loaded is what was saved.
"""

import argparse
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from basicsr_ext.checkpoints.resumable import newest_resumable
from basicsr_ext.checkpoints.storage import load_weights
from basicsr_ext.common.errors import InputError
from studies.reliability.runs import tiny_runs as tiny


def save_files(root: Path, opt: dict, iteration: int) -> list[Path]:
    """The files of one save: networks, state, record and best metrics."""
    paths = tiny.folders(root, opt)["path"]
    named = [
        *Path(paths["models"]).glob(f"net_*_{iteration}.*"),
        *Path(paths["training_states"]).glob(f"{iteration}.*"),
    ]
    return sorted(named)


def cuts(content: bytes, step: int) -> Iterator[bytes]:
    """The content cut short at every ``step``-th length."""
    return (content[:length] for length in range(0, len(content), step))


def flipped(content: bytes, bit: int) -> bytes:
    """The content with one bit turned over."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)


def wiped(content: bytes, draw: random.Random) -> bytes:
    """The content with a random range of bytes cut out or overwritten by zeros."""
    begin, end = sorted(draw.sample(range(len(content) + 1), 2))
    return content[:begin] + (bytes(end - begin) if draw.random() < 0.5 else b"") + content[end:]


def verdict(here: dict, damaged: int, earlier: int) -> str:
    """What resuming makes of a damaged save."""
    found, said = newest_resumable(here)
    if found is None:
        return "no state found"
    if found.name == f"{damaged}.state":
        return "loaded silently"
    named = any(sentence.startswith(f"passed over {damaged}.state") for sentence in said)
    return "detected, earlier state taken" if found.name == f"{earlier}.state" and named else "another state taken"


def campaign(root: Path, flips: int, step: int, seed: int) -> dict:
    """Train once, damage the last save in every way; counts of what became of it."""
    tiny.write_images(root)
    tiny.warm_up()
    opt = tiny.options(root, "damaged")
    code, _ = tiny.run(root, tiny.write_options(root, opt))
    if code != 0:
        raise RuntimeError(f"the run ended with {code}; see {root}")
    here, newest, earlier = tiny.folders(root, opt), tiny.ITERATIONS, tiny.ITERATIONS - 2
    files, draw = save_files(root, opt, newest), random.Random(seed)
    contents = {path: path.read_bytes() for path in files}
    count = {kind: Counter() for kind in ("cuts", "bit flips", "wiped ranges")}

    def damage(kind: str, path: Path, content: bytes) -> None:
        if content == contents[path]:
            return
        path.write_bytes(content)
        count[kind][verdict(here, newest, earlier)] += 1
        path.write_bytes(contents[path])

    for path in files:
        for content in cuts(contents[path], step):
            damage("cuts", path, content)
    for path in draw.choices(files, [len(contents[p]) for p in files], k=flips):
        damage("bit flips", path, flipped(contents[path], draw.randrange(8 * len(contents[path]))))
        damage("wiped ranges", path, wiped(contents[path], draw))
    if newest_resumable(here)[0].name != f"{newest}.state":
        raise RuntimeError("the save is not whole after it was put right")
    network = next(path for path in files if path.suffix == ".pth")
    lone = {"bit flips in a lone network": lone_flips(root, contents[network], flips, draw)}
    sizes = {path.name: len(content) for path, content in contents.items()}
    return {"seed": seed, "step": step, "bytes": sizes, **{k: dict(v) for k, v in count.items()}, **lone}


def lone_flips(root: Path, content: bytes, flips: int, draw: random.Random) -> dict[str, int]:
    """Flip bits of a network without a record: refused, or loaded with the weights that were saved."""
    path, count = root / "lone.pth", Counter()
    path.write_bytes(content)
    wanted = {key: load_weights(path, key) for key in ("params", "params_ema")}
    for _ in range(flips):
        path.write_bytes(flipped(content, draw.randrange(8 * len(content))))
        try:
            found = {key: load_weights(path, key) for key in wanted}
        except InputError:
            count["refused"] += 1
        else:
            equal = all(tiny.same(found[key], wanted[key]) for key in wanted)
            count["byte without meaning, weights as saved" if equal else "wrong weights loaded silently"] += 1
    return dict(count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=tiny.RESULTS / "damage.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="damage-") as folder:
        tiny.store(args.out, campaign(Path(folder), args.flips, args.step, args.seed))


if __name__ == "__main__":
    main()
