"""The page about tasks names every degradation, its examples build, its code runs, its pictures are there and small."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from i2sb_plugin.degradations import build_degradation
from i2sb_plugin.degradations.masks import draw_mask
from tests.support.degradation_examples import NAMES
from tests.support.image_files import write_image

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "tasks.md").read_text(encoding="utf-8")
EXAMPLES = [yaml.safe_load(text) for text in re.findall(r"`(\{type: .*?\})`", PAGE.replace("\n", " "))]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """What the examples read."""
    monkeypatch.chdir(tmp_path)
    np.save("kernel.npy", np.ones((3, 5)))
    write_image("masks/0.png", torch.from_numpy(draw_mask(64, 64, (0.1, 0.2), np.random.default_rng(0)))[None])
    bits = np.packbits(np.ones((2, 64, 64), np.uint8))
    np.savez("imagenet_freeform_masks.npz", **{"10-20% freeform": bits, "20-30% freeform": bits})


def test_every_degradation_has_an_example_and_a_picture():
    assert {example["type"] for example in EXAMPLES} == set(NAMES)
    assert set(re.findall(r"\(images/task_(\w+)\.png\)", PAGE)) == set(NAMES)


@pytest.mark.parametrize("options", EXAMPLES, ids=str)
def test_an_example_builds_and_degrades(options, files):
    if "masks" in options and options["masks"].endswith(".npz"):
        options = {**options, "mask_size": 64}
    degradation = build_degradation(options)
    lq = degradation(torch.rand(3, 64, 64), torch.Generator().manual_seed(0)).lq
    assert lq.shape == (3, 64 // degradation.scale, 64 // degradation.scale)


def test_the_option_block_names_a_degradation_that_builds():
    block = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])
    assert build_degradation(block["datasets"]["train"]["degradation"]).quality == 10


def test_the_code_makes_a_guess_consistent():
    names = {}
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], names)
    assert (names["blur"].forward(names["consistent"]) - names["lq"]).square().mean() < 1e-4


def test_the_pictures_are_there_and_small():
    pictures = [DOCS / path for path in re.findall(r"\((images/\w+\.png)\)", PAGE)]
    assert sum(path.stat().st_size for path in pictures) < 400_000
    for path in pictures:
        assert Image.open(path).size == (228, 112)
