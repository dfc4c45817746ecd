"""One result for each image, whoever writes it."""

import os
from pathlib import Path

import numpy as np
import pytest

from basicsr_ext.common.errors import InputError
from basicsr_ext.images.results import Results, name_clashes, result_names, result_path, write_pixels


class Listing:
    def __init__(self, *paths, side="lq"):
        self.paths = [{f"{side}_path": path} for path in paths]


def options(is_train, *datasets, suffix=None):
    blocks = {name: {"phase": name.partition("_")[0]} for name in datasets}
    path = {"visualization": "/vis"}
    return {"name": "run", "is_train": is_train, "datasets": blocks, "path": path, "val": {"suffix": suffix}}


@pytest.mark.parametrize(("paths", "names"), [
    (["gt/1.png", "gt/2.png"], ["1", "2"]),
    (["gt/a/1.png", "gt/b/1.png"], ["a/1", "b/1"]),
    (["gt/a_1.png", "gt/a/1.png", "gt/./b.png"], ["a_1", "a/1", "b"]),
    (["gt/a.0001.png", "gt/a.0002.png", "gt/v1.5.png"], ["a.0001", "a.0002", "v1.5"]),
    (["0001", "x/0001"], ["0001", "x/0001"]),  # the keys of an LMDB
    ([], []),
])  # fmt: skip
def test_sub_folders_are_part_of_the_name(paths, names):
    assert result_names(Listing(*paths)) == names
    assert name_clashes(Listing(*paths)) == []
    assert result_names(Listing(*paths), "gt") == [], "the data set does not tell these"


@pytest.mark.parametrize(("paths", "said"), [
    (["gt/1.png", "gt/1.jpg"], ["gt/1.png", "gt/1.jpg", "would both become 1", "rename"]),
    (["gt/1.png", "gt/./1.png"], ["gt/1.png is listed twice"]),
])  # fmt: skip
def test_two_images_of_one_result_are_named(paths, said):
    (fault,) = name_clashes(Listing(*paths))
    assert all(words in fault for words in said)


def test_the_place_of_a_result_has_data_set_sub_folder_and_iteration():
    test, one, two = options(False, "test"), options(True, "train", "val"), options(True, "train", "val", "val_2")
    assert result_path(test, "set", "a/1", "run") == Path("/vis/set/a/1_run.png")
    assert result_path(options(False, "test", suffix="x4"), "set", "1", "run") == Path("/vis/set/1_x4.png")
    assert result_path(one, "set", "a/1", 8) == Path("/vis/a/1/1_8.png")
    assert result_path(two, "set", "1", 8) == Path("/vis/set/1/1_8.png"), "of two data sets, which may share names"


@pytest.mark.parametrize("opt", [options(False, "test"), options(True, "val"), options(True, "val", "val_2")])
def test_what_basicsrs_own_models_write_comes_to_the_same_place(opt):
    dataset = Listing("gt/a/1.png", "gt/b/1.png")
    results = Results.of(opt, dataset, "set")
    asked = "/vis/1/1_8.png" if opt["is_train"] else "/vis/set/1_run.png"
    for _, name in zip(results.follow([{"lq_path": [entry["lq_path"]]} for entry in dataset.paths]), ["a/1", "b/1"]):
        assert results.place(asked) == str(result_path(opt, "set", name, 8))
    assert results.place("/elsewhere/1.png") == "/elsewhere/1.png"


def test_an_image_is_written_under_any_name(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    write_pixels(path, np.zeros((2, 3, 3), np.uint8))
    assert path.is_file()


@pytest.mark.parametrize(("name", "shape"), [("a.webp", (1, 16384, 3)), ("a.nothing", (2, 2, 3)), ("a.jpg", (2, 2, 5))])
def test_what_the_format_does_not_hold_is_named(tmp_path, name, shape):
    with pytest.raises(InputError, match=f"cannot save .*{name}: .*choose another"):
        write_pixels(tmp_path / name, np.zeros(shape, np.uint8))
    assert not list(tmp_path.iterdir())
