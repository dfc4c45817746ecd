"""Read a zoo of image files by every reader there is, and compare what each sees with the known pixels.

Commands run here as a user runs them; what they write is read by OpenCV. A file that is refused must be named.

    python -m studies.reliability.inputs.zoo
"""

import argparse
import contextlib
import io
import json
import logging
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import lmdb
import numpy as np
import tifffile
import torch
import yaml

from basicsr_ext import cli, repairs
from basicsr_ext.common import plugins
from basicsr_ext.common.errors import InputError
from basicsr_ext.images.decode import decode
from basicsr_ext.images.headers import image_header
from studies.reliability.inputs.campaign import RESULTS
from studies.reliability.inputs.zoo_files import TOLERANCE, File, zoo

Seen = np.ndarray | tuple[int, ...] | str  # pixels, a header, or the message of a refusal
READ = (1,)  # what is seen of a file by a reader that shows no pixels
_NETWORK = {"type": "Interpolation", "scale": 1, "mode": "bicubic"}
_PACKAGES = ("numpy", "opencv-python", "pillow", "tifffile", "imagecodecs")


class Reader(NamedTuple):
    """``see`` reads files of one folder; ``view`` is what it should see of the known pixels."""

    see: Callable[[Path, Sequence[str], Path], dict[str, Seen]]
    view: Callable[[np.ndarray], Seen]
    holds: Callable[[np.ndarray], bool] = lambda pixels: True  # what it takes by its own rules


# ---- what of the known pixels is seen: RGB(A), grey


def _counted(pixels: np.ndarray) -> np.ndarray:
    """Data sets count 1, 3 or 4 channels."""
    return pixels[:, :, [0, 0, 0, 1]] if pixels.shape[2] == 2 else pixels


def _whole(pixels: np.ndarray) -> np.ndarray:
    """Everything, as uint16."""
    return _counted(pixels) * np.uint16(257) if pixels.dtype == np.uint8 else _counted(pixels)


def _visible(pixels: np.ndarray) -> np.ndarray:
    """The same with black under full transparency."""
    whole = _whole(pixels)
    return np.where(whole[:, :, 3:] > 0, whole, 0) if whole.shape[2] == 4 else whole


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    return _whole(np.round(_whole(pixels) / 257).astype(np.uint8))


def _colour(pixels: np.ndarray) -> np.ndarray:
    """As BasicSR reads: 8 bits, RGB."""
    top = (_whole(pixels) >> 8).astype(np.uint8)
    return _whole(top[:, :, :3] if top.shape[2] > 2 else np.repeat(top, 3, 2))


def _of_tensor(planes: torch.Tensor) -> np.ndarray:
    return (planes.double() * 65535).round().numpy().astype(np.uint16).transpose(1, 2, 0)


