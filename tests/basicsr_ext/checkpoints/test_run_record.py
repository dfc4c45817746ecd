import json
import os
from collections import OrderedDict
from pathlib import Path

import pytest

from basicsr_ext.checkpoints.run_record import RECORD, read_options, write_options
from basicsr_ext.common.errors import InputError


def options(folder, iteration=0, **more):
    return {"path": {"experiments_root": str(folder)}, "start": {"iter": iteration}, **more}


def test_each_start_is_added_and_the_last_one_is_read(tmp_path):
    assert read_options(tmp_path) is None
    block = OrderedDict(type="X", text="a: b - c=d", path=Path("here"), most=float("inf"))
    write_options(options(tmp_path, network_g=block, scale=2))
    write_options(options(tmp_path, iteration=7, scale=4))
    text = (tmp_path / RECORD).read_text()
    assert "Infinity" not in text
    starts = json.loads(text)["starts"]
    assert [start["iteration"] for start in starts] == [0, 7] and "torch" in starts[0]["versions"]
    assert starts[0]["options"]["network_g"] == {"type": "X", "text": "a: b - c=d", "path": "here", "most": "inf"}
    found = read_options(tmp_path)
    assert found is not None and found["scale"] == 4


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": 2, "starts": [{}]}', '{"format": 1, "starts": [{}]}',
             '{"format": 1, "starts": {}}', "[" * 100000],
)  # fmt: skip
def test_a_damaged_record_is_named(tmp_path, text):
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(InputError, match=r"options\.json .*damaged.*remove it.*-opt FILE"):
        read_options(tmp_path)
    write_options(options(tmp_path, scale=3))
    found = read_options(tmp_path)
    assert found is not None and found["scale"] == 3
    assert (tmp_path / f"{RECORD}.damaged").read_text() == text


def test_a_record_that_an_editor_saved_with_a_byte_order_mark_is_read(tmp_path):
    write_options(options(tmp_path, scale=3))
    path = tmp_path / RECORD
    path.write_text(path.read_text(), encoding="utf-8-sig")
    found = read_options(tmp_path)
    assert found is not None and found["scale"] == 3


def test_a_record_that_is_no_file_is_named_without_waiting(tmp_path):
    os.mkfifo(tmp_path / RECORD)
    with pytest.raises(InputError, match=r"options\.json .*not a file"):
        read_options(tmp_path)
