import importlib.util
import os
import subprocess
import sys

import pytest

from basicsr_ext import repairs
from basicsr_ext.common.errors import InputError
from basicsr_ext.repairs import imports
from tests.support.basicsr_runs import write_images


def run(code: str, *args: str, **env: str) -> str:
    command = [sys.executable, "-c", code, *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def supplied(name: str):
    spec = sys.meta_path[-1].find_spec(name, None)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_importing_the_package_imports_neither_torch_nor_basicsr():
    assert run("import basicsr_ext, sys; print({'torch', 'basicsr', 'torchvision'} & set(sys.modules))") == "set()\n"


@pytest.mark.parametrize("limit", ["abc", "10"])
def test_the_limits_of_opencv_neither_end_the_process_nor_blame_an_image(limit, tmp_path):
    write_images(tmp_path / "in", 1, 16)
    code = "import sys; from basicsr_ext.images.decode import read_pixels as read; print(read(sys.argv[1]).shape)"
    assert run(code, str(tmp_path / "in/000.png"), OPENCV_IO_MAX_IMAGE_PIXELS=limit) == "(16, 16, 3)\n"


def test_a_dropped_torchvision_module_is_missing_before_and_supplied_after():
    if importlib.util.find_spec("torchvision.transforms.functional_tensor").loader is not sys.meta_path[-1]:
        pytest.skip("this torchvision still has the module")
    code = """
import torchvision.transforms
try:
    import torchvision.transforms.functional_tensor
except ModuleNotFoundError as error:
    print(error.name)
import basicsr_ext
from torchvision.transforms.functional_tensor import rgb_to_grayscale
from torchvision.transforms import functional
print(rgb_to_grayscale is functional.rgb_to_grayscale)
"""
    assert run(code).split() == ["torchvision.transforms.functional_tensor", "True"]


def test_the_supplied_scipy_filters_are_those_of_ndimage():
    from scipy import ndimage

    assert supplied("scipy.ndimage.filters").convolve is ndimage.convolve


def test_a_module_that_is_there_comes_before_a_supplied_one():
    import scipy.ndimage.filters

    if importlib.machinery.PathFinder.find_spec("scipy.ndimage.filters", scipy.ndimage.__path__):
        assert scipy.ndimage.filters.__file__
    assert type(sys.meta_path[-1]).__module__ == imports.__name__


def test_torchvision_loads_the_compiler_when_one_of_its_functions_is_called():
    code = """
import sys
from basicsr_ext.repairs import imports
import torchvision.ops
print(imports._loads_compiler(), "torch._dynamo" in sys.modules, "torch._dynamo.utils" in sys.modules)
asked = sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu")
import torch._dynamo.utils
print(asked == torch._dynamo.utils.is_compile_supported("cpu"))
"""
    if "torch._dynamo" not in run("import sys, torchvision; print([name for name in sys.modules])"):
        pytest.skip("this torchvision loads no compiler")
    assert run(code).split() == ["True", "False", "False", "True"]


LATER = """
import sys
import basicsr_ext
import basicsr
later = {"scipy", "torchvision"}
print(later & sys.modules.keys())
import basicsr.archs.arch_util as util
from basicsr.data import degradations
import basicsr.utils.img_util as img_util
import torch
print(round(degradations.special.j1(1.0), 6) == 0.440051, sorted(later & sys.modules.keys()))
print(degradations.rgb_to_grayscale(torch.ones(1, 3, 2, 2)).shape[1], img_util.make_grid(torch.ones(2, 3, 4, 4)).ndim)
import torchvision
import scipy.stats
print(util.torchvision.__version__ == torchvision.__version__, util.torchvision.ops is torchvision.ops)
print(degradations.multivariate_normal.pdf == scipy.stats.multivariate_normal.pdf, type(torchvision).__name__)
try:
    degradations.special.no_such_function
except AttributeError as error:
    print(error)
"""


def test_basicsr_gets_the_names_of_a_library_when_it_uses_them():
    names = run(LATER).splitlines()
    assert names[:2] == ["set()", "True ['scipy']"] and names[2] == "1 3"
    assert names[3:5] == ["True True", "True module"]
    assert "no_such_function" in names[5]


def test_a_library_that_is_imported_before_basicsr_is_used_as_it_is():
    code = """
import torchvision, scipy.special
import basicsr_ext
import basicsr.archs.arch_util as util
from basicsr.data import degradations
print(util.torchvision is torchvision, degradations.special is scipy.special)
"""
    assert run(code) == "True True\n"


def test_a_library_that_is_missing_is_named_as_ever(tmp_path):
    code = """
import sys
class Hidden:
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "scipy":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
import basicsr_ext
sys.meta_path.insert(1, Hidden())
try:
    import basicsr
except ModuleNotFoundError as error:
    print(error.name)
"""
    assert run(code).startswith("scipy")


def test_only_dropped_modules_are_supplied():
    assert sys.meta_path[-1].find_spec("torchvision.transforms.functional_tensors", None) is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("no_such_module_anywhere")


def test_the_supplied_loose_version_orders_like_the_original():
    version = supplied("distutils.version").LooseVersion
    assert version("0.10.1") > version("0.9.0") and version("0.9.0") >= version("0.9.0")
    assert version("2.15.0+cpu") > version("2.15") and version("1.13") < version("2.0.0a0")
    assert not version("0.8") >= version("0.9.0")


def test_repairs_name_themselves_and_are_made_once():
    first = repairs.apply()
    import basicsr.utils.img_util as img_util

    repaired = img_util.imfrombytes
    assert repairs.apply() == first == repairs.status()
    assert img_util.imfrombytes is repaired
    assert len({s.name for s in first}) == len(first) >= 28
    assert all(s.fault.endswith(".") and len(s.fault) > 20 for s in first)


def test_after_the_repairs_no_fault_is_left():
    repairs.apply()
    from basicsr_ext.repairs import all_repairs

    assert [r.name for r in all_repairs() if r.probe()] == []


def test_a_repair_reaches_every_module_that_took_the_function():
    repairs.apply()
    import basicsr.data.paired_image_dataset as dataset
    import basicsr.models.base_model as base_model
    import basicsr.utils as utils

    assert utils.imfrombytes is dataset.imfrombytes is utils.img_util.imfrombytes
    assert utils.imfrombytes.__module__ == "basicsr_ext.repairs.images"
    assert base_model.get_root_logger.__module__ == "basicsr_ext.repairs.startup"


def test_without_basicsr_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(repairs, "folder_of", lambda package: None)
    with pytest.raises(InputError, match=r"python -m basicsr_ext\.install"):
        repairs.apply.__wrapped__()


SPAWN = """
import sys
from functools import partial
import basicsr_ext
from basicsr_ext import repairs
from torch.utils.data import DataLoader

def main():
    repairs.apply()
    import basicsr.data
    opt = {"phase": "val", "scale": 1, "io_backend": {"type": "disk"}, "dataroot_gt": sys.argv[1],
           "dataroot_lq": sys.argv[1], "name": "x", "type": "PairedImageDataset"}
    init = partial(basicsr.data.worker_init_fn, num_workers=1, rank=0, seed=1)
    loader = DataLoader(basicsr.data.build_dataset(opt), num_workers=1, worker_init_fn=init,
                        multiprocessing_context="spawn")
    try:
        for batch in loader:
            print(tuple(batch["gt"].shape))
    except ValueError as error:
        print(type(error).__name__, "cut short" in str(error), "001.png" in str(error))

if __name__ == "__main__":
    main()
"""


def test_spawned_workers_import_and_repair_basicsr(tmp_path):
    folder = write_images(tmp_path / "images", 2, 16)
    broken = folder / "001.png"
    broken.write_bytes(broken.read_bytes()[:-20])
    script = tmp_path / "spawn.py"
    script.write_text(SPAWN)
    done = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["(1, 3, 16, 16)", "InputError True True"], done.stderr