def _of_opencv(pixels: np.ndarray) -> np.ndarray:
    pixels = pixels if pixels.ndim == 3 else pixels[:, :, None]
    return _whole(pixels[:, :, {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[pixels.shape[2]]])


# ---- readers


def _each(read: Callable[[Path], Seen]) -> Callable[[Path, Sequence[str], Path], dict[str, Seen]]:
    """A reader of single files."""

    def see(folder: Path, names: Sequence[str], work: Path) -> dict[str, Seen]:
        return {name: _or_message(lambda name=name: read(folder / name)) for name in names}

    return see


def _or_message(read: Callable[[], Seen]) -> Seen:
    try:
        return read()
    except InputError as error:
        return str(error)


def _decoded(path: Path) -> np.ndarray:
    return _of_opencv(_counted(decode(path.read_bytes(), str(path))[0]))


def _header(path: Path) -> tuple[int, ...]:
    return tuple(image_header(path)[:4])


def _frame(path: Path) -> np.ndarray:
    from basicsr.data.data_util import read_img_seq

    return _of_tensor(read_img_seq([str(path)])[0])


def _packed(path: Path) -> np.ndarray:
    from basicsr.utils.lmdb_util import read_img_worker

    _, content, shape = read_img_worker(str(path), "key", 1)
    return _of_opencv(cv2.imdecode(content, cv2.IMREAD_UNCHANGED).reshape(shape))


def _metric(path: Path) -> np.ndarray:
    from basicsr_ext.images.arrays import to_bgr
    from basicsr_ext.images.decode import read_pixels

    return _of_opencv(to_bgr(read_pixels(path)))


def _api(path: Path) -> np.ndarray:
    from i2sb_plugin.api import Restorer

    _checkpoint(path.parent.parent / "bicubic.pth")
    pixels = Restorer.load(path.parent.parent / "bicubic.pth")(path)
    return _visible(pixels if pixels.ndim == 3 else pixels[:, :, None])


def _checkpoint(path: Path) -> Path:
    """A network that gives back what it is given."""
    config = {"name": "same", "model_type": "RestorationModel", "scale": 1, "network_g": _NETWORK}
    torch.save({"params": {}, "config": json.dumps(config)}, path)
    return path


def _block(kind: str, folder: Path, phase: str) -> dict[str, Any]:
    block = {"name": "set", "type": kind, "phase": phase, "scale": 1, "dataroot_gt": str(folder)}
    if kind == "PairedDegradationDataset":
        channels = int(folder.name[-1]) if folder.name.startswith("channels") else 3
        return block | {"degradation": {"type": "noise_gauss", "sigma": 0.0}, "channels": channels}
    return block | {"dataroot_lq": str(folder), "io_backend": {"type": "disk"}}


def _dataset(kind: str, phase: str) -> Callable[[Path, Sequence[str], Path], dict[str, Seen]]:
    """A data set whose clean and degraded images are the same files."""

    def see(folder: Path, names: Sequence[str], work: Path) -> dict[str, Seen]:
        from basicsr.data import build_dataset

        block = _block(kind, folder, phase)
        if phase == "train":
            block |= {"gt_size": 6, "use_hflip": False, "use_rot": False}
        try:
            dataset = build_dataset(block)
        except InputError as error:
            return {name: str(error) for name in names}
        order = [Path(path["gt_path"] if isinstance(path, Mapping) else path).name for path in dataset.paths]
        return {name: _or_message(lambda k=k: _item(dataset[k])) for k, name in enumerate(order)}

    return see


def _item(item: Mapping[str, Any]) -> np.ndarray:
    seen = [_of_tensor(item[key]) for key in ("lq", "gt") if key in item]
    if any(not np.array_equal(seen[0], other) for other in seen):
        raise AssertionError(f"{item['lq_path']}: lq and gt differ")
    return seen[-1]


def _run(*words: object) -> str:
    """Run a command; what it said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        cli.main([str(word) for word in words])
    return said.getvalue()


def _written_pixels(path: Path) -> np.ndarray:
    if path.suffix == ".tif":  # of which OpenCV drops the alpha of grey
        pixels = tifffile.imread(path)
        return _whole(pixels if pixels.ndim == 3 else pixels[:, :, None])
    return _of_opencv(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))


def _differs(pixels: np.ndarray, path: Path) -> bool:
    return not np.array_equal(_of_opencv(pixels), _written_pixels(path))


def _results(names: Sequence[str], said: str, files: Callable[[str], list[Path]]) -> dict[str, Seen]:
    """The pictures that a command made of each file, which must be the same, or else what it said of the file."""
    found: dict[str, Seen] = {}
    for name in names:
        made = [path for path in files(Path(name).stem) if path.is_file()]
        lines = [line for line in said.splitlines() if name in line]
        pixels = [_written_pixels(path) for path in made]
        if any(not np.array_equal(pixels[0], other) for other in pixels):
            raise AssertionError(f"{name}: {made} differ")
        found[name] = pixels[0] if pixels else " ".join(lines)
    return found


def _prepare(kind: str) -> Callable[[Path, Sequence[str], Path], dict[str, Seen]]:
    def see(folder: Path, names: Sequence[str], work: Path) -> dict[str, Seen]:
        from i2sb_plugin.data.image_source import ImageSource

        chosen, packed = work / "chosen", work / "packed.lmdb"
        chosen.mkdir()
        for name in names:
            (chosen / name).write_bytes((folder / name).read_bytes())
        said = _run("prepare", "-i", chosen, "-o", packed, "--to", kind, "--workers", 1)
        if kind != "folder" and packed.is_dir():
            with lmdb.open(str(packed), readonly=True, lock=False) as environment, environment.begin() as stored:
                for key, content in stored.cursor():
                    (packed / f"{key.decode()}.png").write_bytes(content)
            source = ImageSource(str(packed), "dataroot_gt", {"type": "lmdb"})
            if other := [key for key in source.names if _differs(source.load(key), packed / f"{key}.png")]:
                raise AssertionError(f"a data set sees other pixels in {packed}: {other}")
        return _results(names, said, lambda stem: [packed / f"{stem}.png"])

    return see


def _check(folder: Path, names: Sequence[str], work: Path) -> dict[str, Seen]:
    said = _run("check", "-opt", _option_file(folder, work), "--data")
    faults = {name: [line for line in said.splitlines() if line.startswith(" ") and name in line] for name in names}
    return {name: "; ".join(lines) if lines else READ if "fault(s)" in said else said for name, lines in faults.items()}


def _test(folder: Path, names: Sequence[str], work: Path) -> dict[str, Seen]:
    said = _run("test", "-opt", _option_file(folder, work))
    return _results(names, said, lambda stem: [work / f"zoo/visualization/set/{stem}_zoo.png"])


def _option_file(folder: Path, work: Path) -> Path:
    opt = {"name": "zoo", "model_type": "RestorationModel", "scale": 1, "num_gpu": 0, "manual_seed": 0,
           "network_g": _NETWORK, "path": {"results_root": str(work)},
           "val": {"save_img": True, "metrics": None}}  # fmt: skip
    block = _block("PairedFolderDataset", folder, "test")
    opt["datasets"] = {"test": {key: value for key, value in block.items() if key not in ("phase", "scale")}}
    path = work / "zoo.yml"
    path.write_text(yaml.safe_dump(opt))
    return path


def _benchmark(folder: Path, names: Sequence[str], work: Path) -> dict[str, Seen]:
    """The inputs, the restored images, and those of a folder that was restored elsewhere."""
    block = _block("PairedFolderDataset", folder, "test")
    opt = {
        "name": "bench",
        "scale": 1,
        "num_gpu": 0,
        "results_root": str(work),
        "datasets": {"set": {key: value for key, value in block.items() if key not in ("phase", "scale")}},
        "methods": {"bicubic": {"interpolation": "bicubic"}, "elsewhere": {"folder": str(folder)}},
        "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}},
    }
    (work / "bench.yml").write_text(yaml.safe_dump(opt))
    said = _run("benchmark", "-opt", work / "bench.yml")
    places = ("inputs/set/gt", "inputs/set/lq", "restored/bicubic/set", "restored/elsewhere/set")
    return _results(names, said, lambda stem: [work / f"bench/{place}/{stem}.png" for place in places])


def _restore(kind: str) -> Callable[[Path, Sequence[str], Path], dict[str, Seen]]:
    def see(folder: Path, names: Sequence[str], work: Path) -> dict[str, Seen]:
        checkpoint = _checkpoint(work / "same.pth")
        said = _run("restore", "-i", folder, "-o", work / "out", "--checkpoint", checkpoint, "--format", kind)
        seen = _results(names, said, lambda stem: [work / f"out/{stem}.{kind}"])
        return {name: one if isinstance(one, str) else _visible(one) for name, one in seen.items()}

    return see


def _raw_holds(pixels: np.ndarray) -> bool:
    return pixels.dtype == np.uint8 and pixels.shape[2] in (1, 3)


READERS = {
    "header": Reader(_each(_header), lambda pixels: (*pixels.shape, 8 * pixels.itemsize)),
    "decoder": Reader(_each(_decoded), _whole),
    "training, PairedFolderDataset": Reader(_dataset("PairedFolderDataset", "train"), _whole),
    "training, PairedDegradationDataset": Reader(_dataset("PairedDegradationDataset", "train"), _whole),
    "validation, PairedFolderDataset": Reader(_dataset("PairedFolderDataset", "val"), _whole),
    "validation, PairedDegradationDataset": Reader(_dataset("PairedDegradationDataset", "val"), _whole),
    "validation, BasicSR's PairedImageDataset": Reader(_dataset("PairedImageDataset", "val"), _colour),
    "test, BasicSR's SingleImageDataset": Reader(_dataset("SingleImageDataset", "test"), _colour),
    "validation, BasicSR's frames of videos": Reader(_each(_frame), _colour),
    "BasicSR's maker of LMDBs": Reader(_each(_packed), _whole),
    "test": Reader(_test, _eight_bits),
    "prepare --to folder": Reader(_prepare("folder"), _whole),
    "prepare --to lmdb": Reader(_prepare("lmdb"), _whole),
    "prepare --to raw": Reader(_prepare("raw"), _whole, _raw_holds),
    "check --data": Reader(_check, lambda pixels: READ),
    "restore": Reader(_restore("png"), _visible),
    "restore --format tif": Reader(_restore("tif"), _visible),
    "Restorer in Python": Reader(_each(_api), _visible),
    "benchmark": Reader(_benchmark, _eight_bits),
    "metrics of sets, sheets of pictures": Reader(_each(_metric), _colour),
}


# ---- what is compared


def is_wrong(seen: Seen, wanted: Seen, levels: int = 0) -> bool:
    """Whether pixels, or a part of them, are further than so many of 255 levels from those that are wanted."""
    if not isinstance(seen, np.ndarray) or not isinstance(wanted, np.ndarray):
        return isinstance(seen, np.ndarray) or isinstance(wanted, np.ndarray) or seen != wanted
    (height, width, channels), (whole_height, whole_width, wanted_channels) = seen.shape, wanted.shape
    if channels != wanted_channels or height > whole_height or width > whole_width:
        return True
    parts = np.lib.stride_tricks.sliding_window_view(wanted, seen.shape).reshape(-1, *seen.shape)
    return all(np.abs(part.astype(int) - seen).max() > 257 * levels for part in parts)


def _folders(files: Sequence[File], root: Path) -> Iterator[tuple[Path, list[File]]]:
    """Files written into folders: those of one number of channels together, those that are refused each alone."""
    for channels in (1, 3, 4):
        alike = [f for f in files if f.pixels is not None and _counted(f.pixels).shape[2] == channels]
        yield _written(root / f"channels{channels}", alike), alike
    for file in files:
        if file.pixels is None:
            yield _written(root / f"refused-{Path(file.name).stem}", [file]), [file]


def _written(folder: Path, files: Sequence[File]) -> Path:
    folder.mkdir(parents=True)
    for file in files:
        (folder / file.name).write_bytes(file.content)
    return folder


def compare(files: Sequence[File], root: Path, readers: Mapping[str, Reader] = READERS) -> dict[str, dict[str, Any]]:
    """What each reader made of the files: counts, and the names of those that it saw otherwise than it should."""
    repairs.apply()
    plugins.load_entry_points()
    table: dict[str, dict[str, Any]] = {
        name: {"read": 0, "refused": 0, "wrong": [], "disagrees": []} for name in readers
    }
    for folder, alike in _folders(files, root / "files"):
        decoded = {file.name: _decoded(folder / file.name) for file in alike if file.pixels is not None}
        for number, (name, reader) in enumerate(readers.items()):
            held = [file for file in alike if file.pixels is None or reader.holds(file.pixels)]
            work = root / f"{folder.name}-{number}"
            work.mkdir()
            seen = reader.see(folder, [file.name for file in held], work) if held else {}
            for file in held:
                _judge(table[name], file, seen.get(file.name, "nothing said"), reader, decoded)
    return table


def _judge(row: dict[str, Any], file: File, seen: Seen, reader: Reader, decoded: Mapping[str, np.ndarray]) -> None:
    if file.pixels is None:
        named = isinstance(seen, str) and re.search(f"{re.escape(Path(file.name).stem)}.*({file.why})", seen, re.DOTALL)
        row["refused"] += bool(named)
        row["disagrees"] += [] if named else [f"{file.name}: {seen if isinstance(seen, str) else 'read'}"]
        return
    row["read"] += not isinstance(seen, str)
    if is_wrong(seen, reader.view(file.pixels), TOLERANCE * file.lossy):
        row["wrong"].append(f"{file.name}: {seen if isinstance(seen, (str, tuple)) else seen.shape}")
    if isinstance(seen, np.ndarray) and is_wrong(seen, reader.view(decoded[file.name])):
        row["disagrees"].append(file.name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "zoo.json")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    files = list(zoo())
    with tempfile.TemporaryDirectory() as folder:
        table = compare(files, Path(folder))
    wrong, disagreements = (sum(len(row[key]) for row in table.values()) for key in ("wrong", "disagrees"))
    kinds = {kind: sum(file.name.rpartition("_")[2].startswith(f"{kind}.") for file in files) for kind in
             dict.fromkeys(file.name.rpartition("_")[2].partition(".")[0] for file in files)}  # fmt: skip
    record = {"files": len(files), "readers": len(table), "wrong pixels": wrong, "disagreements": disagreements,
              "kinds": kinds, "python": platform.python_version(),
              "versions": {name: metadata.version(name) for name in _PACKAGES}, "table": table}  # fmt: skip
    args.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{len(files)} files, {len(table)} readers: {disagreements} disagreements, {wrong} wrong pixels")
    return 1 if wrong or disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
