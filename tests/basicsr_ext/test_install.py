import os
import shutil
import subprocess
import sys

import pytest

from basicsr_ext import install

GET_VERSION = """
def get_version():
    with open({path!r}) as f:
        exec(compile(f.read(), {path!r}, 'exec'))
    return locals()['__version__']

scope = {{}}
exec('x = 1', scope)
print(get_version(), scope['x'])
"""


def setup_script(tmp_path):
    version = tmp_path / "version.py"
    version.write_text("__version__ = '1.4.2'\n")
    script = tmp_path / "setup_like.py"
    script.write_text(GET_VERSION.format(path=str(version)))
    return script


def pythons():
    names = ("python3.13", "python3.14")
    found = [shutil.which(n) for n in names]
    working = [p for p in found if p and subprocess.run([p, "-c", ""], capture_output=True).returncode == 0]
    return [sys.executable, *working]


@pytest.mark.parametrize("python", pythons())
def test_the_older_exec_lets_the_version_be_read(tmp_path, python):
    (tmp_path / "sitecustomize.py").write_text(install.SHIM)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([python, setup_script(tmp_path)], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["1.4.2", "1"], done.stderr


@pytest.mark.parametrize("python", pythons())
def test_the_probe_says_whether_this_python_needs_it(tmp_path, python):
    plain = subprocess.run([python, setup_script(tmp_path)], capture_output=True, text=True)
    code = "from basicsr_ext.install import exec_writes_locals; print(exec_writes_locals())"
    probe = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert probe.stdout.strip() == str(plain.returncode == 0)


def test_the_build_environment_changes_only_where_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(install, "exec_writes_locals", lambda: True)
    assert install.build_environment(tmp_path, {"A": "b"}) == {"A": "b"}
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(install, "exec_writes_locals", lambda: False)
    built = install.build_environment(tmp_path, {"A": "b", "PYTHONPATH": "here"})
    assert built == {"A": "b", "PYTHONPATH": f"{tmp_path}{os.pathsep}here"}
    assert (tmp_path / "sitecustomize.py").read_text() == install.SHIM


def test_commands_build_in_the_environment_and_bring_setuptools_if_missing():
    (build,) = install.install_commands(has_setuptools=True)
    assert build[:4] == [sys.executable, "-m", "pip", "install"] and build[-1] == "basicsr==1.4.2"
    assert "--no-build-isolation" in build and "--no-deps" in build
    first, second = install.install_commands(has_setuptools=False)
    assert first[-1] == "setuptools>=70" and second == build


def test_what_is_installed_is_left_alone(monkeypatch, capsys):
    monkeypatch.setattr(install.subprocess, "run", lambda *a, **k: pytest.fail("nothing is to be run"))
    assert install.main() == 0
    assert capsys.readouterr().out == "BasicSR is already installed.\n"


def test_a_failing_pip_gives_exit_code_1(monkeypatch, capsys):
    monkeypatch.setattr(install, "is_installed", lambda: False)
    monkeypatch.setattr(install.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 1))
    assert install.main() == 1
    assert "Could not install" in capsys.readouterr().err
