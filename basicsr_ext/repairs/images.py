"""Repairs to the reading and showing of images: errors that name the file, and no change of the caller's tensor."""

import ctypes
import functools
import os
import weakref
from collections.abc import Iterable
from multiprocessing import sharedctypes
from pathlib import PurePosixPath
from typing import Any

import cv2
import numpy as np
import torch
from basicsr.data import data_util, degradations
from basicsr.data.realesrgan_dataset import RealESRGANDataset
from basicsr.data.single_image_dataset import SingleImageDataset
from basicsr.data.transforms import mod_crop
from basicsr.utils import file_client, img_util, lmdb_util, scandir
from basicsr.utils.logger import get_root_logger

from basicsr_ext.common.errors import InputError
from basicsr_ext.common.text import listed
from basicsr_ext.images.arrays import to_bgr
from basicsr_ext.images.content import read_content
from basicsr_ext.images.decode import decode_pixels, read_pixels
from basicsr_ext.images.inventory import Inventory, Paths, images_below, listed_files, listed_keys, same_letters
from basicsr_ext.images.results import write_pixels
from basicsr_ext.repairs.repair import Repairs, unrepaired
from basicsr_ext.training import loop_state

REPAIRS = Repairs()

# said already: 16 bits, alpha, not finite; shared with forked workers, which are started anew for every epoch
_said = sharedctypes.RawArray(ctypes.c_bool, 3)


class NamedBytes(bytes):
    """Bytes of a file that know where they come from."""

    path: str = ""


def _warn_once(kind: int, message: str) -> None:
    if not _said[kind]:
        _said[kind] = True
        get_root_logger().warning(message)


@REPAIRS.replaces(file_client.FileClient, "get", "file-names",
                  "Bytes that the file client reads do not say where they come from, so that no error can name the "
                  "file.", "NamedBytes", absent=True)  # fmt: skip
def _get(self: Any, filepath: str, client_key: str = "default") -> Any:
    """Read a file or an LMDB entry; the bytes carry its name. InputError if the LMDB has no such key."""
    place = str(filepath)
    if self.backend == "lmdb":
        place = f"{dict(zip(self.client._client, self.client.db_paths)).get(client_key)} key {filepath}"
    try:
        content = unrepaired(_get)(self, filepath, client_key)
    except Exception as error:
        if not isinstance(error, UnicodeEncodeError) and type(error).__module__.partition(".")[0] != "lmdb":
            raise  # LMDB, which only those who read it have, wants keys of ASCII
        raise InputError(f"{place} cannot be read: {error}; write the LMDB again") from error
    if self.backend == "lmdb" and content is None:
        raise InputError(f"no such image: {place}; write the LMDB and its meta_info.txt again")
    if isinstance(content, bytes):
        content = NamedBytes(content)
        content.path = place
    return content


_environments: weakref.WeakValueDictionary[tuple, Any] = weakref.WeakValueDictionary()


@REPAIRS.replaces(file_client.LmdbBackend, "__init__", "shared-lmdb",
                  "An LMDB that two data sets read, or a worker after its parent, is refused as already open.",
                  "= lmdb.open(")  # fmt: skip
def _lmdb_init(self: Any, db_paths: str | list[str], client_keys: str | list[str] = "default", **kwargs: Any) -> None:
    """Open LMDB folders, sharing those that are open in this process.

    A handle that came with a fork is closed first, which leaves the parent's alone: LMDB allows one in a process.
    """
    keys = [client_keys] if isinstance(client_keys, str) else list(client_keys)
    self.db_paths = [str(p) for p in db_paths] if isinstance(db_paths, list) else [str(db_paths)]
    if len(keys) != len(self.db_paths):
        raise InputError(
            f"io_backend: {len(self.db_paths)} LMDB folders ({self.db_paths}) for the keys {keys}; give one for each"
        )
    options = {"readonly": True, "lock": False, "readahead": False, **kwargs}
    self._client = {key: _open_lmdb(path, options) for key, path in zip(keys, self.db_paths)}


