"""JSON without NaN, versions, cores, names in messages, digests that are kept."""

import json
import math
import os
import platform
from importlib import metadata

import pytest

from basicsr_ext.common.cores import usable_cores
from basicsr_ext.common.files import digest, known_digest
from basicsr_ext.common.plain_json import finite, json_text
from basicsr_ext.common.text import listed
from basicsr_ext.common.versions import module_version, version_of, versions_of


def strict(text):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_json_has_no_nan():
    value = {"psnr": math.inf, "list": [1.5, math.nan, (-math.inf, "ü", None, True, 3)]}
    assert finite(value) == {"psnr": None, "list": [1.5, None, [None, "ü", None, True, 3]]}
    assert math.isinf(value["psnr"])
    assert strict(json_text(value)) == finite(value) and "ü" in json_text(value)
    assert finite(value, as_text=True)["list"] == [1.5, "nan", ["-inf", "ü", None, True, 3]]


@pytest.mark.parametrize("count, said", [(0, ""), (2, "0, 1"), (3, "0, 1, 2"), (5, "0, 1, 2 and 2 more")])
def test_names_in_a_message(count, said):
    assert listed(range(count)) == said
    assert listed(range(count), most=9) == ", ".join(map(str, range(count)))


def test_versions(monkeypatch):
    assert version_of("torch") == metadata.version("torch") and version_of("no-such-package") is None
    assert versions_of(("torch", "no-such-package")) == {
        "python": platform.python_version(),
        "torch": version_of("torch"),
    }
    assert module_version("yaml").lower() == f"pyyaml {metadata.version('pyyaml')}"
    there = {"opencv-python-headless": "4.1"}

    def version(name):
        if name not in there:
            raise metadata.PackageNotFoundError
        return there[name]

    monkeypatch.setattr(metadata, "version", version)
    assert version_of("opencv-python") == "4.1 (opencv-python-headless)"


def test_cores():
    assert 1 <= usable_cores() <= os.cpu_count()


def test_a_digest_is_read_again_when_its_file_changes(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"one")
    first = known_digest(file)
    file.write_bytes(b"three")
    assert first != known_digest(str(file)) == digest(file)
