"""``basicsr check --data``: decode every image of every data set, in parallel, and report all that cannot be used."""

from collections.abc import Mapping
from typing import Any

from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from basicsr_ext.common import registries
from basicsr_ext.common.contracts import DatasetContract
from basicsr_ext.common.errors import InputError
from basicsr_ext.preflight.data import files_of, left_out


def data_faults(where: str, block: Mapping[str, Any], workers: int) -> tuple[int, list[str]]:
    """Read every image of the data set that ``block`` (resolved options) describes; its number of images, and faults.

    A data set of ours is asked to ``read`` them, without cropping or degrading; of others the whole item is made.
    ``skip_bad`` is set aside. Shows a progress bar on stderr.
    """
    options = {key: value for key, value in block.items() if key != "skip_bad"}
    try:
        dataset = registries.find(DATASET_REGISTRY, block["type"])(options)  # type: ignore[misc]
        count = len(dataset)
    except Exception as error:  # a data set of a stranger may refuse its folders in whatever way it likes
        return 0, [_said(where, error)]
    if count == 0:
        return 0, [f"{where} has no images; correct its folders"]
    for line in left_out(dataset):
        print(f"note: {where}.{line}")
    reader, faults, done = _Reader(dataset), [], 0
    settings: dict[str, Any] = {"batch_size": None, "num_workers": min(workers, count), "worker_init_fn": _one_thread}
    try:
        for fault in tqdm(DataLoader(reader, **settings), total=count, unit="image", desc=where):
            done += 1
            faults += [f"{where}: {fault}"] if fault else []
    except RuntimeError as error:  # a worker was killed: no exception of the image's reader comes this far
        nearby = ", ".join(reader.name(k) for k in range(done, min(count, done + 2 * workers)))
        faults.append(
            f"{where}: a process died while it read one of {nearby} ({str(error).splitlines()[0]}); "
            "look at these, and replace or remove what is damaged"
        )
    return count, list(dict.fromkeys(faults))


class _Reader(Dataset[str]):
    """The images of a data set as messages: what is wrong with each, or an empty text."""

    def __init__(self, dataset: Any) -> None:
        self._dataset, self._files = dataset, files_of(dataset)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> str:
        try:
            self._dataset.read(index) if isinstance(self._dataset, DatasetContract) else self._dataset[index]
        except Exception as error:  # whatever it is, the next image is read all the same
            return _said(self.name(index), error)
        return ""

    def name(self, index: int) -> str:
        """The file of an image, as far as the data set tells."""
        files = self._files[index] if index < len(self._files) else {}
        return list(files.values())[-1] if files else f"image {index}"


def _one_thread(_: int) -> None:
    import cv2

    cv2.setNumThreads(0)


def _said(name: str, error: Exception) -> str:
    text = str(error) or type(error).__name__
    if name in text:
        return text
    return f"{name}: {text}" if isinstance(error, InputError) else f"{name}: {type(error).__name__}: {text}"