def _open_lmdb(path: str, options: dict[str, Any]) -> Any:
    import lmdb  # only those who read LMDB need it

    key = (os.getpid(), os.path.realpath(path), *sorted(options.items()))
    environment = _environments.get(key)
    if environment is None:
        for inherited in [one for other, one in _environments.items() if other[1:] == key[1:]]:
            inherited.close()
        try:
            environment = lmdb.open(path, **options)
        except lmdb.Error as error:
            raise InputError(f"cannot open the LMDB {path}: {error}; it must be a folder with data.mdb") from error
        _check_whole(path, environment)
        _environments[key] = environment
    return environment


def _check_whole(path: str, environment: Any) -> None:
    """Refuse an LMDB that is cut short: reading beyond its end would kill the process without a word."""
    file = os.path.join(path, "data.mdb")
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    found = os.path.getsize(file) if os.path.isfile(file) else needed
    if found < needed:
        environment.close()
        raise InputError(f"the LMDB {path} is truncated ({found:,} of {needed:,} bytes); copy or write it again")


@REPAIRS.replaces(img_util, "imfrombytes", "image-errors",
                  "A damaged image ends in \"'NoneType' object has no attribute 'astype'\", one cut short is filled "
                  "with grey, and 16 bits or alpha are dropped without a word.", "raise", absent=True)  # fmt: skip
def imfrombytes(content: bytes, flag: str = "color", float32: bool = False) -> np.ndarray:
    """Decode an image by :mod:`basicsr_ext.images.decode`, turned as its EXIF orientation says.

    ``flag`` is ``color`` (H,W,3, BGR), ``grayscale`` (H,W), both uint8, or ``unchanged`` (H,W or H,W,3 or 4);
    ``float32`` divides by 255. If the content is empty, cut short, no image or of a kind that is refused, InputError
    names the file, provided that the bytes come from BasicSR's file client.
    """
    place = (content.path if isinstance(content, NamedBytes) else "") or "image"
    pixels = decode_pixels(content, place)
    if flag == "unchanged":
        image = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    else:
        if pixels.dtype == np.uint16:
            _warn_once(0, f"{place} has 16 bits a channel and is read with 8; so are others like it.")
        if pixels.shape[2] == 4:
            _warn_once(1, f"{place} has an alpha channel, which is dropped; so are others like it.")
        image = to_bgr(pixels)
        if flag == "grayscale":
            image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if pixels.shape[2] > 1 else image[:, :, 0]
    return image.astype(np.float32) / 255.0 if float32 else np.require(image, requirements=["C", "W"])


@REPAIRS.replaces(data_util, "read_img_seq", "frames",
                  "Frames of a video are read unlike other images, and a damaged one ends in an AttributeError.",
                  "cv2.imread")  # fmt: skip
def _read_img_seq(
    path: str | list[str], require_mod_crop: bool = False, scale: int = 1, return_imgname: bool = False
) -> Any:
    """Read frames (their paths, or a folder of nothing else) as ``imfrombytes`` does: t,c,h,w in [0, 1], RGB."""
    paths = path if isinstance(path, list) else sorted(scandir(path, full_path=True))
    frames = []
    for place in paths:
        content = NamedBytes(read_content(place))
        content.path = str(place)
        frame = imfrombytes(content, float32=True)
        frames.append(mod_crop(frame, scale) if require_mod_crop else frame)
    planes = torch.stack(img_util.img2tensor(frames))
    return (planes, [os.path.splitext(os.path.basename(place))[0] for place in paths]) if return_imgname else planes


@REPAIRS.replaces(lmdb_util, "read_img_worker", "packed-images",
                  "BasicSR's maker of LMDBs reads images unlike the data sets.", "cv2.imread")  # fmt: skip
