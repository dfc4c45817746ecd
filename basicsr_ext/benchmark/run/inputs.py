"""The images that every method is given, written out once, and the folders that were restored elsewhere."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basicsr_ext.benchmark.run.methods import FolderMethod, Method
from basicsr_ext.benchmark.run.store import GIVEN, Store, save_picture, tensor_digest
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.text import listed
from basicsr_ext.images.headers import image_header
from basicsr_ext.images.results import name_clashes, result_names
from basicsr_ext.processes import collectives


@dataclass(frozen=True)
class Image:
    """One image of a data set: its number there, its name, its size in pixels, digests of what is given and wanted."""

    dataset: str
    index: int
    name: str
    width: int
    height: int
    input_digest: str
    gt_digest: str


def prepare(datasets: dict[str, Any], store: Store) -> list[Image]:
    """Read every image, shared out over the ranks, and write missing ``gt`` and ``lq``, or raises InputError."""
    todo = [(name, k, image) for name, items in datasets.items() for k, image in enumerate(_names(name, items))]
    mine = {k: _prepare(datasets[todo[k][0]], *todo[k], store) for k in collectives.shard_indices(len(todo))}
    found = {k: image for part in collectives.gather_objects(mine) for k, image in part.items()}
    return [found[k] for k in range(len(todo))]


def _prepare(items: Any, dataset: str, index: int, name: str, store: Store) -> Image:
    item = items[index]
    given, wanted = tensor_digest(item, GIVEN), tensor_digest(item, ("gt",))
    for kind, key in (("gt", wanted), ("lq", given)):
        path = store.input(dataset, name, kind)
        if store.read_note(path).get("key") != key or not path.is_file():
            save_picture(path, item[kind])
            store.write_note(path, {"key": key})
    height, width = item["gt"].shape[-2:]
    return Image(dataset, index, name, width, height, given, wanted)


def _names(where: str, dataset: Any) -> list[str]:
    """A name for each image: that of its file; InputError if two have the same."""
    if faults := name_clashes(dataset, "gt"):
        raise InputError(f"datasets: {where}: {listed(faults)}")
    return result_names(dataset, "gt") or [Path(dataset[k]["gt_path"]).stem for k in range(len(dataset))]


def folder_faults(methods: list[Method], images: list[Image]) -> list[str]:
    """What is missing in folders that were restored elsewhere, or has another size than its ground truth."""
    faults = []
    for method in (method for method in methods if isinstance(method, FolderMethod)):
        missing: list[str] = []
        other: list[str] = []
        for image in images:
            found = method.find(image.dataset, image.name)
            if not found:
                missing.append(method.template.format(image.name))
                continue
            if len(found) > 1:
                faults.append(f"methods.{method.name}: {listed(found)} all fit {image.name}; keep one of them")
                continue
            path = found[0]
            try:
                height, width = image_header(path)[:2]
            except InputError as error:
                faults.append(f"methods.{method.name}: {error}")
                continue
            if (height, width) != (image.height, image.width):
                other.append(f"{path.name} {width} x {height} instead of {image.width} x {image.height}")
        where = f"methods.{method.name}: {method.folder}"
        if missing:
            faults.append(f"{where} has no image for {len(missing)} of {len(images)}: {listed(missing, 5)}")
        if other:
            faults.append(f"{where} has {len(other)} image(s) of another size (width x height): {listed(other, 5)}")
    return faults
