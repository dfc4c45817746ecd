"""`basicsr doctor` shows what there is and fails, with the cure, when something is wrong."""

from importlib import metadata

import pytest

from basicsr_ext import repairs
from basicsr_ext.common import plugins
from basicsr_ext.common.errors import InputError
from tests.support.cli_runs import run


def test_it_shows_versions_device_repairs_and_plugins(capsys):
    code, out, _ = run(capsys, "doctor")
    assert code == 0
    assert f"torch          {metadata.version('torch')}" in out
    assert f"basicsr        {metadata.version('basicsr')}" in out
    for repair in repairs.status():
        assert f"{repair.name}: {repair.fault}" in out
    assert "loaded     i2sb (entry point i2sb_plugin.plugin:register)" in out
    assert out.rstrip().endswith("nothing is wrong")


def test_a_failed_plugin_is_wrong(monkeypatch, capsys):
    broken = plugins.Plugin("broken", "entry point broken:register", "ImportError: no thing")
    monkeypatch.setattr(plugins, "load_entry_points", lambda: [broken])
    code, out, _ = run(capsys, "doctor")
    assert code == 1
    assert "plugin broken failed to load: ImportError: no thing; update or uninstall" in out


def test_a_missing_package_is_wrong_and_the_cure_is_named(monkeypatch, capsys):
    version, find = metadata.version, __import__("importlib.util").util.find_spec

    def without(function, error):
        def look(name, *rest):
            if name == "lmdb":
                if error:
                    raise metadata.PackageNotFoundError(name)
                return None
            return function(name, *rest)

        return look

    monkeypatch.setattr(metadata, "version", without(version, True))
    monkeypatch.setattr("importlib.util.find_spec", without(find, False))
    code, out, _ = run(capsys, "doctor")
    assert code == 1
    assert "lmdb is not installed; run: pip install lmdb" in out


def test_an_unusable_basicsr_is_wrong(monkeypatch, capsys):
    def refuse():
        raise InputError("BasicSR is not installed; install it")

    monkeypatch.setattr(repairs, "apply", refuse)
    code, out, _ = run(capsys, "doctor")
    assert code == 1
    assert "BasicSR is not installed; install it" in out


@pytest.mark.parametrize("name", ["RANK", "CUDA_VISIBLE_DEVICES"])
def test_the_launchers_variables_are_shown(name, monkeypatch, capsys):
    monkeypatch.setenv(name, "0")
    assert f"{name}=0" in run(capsys, "doctor")[1]
