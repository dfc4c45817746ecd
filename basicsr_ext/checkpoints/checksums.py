"""Checksums of saves: ``training_states/<iteration>.sha256`` lists every file of one save.

It is written last, so that a save without it is known to be unfinished. ``sha256sum -c 10.sha256`` reads it too.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from basicsr_ext.common.errors import InputError
from basicsr_ext.common.files import digest


def record_of(path: str | os.PathLike[str]) -> Path | None:
    """Where the record of a numbered network or state lies, whether or not it exists; None for other files."""
    path = Path(path)
    if state := re.fullmatch(r"(\d+)\.state", path.name):
        return path.with_name(f"{state[1]}.sha256")
    if network := re.fullmatch(r"net_.+_(\d+)\.(?:pth|safetensors)", path.name):
        return path.parent.parent / "training_states" / f"{network[1]}.sha256"
    return None


def listed_name(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> str:
    """The name of a file in a record that lies in ``folder``."""
    return Path(os.path.relpath(path, folder)).as_posix()


def record_text(digests: Mapping[str, str]) -> str:
    """Text of a record: a line ``<digest>  <name>`` for each file, in order of the names."""
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))


def read_record(path: str | os.PathLike[str]) -> dict[str, str]:
    """Digests by name; InputError if the record is missing, or not as :func:`record_text` writes it."""
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise InputError(f"there is no record {path}: the save was not finished; use an earlier one") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the record {path} is damaged ({error}); use an earlier save") from error
    found = {name: value for value, name in re.findall(r"([0-9a-f]{64})  ([^\n]+)\n", text)}
    if not found or record_text(found) != text:
        raise InputError(f"the record {path} is damaged; use an earlier save")
    return found


def verify(path: str | os.PathLike[str]) -> bool:
    """Compare a file with its record; False if it has none, or is not listed there.

    Raises InputError if the file is not the one that was saved, or the record is damaged.
    """
    record = record_of(path)
    if record is None or not record.is_file():
        return False
    wanted = read_record(record).get(listed_name(path, record.parent))
    if wanted is None:
        return False
    if digest(path) != wanted:
        said = f"is damaged, or was changed after it was saved: its SHA-256 is not that in {record}"
        raise InputError(f"checkpoint {path} {said}; use another one (or remove the record if the change was meant)")
    return True
