"""The page's repair finds its fault, mends it under every name, and its test fails without it."""

import importlib.util
import re
from pathlib import Path

import pytest

from basicsr_ext import repairs
from tests.support.pages import read_page

repairs.apply()

from basicsr.utils import img_util  # noqa: E402

PAGE, BLOCKS = read_page("add_a_repair.md")


@pytest.fixture
def repair(tmp_path):
    """The entry of the page, read from a file; BasicSR is as it was afterwards."""
    file = tmp_path / "cropped_images.py"
    file.write_text(BLOCKS["python"])
    spec = importlib.util.spec_from_file_location("cropped_images", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (entry,) = module.REPAIRS
    before = img_util.crop_border
    yield entry
    if img_util.crop_border is not before:
        from basicsr_ext.repairs.repair import rebind

        rebind(img_util.crop_border, before)
        del before.unrepaired


def run_the_test_of_the_page():
    """The test that the page shows, run on whatever BasicSR is there now."""
    names: dict = {}
    exec(BLOCKS["py"], names)
    (test,) = (names[name] for name in names if name.startswith("test_"))
    test()


def test_the_probe_sees_the_fault_and_then_its_absence(repair):
    assert repair.probe()
    repair.apply()
    assert not repair.probe()


def test_the_pages_test_fails_without_the_repair_and_passes_with_it(repair):
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        run_the_test_of_the_page()
    repair.apply()
    run_the_test_of_the_page()


def test_the_files_that_the_page_names_hold_what_it_says():
    from basicsr_ext.repairs import imports
    from basicsr_ext.repairs.repair import Repairs

    assert callable(Repairs.replaces) and callable(Repairs.cures) and callable(imports.import_repairs)
    taken = Path(repairs.__file__).with_name("cropped_images.py")
    assert not taken.exists(), "the page's example is part of the package now: take another"
    assert set(re.findall(r"`(\w+\.py)`", PAGE)) == {"images.py", "cropped_images.py"}
