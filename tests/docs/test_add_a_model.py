"""The page's model trains, resumes, restores and is checked, by the option file that the page shows."""

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from skimage import data

from basicsr_ext import cli
from i2sb_plugin import Restorer
from tests.support.pages import plugged_in, read_page

PAGE, BLOCKS = read_page("add_a_model.md")
FEW = {"total_iter": 4, "val_freq": 4, "save_checkpoint_freq": 2, "print_freq": 2}


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Do what the page says, with a few iterations; the option file lies beside the model."""
    with plugged_in(BLOCKS, tmp_path_factory.mktemp("page")) as options:
        Path("edges.yml").write_text(BLOCKS["yaml"])
        yield options
    from basicsr.utils.registry import MODEL_REGISTRY

    MODEL_REGISTRY._obj_map.pop("EdgeModel")


@pytest.fixture(scope="module")
def trained(options):
    """The checkpoint of the page's run, cut to a few iterations."""
    for block in ("train", "val", "logger"):
        options[block] |= {name: value for name, value in FEW.items() if name in options[block]}
    options["train"]["scheduler"]["periods"] = [FEW["total_iter"]]
    Path("few.yml").write_text(yaml.safe_dump(options))
    assert cli.main(["train", "-opt", "few.yml"]) == 0
    return Path("experiments/edges/models/net_g_latest.pth")


def test_the_option_file_passes_the_check(options, capsys):
    assert cli.main(["check", "-opt", "edges.yml"]) == 0
    assert "l_edges" in capsys.readouterr().out


def test_a_wrong_option_of_the_model_is_named(options, capsys):
    assert cli.main(["check", "-opt", "edges.yml", "--force_yml", "edges:views=3"]) == 2
    said = capsys.readouterr().err
    assert "edges.views" in said and "3" in said and "1, 2" in said


def test_it_trains_and_logs_both_losses(trained):
    log = max(Path("experiments/edges").glob("train_*.log")).read_text()
    assert trained.is_file() and "l_edges" in log and "l_pix" in log and "psnr_y" in log


def test_it_restores_by_the_command_of_the_page(trained):
    Image.fromarray(np.ascontiguousarray(data.astronaut()[100:124, 200:224])).save("photo.png")
    restore = shlex.split(BLOCKS["sh"].splitlines()[1])
    assert restore[restore.index("--checkpoint") + 1] == str(trained)
    assert cli.main(restore[1:]) == 0
    assert Image.open("large.png").size == (96, 96)


def test_the_flag_of_its_own_decides_how_it_restores(trained):
    restorer = Restorer.load(trained)
    image = torch.rand(3, 16, 24, generator=torch.Generator().manual_seed(0))
    one, two, mirrored = restorer(image, views=1), restorer(image, views=2), restorer(image.flip(-1), views=1)
    torch.testing.assert_close(two, (one + mirrored.flip(-1)) / 2, rtol=0, atol=1e-6)
    assert not torch.equal(one, two)


def test_a_benchmark_takes_the_flag(trained):
    run = {
        "name": "views",
        "scale": 4,
        "plugins": ["./my_model.py"],
        "datasets": {"val": yaml.safe_load(BLOCKS["yaml"])["datasets"]["val"]},
        "methods": {"edges": {"weights": str(trained), "flags": {"views": [1, 2]}}},
        "metrics": {"psnr_y": {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True}},
    }
    Path("benchmark.yml").write_text(yaml.safe_dump(run))
    assert cli.main(["benchmark", "-opt", "benchmark.yml"]) == 0
    records = json.loads(Path("results/views/records.json").read_text())
    assert len(records["methods"]) == 2 and "my_model" in sys.modules
