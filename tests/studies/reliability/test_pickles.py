"""No file that is loaded runs code, whatever it holds."""

import pytest

from studies.reliability.inputs.pickles import PLACES, attack, runs_unprotected


@pytest.mark.parametrize("place", PLACES)
def test_nothing_runs_from(place, tmp_path):
    assert runs_unprotected(place, tmp_path / "unprotected")
    said = attack(place, tmp_path / "protected")
    assert str(tmp_path) in said or place in ("image of BasicSR", "LMDB meta_info.txt before a run")
