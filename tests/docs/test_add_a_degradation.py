"""The page's code works as it stands, through the data set and the option block that it shows."""

import pytest
import torch

from i2sb_plugin.data.paired_degradation_dataset import PairedDegradationDataset
from i2sb_plugin.degradations import DEGRADATIONS, build_degradation
from tests.support.pages import plugged_in, read_page

PAGE, BLOCKS = read_page("add_a_degradation.md")


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Do what the page says: save the file where the option file names it as a plugin."""
    with plugged_in(BLOCKS, tmp_path_factory.mktemp("page")) as options:
        yield options
    DEGRADATIONS._classes.pop("gaussian_noise")


def test_the_code_has_about_twenty_lines():
    assert len(BLOCKS["python"].splitlines()) <= 24


def test_the_noise_has_the_stated_deviation_and_follows_the_generator(options):
    degradation = build_degradation(options["datasets"]["train"]["degradation"])
    image = torch.full((3, 200, 200), 0.5)
    first, second = (degradation(image, torch.Generator().manual_seed(0)).lq for _ in range(2))
    assert torch.equal(first, second)
    assert (first - image).std().item() == pytest.approx(25 / 255, rel=0.01)


def test_the_option_block_trains_on_it(options):
    dataset = PairedDegradationDataset({**options["datasets"]["train"], "scale": options["scale"], "phase": "train"})
    item = dataset[0]
    assert item["lq"].shape == item["gt"].shape == (3, 64, 64)
    assert 0.05 < (item["lq"] - item["gt"]).std() < 25 / 255 + 0.01
    assert not torch.equal(dataset[0]["lq"] - dataset[0]["gt"], item["lq"] - item["gt"])


def test_a_misspelt_option_of_it_is_named(options):
    with pytest.raises(ValueError, match=r"degradation\.sigmma .*did you mean sigma"):
        build_degradation({"type": "gaussian_noise", "sigmma": 10})
