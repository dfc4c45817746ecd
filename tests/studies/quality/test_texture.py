"""The terms of DISTS are those that the metric adds up."""

import json

import numpy as np
import pytest

from basicsr_ext import repairs

repairs.apply()

from basicsr_ext.common.errors import InputError  # noqa: E402
from basicsr_ext.metrics import Sample, build_metric  # noqa: E402
from studies.quality.questions import texture  # noqa: E402
from tests.support import metric_weights  # noqa: E402


def test_the_terms_add_up_to_the_metric(tmp_path):
    weights = str(metric_weights.write(tmp_path))
    generator = np.random.default_rng(0)
    gt = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
    restored = np.clip(gt + generator.normal(0, 20, gt.shape), 0, 255).astype(np.uint8)
    found = texture.terms(restored, gt, weights)
    assert found.shape == (2, 6) and (found > 0).any(1).all()
    metric = build_metric({"type": "dists", "weights": weights})
    assert found.sum() == pytest.approx(metric.update(Sample(0, "a", restored, gt=gt)), rel=1e-4)
    assert np.abs(texture.terms(gt, gt, weights)).max() < 1e-5


def test_the_section_shows_each_term(tmp_path):
    assert "Missing: " in texture.section(tmp_path)
    row = {
        "dataset": "set5",
        "images": 5,
        "walk": "i2sb_nfe5",
        "share": 0.5,
        "texture": [0.01] * 6,
        "structure": [0.005] * 6,
    }
    ends = [{**row, "share": 0.0}, {**row, "share": 1.0, "texture": [0.01, 0.002, 0.01, 0.01, 0.01, 0.02]}]
    record = {"seed": 0, "twin": "regression_l2", "rows": [row, *ends],
              "environment": {"cpu": "a", "device": "CPU", "torch": "2", "commit": "c"}}  # fmt: skip
    (tmp_path / texture.FILE).write_text(json.dumps(record))
    page = texture.section(tmp_path)
    assert "nearer to the original than the twin's at stages 1, farther at 5; DISTS minus the twin's is +0.002" in page
    assert "5 images of set5." in page
    assert "| set5, i2sb_nfe5, 50% | 0.090 | 0.010 | 0.010 | 0.010 | 0.010 | 0.010 | 0.010 | 0.030 |" in page


def test_a_comparison_that_was_not_made_is_named(tmp_path):
    with pytest.raises(
        InputError,
        match="super_resolution-sr4x-0/records.json .*python -m studies.quality.study",
    ):
        texture.run(tmp_path, None)
