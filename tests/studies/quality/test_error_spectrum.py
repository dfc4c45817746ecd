"""The split of an error by fineness."""

import json

import numpy as np
import pytest

from basicsr_ext import repairs

repairs.apply()

from basicsr_ext.common.errors import InputError  # noqa: E402
from studies.quality.questions import error_spectrum  # noqa: E402


def test_the_parts_add_up_and_lie_where_the_error_lies():
    noise = np.random.default_rng(0).normal(0, 20, (48, 40, 3))
    assert error_spectrum.split(noise).sum() == pytest.approx((noise**2).mean())
    shift = error_spectrum.split(np.full((48, 40, 3), 5.0))
    assert shift[0] == pytest.approx(25) and shift[1:].max() < 1e-20
    rows, wave = np.arange(48) + 0.5, np.ones((1, 40, 1))
    for cycles, octave in ((1 / 48, 0), (0.05, 1), (0.1, 2), (0.2, 3), (0.4, 4)):
        error = np.cos(2 * np.pi * round(cycles * 96) / 96 * rows)[:, None, None] * wave
        assert error_spectrum.split(error)[octave] == pytest.approx(0.5), cycles


def test_pictures_are_compared_and_shown(tmp_path):
    import cv2

    with pytest.raises(InputError, match="results holds no pictures of equal_seconds-.*--only 'equal_seconds"):
        error_spectrum.run(tmp_path, ["jpeg10"])
    assert "Missing: " in error_spectrum.section(tmp_path)
    folder = tmp_path / "results/equal_seconds-jpeg10-0"
    gt = np.full((16, 16, 3), 100, np.uint8)
    for name, added in (("full_nfe1", 4), ("dial_1", 3)):
        (folder / "restored" / name / "bsds").mkdir(parents=True)
        cv2.imwrite(str(folder / "restored" / name / "bsds/a.png"), gt + added)
    cv2.imwrite(str(folder / "a.png"), gt)
    environment = {"cpu": "a", "device": "CPU", "torch": "2", "commit": "c"}
    records = {"environment": environment, "methods": [{"name": "full_nfe1"}, {"name": "dial_1"}],
               "datasets": [{"name": "bsds", "images": [{"name": "a", "gt": "a.png"}]}]}  # fmt: skip
    (folder / "records.json").write_text(json.dumps(records))
    record = error_spectrum.run(tmp_path, ["sr4x", "jpeg10"])
    (tmp_path / error_spectrum.FILE).write_text(json.dumps(record))
    page = error_spectrum.section(tmp_path)
    assert "| jpeg10, full size | 16.00 | 0.00 | 0.00 | 0.00 | 0.00 | 16.00 |" in page
    assert "| jpeg10, dial_1 | -7.00 | +0.00 |" in page and "on the 1 pictures of bsds" in page
