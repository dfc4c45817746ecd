"""What `import i2sb_plugin` offers, and that it costs nothing before it is used."""

import subprocess
import sys

import pytest

import i2sb_plugin

CHECK = """
import sys, i2sb_plugin
heavy = {"torch", "numpy", "cv2", "basicsr", "basicsr_ext"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
from i2sb_plugin import Bridge, samplers
assert "ancestral" in samplers.SAMPLERS and Bridge.__module__ == "i2sb_plugin.bridge"
assert not {"cv2", "basicsr", "basicsr_ext"} & set(sys.modules), "the mathematics needs torch alone"
"""


def test_importing_the_package_imports_nothing_heavy_and_the_mathematics_torch_alone():
    run = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("name", i2sb_plugin.__all__)
def test_every_public_name_is_there_and_listed(name):
    assert getattr(i2sb_plugin, name) is not None and name in dir(i2sb_plugin)


def test_an_unknown_name_is_refused_by_name():
    with pytest.raises(ImportError, match="Brige"):
        from i2sb_plugin import Brige  # noqa: F401
