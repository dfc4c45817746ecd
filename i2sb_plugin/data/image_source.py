"""Where images come from: a folder, a list of names, or an LMDB, read through BasicSR's file client."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import lmdb
import numpy as np
from basicsr.utils import FileClient

from basicsr_ext.common.errors import InputError, did_you_mean
from basicsr_ext.common.option_blocks import read_block
from basicsr_ext.common.text import listed
from basicsr_ext.images.decode import channel_fault, decode_pixels, match_channels
from basicsr_ext.images.headers import image_header
from basicsr_ext.images.inventory import (
    DATA_EXTENSIONS,
    EXTENSIONS,
    images_below,
    listed_files,
    listed_keys,
    listed_names,
)
from basicsr_ext.images.values import Values
from basicsr_ext.options.basicsr_keys import PHASES, own_options
from i2sb_plugin.data.photographs import SAMPLE_PREFIX, sample_folder

T = TypeVar("T")
_CLIENTS: dict[str, tuple[int, FileClient]] = {}


def read_options(cls: type[T], block: Mapping[str, Any]) -> T:
    """Make the options ``cls`` of a data set from its block; raises InputError with all faults of the block."""
    return read_block(cls, own_options(cls, block), "dataset")


class SharedOptions:
    """What the options of both data sets have in common."""

    phase: str
    gt_size: int | None
    skip_bad: float
    grey_to_rgb: bool
    data: Values | None

    @property
    def side(self) -> int:
        """Side of the training crop in pixels; 0 outside phase train, where there is none."""
        return self.gt_size or 0

    def check_shared(self, *channels: tuple[str, int | None]) -> None:
        """Raise InputError unless phase, ``skip_bad`` and the ``channels``, each with its option, are allowed."""
        if self.phase not in PHASES:
            raise InputError(f"phase is {self.phase!r}; {did_you_mean(self.phase, PHASES)}")
        if self.data is not None and self.grey_to_rgb:
            raise InputError("grey_to_rgb is true, but the images are data, which have no colours; leave it out")
        for option, count in channels:
            if self.data is not None and not (count is None or count >= 1):
                raise InputError(f"{option} is {count}; set a whole number from 1, or null (as in the first file)")
            if self.data is None and count not in (None, 1, 3, 4):
                raise InputError(f"{option} is {count}; set 1, 3, 4 or null (as in the first image)")
        said = f"skip_bad is {self.skip_bad}"
        if not 0 <= self.skip_bad < 1:
            raise InputError(f"{said}; give the share of images that may be unreadable, such as 0.05")
        if self.skip_bad and self.phase != "train":
            raise InputError(f"{said} but phase is {self.phase}; figures need every image: leave it out there")


class ImageSource:
    """The images of one place, by name; picklable, and opened anew in every process.

    ``root`` is a folder, ``sample:train`` or ``sample:val`` (the built-in photographs), or, if ``io_backend.type`` is
    ``lmdb``, an LMDB in BasicSR's layout or the cache of an image folder (see :func:`stored_keys`). ``names`` are
    relative paths with ``/`` (sorted; see :mod:`basicsr_ext.images.inventory`), or the keys of the LMDB; in the order
    of ``meta_info_file`` if there is one. ``option`` is the name of the option behind ``root``, for messages. With
    ``values`` the files are data.
    Raises InputError if the place is missing, empty or of another kind.
    """

    def __init__(
        self,
        root: str,
        option: str,
        io_backend: Mapping[str, Any] | None = None,
        meta_info_file: str | None = None,
        values: Values | None = None,
    ) -> None:
        self.values = values
        extensions = EXTENSIONS if values is None else DATA_EXTENSIONS
        backend = dict(io_backend or {"type": "disk"})
        self.kind = backend.pop("type", "disk")
        self._backend_options = backend
        self.option = option
        if self.kind not in ("disk", "lmdb"):
            raise InputError(f"io_backend.type is {self.kind!r}; {did_you_mean(self.kind, ('disk', 'lmdb'))}")
        self.root = str(sample_folder(root) if root.startswith(SAMPLE_PREFIX) else root)
        self.left_out = ""  # what the folder holds besides, and why it is not read
        self._check_root()
        if self.kind == "lmdb":
            self.names = self._lmdb_names(meta_info_file)
        elif meta_info_file is not None:
            self.names = listed_files(self.root, meta_info_file, "meta_info_file")
            missing = [name for name in self.names if not os.path.isfile(self.path(name))]
            if missing:
                why = f"{len(missing)} of {len(self.names)} images listed in meta_info_file {meta_info_file}"
                raise InputError(f"{option}: {why} are not in {self.root}: {listed(missing)}")
        else:
            there = images_below(self.root, extensions=extensions)
            self.names = [str(name) for _, name in there.files]
            self.left_out = str(there) if there.left_out else ""
        if not self.names:
            what = "images" if values is None else f"{values.dtype} data, which the block data: asks for"
            raise InputError(
                f"{option}: {self.root} holds no {what} ({', '.join(extensions)}); "
                f"put {'images' if values is None else 'them'} there or set {option} to another folder"
            )

    def __len__(self) -> int:
        return len(self.names)

    def _lmdb_names(self, meta_info_file: str | None) -> list[str]:
        if os.path.isfile(os.path.join(self.root, "meta_info.txt")):
            keys = sorted(listed_keys(self.root, self.option))
        else:
            keys = stored_keys(self._client().client._client["images"], self.root, self.option)
        if meta_info_file is None:
            return keys
        wanted = listed_names(meta_info_file, "meta_info_file")
        return choose(wanted, keys, self.root, f"meta_info_file {meta_info_file}")

    def path(self, name: str) -> str:
        """Return the file of ``name``, or the key itself for an LMDB."""
        return name if self.kind == "lmdb" else os.path.join(self.root, name)

    def read(self, name: str) -> bytes:
        """Return the bytes of the image ``name``; raises InputError naming it if it is not there."""
        where, client = self.describe(name), self._client()
        try:  # of an LMDB by its backend: the client itself would copy what it reads once more
            data = client.client.get(name, "images") if self.kind == "lmdb" else client.get(where)
        except (lmdb.Error, UnicodeEncodeError) as error:  # BasicSR asks for keys of ASCII
            raise InputError(f"{where} cannot be read: {error}; write the LMDB again") from error
        except OSError as error:
            raise InputError(f"{where}: cannot be read ({error.strerror}); check {self.option}") from error
        if data is None:
            said = f"{self.root} has no key '{name}', though its meta_info.txt lists it"
            raise InputError(f"{self.option}: {said}; make the LMDB again")
        return data if isinstance(data, bytes) else bytes(data)

    def load(self, name: str) -> np.ndarray:
        """Return the pixels of ``name`` as :func:`decode_pixels` does."""
        return decode_pixels(self.read(name), self.describe(name), self.values)

    def matched(self, name: str, channels: int, grey_to_rgb: bool, option: str) -> np.ndarray:
        """Return what :meth:`load` does if it has so many ``channels``, as :func:`match_channels` does."""
        return match_channels(self.load(name), self.describe(name), channels, grey_to_rgb, option, self.values)

    def header_faults(self, name: str, channels: int, grey_to_rgb: bool, option: str) -> list[str]:
        """Say what is wrong with the channels of ``name``, from its header alone; nothing for an LMDB."""
        if self.kind == "lmdb":
            return []
        try:
            found = image_header(self.path(name), self.values).channels
        except InputError as error:
            return [str(error)]
        fault = channel_fault(found, self.path(name), channels, grey_to_rgb, option, self.values)
        return [fault] if fault else []

    def describe(self, name: str) -> str:
        """Name an image in a message: its path, or the LMDB and the key."""
        return f"{self.root}[{name}]" if self.kind == "lmdb" else self.path(name)

    def _check_root(self) -> None:
        if not os.path.isdir(self.root):
            found = "is a file" if os.path.exists(self.root) else "does not exist"
            raise InputError(f"{self.option} is {self.root}, which {found}; set it to a folder of images")
        database = os.path.isfile(os.path.join(self.root, "data.mdb"))
        if self.kind == "lmdb" and not database:
            raise InputError(
                f"{self.option} is {self.root}, which is no LMDB of BasicSR, nor another (a folder with "
                "data.mdb); make one with basicsr prepare or set io_backend.type: disk"
            )
        if self.kind == "disk" and database:
            cure = "an LMDB, but io_backend.type is disk; set io_backend.type: lmdb"
            raise InputError(f"{self.option} is {self.root}, {cure}")

    def _client(self) -> FileClient:
        """Return this process's client of the root.

        LMDB allows one handle per file and process, counting one inherited by fork: datasets share it, and a forked
        worker closes its inherited copy (which leaves the parent's alone) before it opens its own.
        """
        key = os.path.realpath(self.root) if self.kind == "lmdb" else "disk"
        owner, client = _CLIENTS.get(key, (None, None))
        if owner == os.getpid():
            return client
        if client is not None and self.kind == "lmdb":
            client.client._client["images"].close()
        options = {"db_paths": [self.root], "client_keys": ["images"], **self._backend_options}
        client = FileClient(self.kind, **(options if self.kind == "lmdb" else {}))
        _CLIENTS[key] = (os.getpid(), client)
        return client


def left_out(*sources: ImageSource) -> list[str]:
    """What the folders of the sources hold that is not read: a line for each of them."""
    return [f"{part.option}: {part.left_out}" for part in sources if part.left_out]


def stored_keys(environment: Any, root: str, option: str) -> list[str]:
    """List the keys of an LMDB that has no ``meta_info.txt``, sorted.

    So are the caches of image folders that ImageNet is often kept in (``train_faster_imagefolder.lmdb``): the key is
    the path of the image, the value its file, byte for byte. Labels lie in another file, which is not read.
    Raises InputError if the values are pickled, since unpickling can run code, or keys are no ASCII text.
    """
    with environment.begin(buffers=True) as transaction, transaction.cursor() as cursor:
        raw = [bytes(key) for key in cursor.iternext(keys=True, values=False) if not bytes(key).startswith(b"__")]
        first = bytes(transaction.get(raw[0])[:2]) if raw else b""
    if first[:1] == b"\x80":
        raise InputError(
            f"{option}: the records of {root} are pickled, which is refused because unpickling can run code; store "
            "the bytes of each image file under its path, or set io_backend.type: disk with the folder of images"
        )
    try:
        return sorted(key.decode("ascii") for key in raw)
    except UnicodeDecodeError as error:
        said = f"{root} has a key that is no ASCII text: {error.object!r}"
        raise InputError(f"{option}: {said}; write it with other keys") from error


def choose(wanted: Iterable[str], keys: Iterable[str], root: str, source: str) -> list[str]:
    """Find the key of each name of a list: the key itself, with or without extension, or the one that ends in it.

    Keys that are paths are so found by ``n01440764/x.JPEG``, or ``x.JPEG`` alone. Raises InputError that lists the
    names without a key, or with several.
    """
    known = set(keys)
    by_file: dict[str, list[str]] = defaultdict(list)
    for key in known:
        by_file[key.rpartition("/")[2]].append(key)
    fits: list[tuple[str, list[str]]] = []
    for name in wanted:
        keys = [key for key in (name, os.path.splitext(name)[0]) if key in known][:1]
        ends = [key for key in by_file[name.rpartition("/")[2]] if key.endswith(f"/{name}")]
        fits.append((name, keys or ends))
    missing = [name for name, keys in fits if not keys]
    several = [name for name, keys in fits if len(keys) > 1]
    for names, what in ((missing, "are not in it"), (several, "fit several of its keys")):
        if names:
            raise InputError(f"{source}: {len(names)} of its images {what}, {root}: {listed(names)}")
    return [keys[0] for _, keys in fits]