def _read_img_worker(path: str, key: str, compress_level: int) -> tuple[str, Any, tuple[int, ...]]:
    """Return key, PNG and H,W,C of an image; InputError naming it if it is damaged or refused."""
    pixels = read_pixels(path)
    content = cv2.imencode(".png", np.ascontiguousarray(pixels), [cv2.IMWRITE_PNG_COMPRESSION, compress_level])[1]
    return key, content, pixels.shape


def _clamps_in_place() -> bool:
    probe = torch.full((1, 2, 2), 2.0)
    img_util.tensor2img(probe)
    return bool(probe.max() < 2)


@REPAIRS.replaces(img_util, "tensor2img", "tensor2img-copy", "tensor2img clamps the caller's tensor in place.",
                  _clamps_in_place)  # fmt: skip
def _tensor2img(tensor: Any, rgb2bgr: bool = True, out_type: type = np.uint8, min_max: tuple = (0, 1)) -> Any:
    if torch.is_tensor(tensor):
        tensor = [tensor]
    if isinstance(tensor, list) and all(torch.is_tensor(t) for t in tensor):
        tensor = [t.detach().clone() for t in tensor]
        if not all(torch.isfinite(t).all() for t in tensor):
            _warn_once(2, "An image holds NaN or infinite values, which are shown as black or white.")
    return unrepaired(_tensor2img)(tensor, rgb2bgr, out_type, min_max)


@REPAIRS.replaces(img_util, "imwrite", "results-written",
                  "Images of one name in different folders overwrite each other; one that cannot be written ends the "
                  "run without its name and cause, or by a segmentation fault if its name is no UTF-8.",
                  "raise IOError('Failed in writing images.')")  # fmt: skip
def _imwrite(img: np.ndarray, file_path: str, params: Any = None, auto_mkdir: bool = True) -> bool:
    """Write an image whole or not at all; in a validation to its own place, and none that cannot be saved ends it."""
    run = loop_state.current()
    try:
        write_pixels(run.results.place(file_path) if run.results else file_path, img, params)
    except InputError as error:
        if run.results is None:
            raise
        run.not_saved(error, run.results.is_train)
        return False
    return True


@REPAIRS.replaces(degradations, "add_jpg_compression", "jpeg-quality",
                  "add_jpg_compression passes a fractional quality, which OpenCV refuses.",
                  "IMWRITE_JPEG_QUALITY), quality]")  # fmt: skip
def _add_jpg_compression(img: np.ndarray, quality: float = 90) -> np.ndarray:
    return unrepaired(_add_jpg_compression)(img, round(float(quality)))


@REPAIRS.replaces(data_util, "paired_paths_from_meta_info_file", "listed-names",
                  "A list of images (meta_info_file) ends a name at its first space, and takes a byte-order mark into "
                  "the first.", "split(' ')[0]")  # fmt: skip
def _pairs_of_a_list(folders: list[str], keys: list[str], meta_info_file: str, filename_tmpl: str) -> list[dict]:
    gt = listed_files(folders[1], meta_info_file, "meta_info_file")
    lq = [str(_partner(PurePosixPath(name), filename_tmpl)) for name in gt]
    if not all(os.path.isfile(os.path.join(folders[0], name)) for name in lq):  # BasicSR's lists have no sub-folders
        there = {same_letters(name): str(name) for _, name in images_below(folders[0]).files}
        lq = [there.get(same_letters(name), os.path.basename(name)) for name in lq]
    places = ([os.path.join(*place) for place in zip(folders, pair)] for pair in zip(lq, gt))
    return [{f"{key}_path": path for key, path in zip(keys, place)} for place in places]


@REPAIRS.replaces(data_util, "paired_paths_from_lmdb", "listed-keys",
                  "The keys of an LMDB end at the first dot of a line of its meta_info.txt, and what differs between "
                  "two LMDBs is not said.", "split('.')[0]")  # fmt: skip
