"""The page's code works as it stands: as a metric, and through the option block that it shows."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from basicsr_ext import cli
from basicsr_ext.common.errors import InputError
from basicsr_ext.metrics import METRICS, Sample, build_metric
from tests.support.pages import plugged_in, read_page

PAGE, BLOCKS = read_page("add_a_metric.md")


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Do what the page says: save the file where the option file names it as a plugin, and stay there."""
    with plugged_in(BLOCKS, tmp_path_factory.mktemp("page")) as options:
        yield options
    from basicsr.utils.registry import METRIC_REGISTRY

    for registry in (METRICS, METRIC_REGISTRY):
        registry._obj_map.pop("largest_error")


def test_the_code_has_about_twenty_lines():
    assert len(BLOCKS["python"].splitlines()) <= 24


def test_the_figure_is_the_quantile_of_the_errors(options):
    gt = np.zeros((10, 10, 1), np.uint8)
    restored = np.arange(100, dtype=np.uint8).reshape(10, 10, 1)
    metric = build_metric(options["val"]["metrics"]["p99"])
    assert metric.update(Sample(0, "a", restored, gt=gt)) == pytest.approx(0.99 * 99)
    assert metric.update(Sample(1, "b", gt, gt=gt)) == 0
    assert metric.compute() == pytest.approx(0.99 * 99 / 2)
    assert metric.identity() == {
        "type": "largest_error",
        "quantile": 0.99,
        "crop_border": 0,
        "better": "lower",
        "unit": "grey levels",
    }


def test_a_wrong_option_is_refused(options):
    with pytest.raises(InputError, match="quantil .* quantile"):
        build_metric({"type": "largest_error", "quantil": 0.9})


def test_the_command_measures_it(options):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Path("gt").mkdir()
    assert cv2.imwrite("gt/a.png", image)
    run = {
        "name": "run",
        "model_type": "RestorationModel",
        "scale": 4,
        "num_gpu": 0,
        "network_g": {"type": "Interpolation", "scale": 4},
        "datasets": {
            "test": {
                "type": "PairedDegradationDataset",
                "dataroot_gt": "gt",
                "degradation": {"type": "sr4x_pool"},
            }
        },
        **options,
    }
    Path("run.yml").write_text(yaml.safe_dump(run))
    assert cli.main(["test", "-opt", "run.yml"]) == 0
    found = json.loads(Path("results/run/metrics.json").read_text())["datasets"]["test"]
    restored = cv2.imread(found["images"][0]["file"]).astype(float)
    assert found["mean"]["p99"] == pytest.approx(np.quantile(abs(restored - image), 0.99))
