"""Every reader sees the same pixels of every kind of image file, those that were put in, or all refuse it by name."""

import json

import numpy as np
import pytest

from studies.reliability.inputs import zoo
from studies.reliability.inputs.campaign import RESULTS
from studies.reliability.inputs.zoo_files import zoo as files


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_all_readers_see_the_known_pixels(tmp_path, monkeypatch, every):
    monkeypatch.chdir(tmp_path)
    chosen = list(files())[::every]
    refused = sum(file.pixels is None for file in chosen)
    table = zoo.compare(chosen, tmp_path)
    assert {name: row["wrong"] + row["disagrees"] for name, row in table.items()} == {name: [] for name in zoo.READERS}
    for name, row in table.items():
        assert row["refused"] == refused > 0, name
        assert row["read"] == len(chosen) - refused or name == "prepare --to raw"


def test_a_reader_that_sees_something_else_is_found(tmp_path):
    chosen = [file for file in files() if file.name in ("plain_2_8_True_png.png", "turned6_png.png", "pages_tif.tif")]
    plain = zoo.READERS["decoder"]
    ways = {
        "turned": lambda pixels: pixels[::-1],
        "one level off": lambda pixels: pixels + np.uint16(1),
        "grey": lambda pixels: pixels[:, :, :1],
        "too large": lambda pixels: np.repeat(pixels, 2, 0),
    }

    def changed(way):
        def see(folder, names, work):
            seen = plain.see(folder, names, work)
            return {name: "no word" if isinstance(one, str) else way(one) for name, one in seen.items()}

        return plain._replace(see=see)

    table = zoo.compare(chosen, tmp_path, {name: changed(way) for name, way in ways.items()})
    for row in table.values():
        assert len(row["wrong"]) == 2 and len(row["disagrees"]) == 3 and row["refused"] == 0


def test_the_recorded_comparison_found_no_fault():
    record = json.loads((RESULTS / "zoo.json").read_text())
    assert record["files"] >= 300 and record["readers"] == len(zoo.READERS) == len(record["table"])
    assert record["wrong pixels"] == record["disagreements"] == 0
    assert all(not row["wrong"] and not row["disagrees"] for row in record["table"].values())