def _pairs_of_lmdbs(folders: list[str], keys: list[str]) -> list[dict]:
    lq, gt = (listed_keys(folder, f"dataroot_{key}") for folder, key in zip(folders, keys))
    if other := sorted(set(lq) ^ set(gt)):
        raise InputError(f"the LMDBs {' and '.join(folders)} must have the same keys, but only one has {listed(other)}")
    return [{f"{key}_path": name for key in keys} for name in sorted(gt)]


# ---- which files there are: BasicSR's data sets find what all others find


@REPAIRS.replaces(data_util, "paired_paths_from_folder", "paired-folders",
                  "Folders of pairs are searched without their sub-folders, files that are no images are taken for "
                  "some, and broken links are passed over without a word.", "scandir")  # fmt: skip
def _pairs_of_folders(folders: list[str], keys: list[str], filename_tmpl: str) -> Paths:
    """Pair the images of ``folders`` (lq, gt) by name; InputError lists those that have no partner."""
    found = [images_below(folder) for folder in folders]
    there_lq = {same_letters(name): str(name) for _, name in found[0].files}
    partners = [(same_letters(_partner(name, filename_tmpl)), str(name)) for _, name in found[1].files]
    taken = {there_lq.get(lq) for lq, _ in partners}
    lonely = [[str(name) for _, name in found[0].files if str(name) not in taken],
              [gt for lq, gt in partners if lq not in there_lq]]  # fmt: skip
    said = [
        f"{len(alone)} in dataroot_{key} ({folder}) without a partner: {listed(alone, 5)}"
        for key, folder, alone in zip(keys, folders, lonely)
        if alone
    ]
    if said:
        rule = f"LQ and GT do not match by name (filename_tmpl {filename_tmpl!r})"
        raise InputError("; ".join([rule, *said]))
    places = [(os.path.join(folders[0], there_lq[lq]), os.path.join(folders[1], gt)) for lq, gt in partners]
    return _with_left_out(({f"{key}_path": path for key, path in zip(keys, place)} for place in places),
                          keys, found)  # fmt: skip


def _partner(name: PurePosixPath, filename_tmpl: str) -> PurePosixPath:
    stem, extension = os.path.splitext(name.name)
    return name.parent / f"{filename_tmpl.format(stem)}{extension}"


def _with_left_out(paths: Iterable[Any], keys: list[str], found: list[Inventory]) -> Paths:
    made = Paths(paths)
    made.left_out = [f"dataroot_{key}: {there}" for key, there in zip(keys, found) if there.left_out]
    return made


@REPAIRS.cures("single-images",
               "SingleImageDataset and RealESRGANDataset end a listed name at its first space and take a byte-order "
               "mark into the first; without a list, files that are no images are taken for some.",
               lambda: "__wrapped__" not in vars(SingleImageDataset.__init__))  # fmt: skip
def _repair_single_images() -> None:
    _find_by_inventory(SingleImageDataset, "lq", "meta_info_file")
    _find_by_inventory(RealESRGANDataset, "gt", "meta_info")


def _find_by_inventory(cls: Any, key: str, option: str) -> None:
    init = cls.__init__

    @functools.wraps(init)
    def find(self: Any, opt: dict[str, Any]) -> None:
        on_disk, folder = opt["io_backend"]["type"] == "disk", opt[f"dataroot_{key}"]
        keys = [] if on_disk else listed_keys(folder, f"dataroot_{key}")
        init(self, {**opt, option: os.devnull} if on_disk else opt)  # an empty list
        self.opt = opt
        if not on_disk:
            self.paths = keys
        elif opt.get(option):
            self.paths = [os.path.join(folder, name) for name in listed_files(folder, opt[option], option)]
        else:
            there = images_below(folder)
            self.paths = _with_left_out((str(path) for path, _ in there.files), [key], [there])

    cls.__init__ = find
