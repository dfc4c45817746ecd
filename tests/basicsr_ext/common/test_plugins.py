"""Plugins come from entry points, modules and files; one that fails is reported and harms nobody else."""

import json
import sys
from importlib import metadata

import pytest

from basicsr_ext import repairs
from basicsr_ext.common import plugins
from basicsr_ext.common.errors import InputError
from tests.support.cli_runs import options, run, write
from tests.support.toolkit import context

repairs.apply()

ARCH = """
from basicsr.archs.srresnet_arch import MSRResNet
from basicsr.utils.registry import ARCH_REGISTRY

@ARCH_REGISTRY.register()
class {name}(MSRResNet):
    pass
"""


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    monkeypatch.setattr(plugins, "_loaded", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    from basicsr.utils.registry import ARCH_REGISTRY

    names = set(ARCH_REGISTRY.keys())
    yield
    for name in set(sys.modules) - before:
        if "plugin_of_test" in name:
            del sys.modules[name]
    for name in set(ARCH_REGISTRY.keys()) - names:
        del ARCH_REGISTRY._obj_map[name]


def entry_points(monkeypatch, **values):
    points = [metadata.EntryPoint(name, value, plugins.GROUP) for name, value in values.items()]
    monkeypatch.setattr(metadata, "entry_points", lambda group: metadata.EntryPoints(points))


def test_a_file_is_loaded_and_loading_it_twice_is_harmless(tmp_path, monkeypatch):
    from basicsr.utils.registry import ARCH_REGISTRY

    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugin_of_test_a.py").write_text(ARCH.format(name="NetOfTestA"))
    for _ in range(2):
        assert [p.ok for p in plugins.load_listed(["./plugin_of_test_a.py"])] == [True]
    assert ARCH_REGISTRY.get("NetOfTestA").__module__ == "plugin_of_test_a"


def test_a_file_beside_the_option_file_is_found(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "there/plugin_of_test_b.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert plugins.load_listed(["plugin_of_test_b.py"], tmp_path / "there")[0].ok


def test_a_module_is_asked_to_register(tmp_path, monkeypatch):
    package = tmp_path / "plugin_of_test_c"
    package.mkdir()
    (package / "__init__.py").write_text("calls = []\ndef register():\n    calls.append(1)\n")
    monkeypatch.chdir(tmp_path)
    plugins.load_listed(["plugin_of_test_c"])
    plugins.load_listed(["plugin_of_test_c"])
    assert sys.modules["plugin_of_test_c"].calls == [1]


@pytest.mark.parametrize("name", ["", "./here", "a/b", "here."])
def test_what_is_neither_a_module_nor_a_file_is_refused(name):
    with pytest.raises(InputError, match="it is neither the name of a module nor a file that ends in .py"):
        plugins.load_listed([name])


def test_a_folder_without_a_module_is_no_plugin(tmp_path, monkeypatch):
    (tmp_path / "plugin_of_test_folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="plugin_of_test_folder cannot be loaded: .*without __init__.py"):
        plugins.load_listed(["plugin_of_test_folder"])


def _name_of(cls):
    return cls.__name__


def test_a_worker_that_shares_nothing_can_import_a_file_plugin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugin_of_test_d.py").write_text("class Thing:\n    pass\n")
    plugins.load_listed(["./plugin_of_test_d.py"])
    with context().Pool(1) as pool:
        assert pool.apply(_name_of, (sys.modules["plugin_of_test_d"].Thing,)) == "Thing"


def test_a_file_whose_name_is_taken_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("")
    with pytest.raises(InputError, match=r"plugins: \./json\.py .* json .*rename the file"):
        plugins.load_listed(["./json.py"])
    assert sys.modules["json"] is json


def test_a_listed_plugin_that_fails_is_refused_with_its_own_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugin_of_test_e.py").write_text("raise RuntimeError('my own words')\n")
    for _ in range(2):
        with pytest.raises(InputError, match="RuntimeError: my own words"):
            plugins.load_listed(["./plugin_of_test_e.py"])


def test_an_installed_plugin_that_fails_is_reported_and_the_others_load(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "plugin_of_test_f.py").write_text("import not_there_at_all\n")
    (tmp_path / "plugin_of_test_g.py").write_text("done = []\ndef register():\n    done.append(1)\n")
    entry_points(monkeypatch, bad="plugin_of_test_f:register", good="plugin_of_test_g:register")
    for _ in range(2):
        bad, good = plugins.load_entry_points()
        assert (bad.name, bad.ok, good.name, good.ok) == ("bad", False, "good", True)
        assert bad.error == "ModuleNotFoundError: No module named 'not_there_at_all'"
    assert plugins.failures() == [bad]
    assert sys.modules["plugin_of_test_g"].done == [1]


def test_this_project_brings_its_own_plugins():
    found = {plugin.name: plugin.error for plugin in plugins.load_entry_points()}
    assert found["i2sb"] is None
    assert found["builtin"] is None


def test_an_option_file_trains_a_network_that_only_its_plugin_has(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugin_of_test_h.py").write_text(ARCH.format(name="NetOfTestH"))
    opt = options(tmp_path)
    opt["network_g"]["type"] = "NetOfTestH"
    code, _, err = run(capsys, "check", "-opt", write(tmp_path, opt))
    assert code == 2
    assert "network_g.type is 'NetOfTestH', which is not registered" in err
    opt["plugins"] = ["./plugin_of_test_h.py"]
    code, out, err = run(capsys, "check", "-opt", write(tmp_path, opt))
    assert code == 0, err
    assert "network_g: NetOfTestH" in out


def test_a_failed_plugin_does_not_take_the_command_down(tmp_path, monkeypatch, capsys):
    entry_points(monkeypatch, bad="plugin_of_test_missing:register", i2sb="i2sb_plugin.plugin:register")
    code, _, err = run(capsys, "list")
    assert code == 0
    assert "plugin bad failed to load: ModuleNotFoundError" in err
