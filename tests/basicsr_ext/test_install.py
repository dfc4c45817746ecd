import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from basicsr_ext import install
from tests.support.cli_runs import write_images

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


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """Wheel and source release, built from a copy of the tree."""
    root, place = Path(__file__).parents[2], tmp_path_factory.mktemp("releases")
    copy = place / "copy"
    for name in ("basicsr_ext", "i2sb_plugin", "options", "docs/make", "studies/speed", "tests/support"):
        shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    shutil.copy(root / "tests/test_layering.py", copy / "tests")
    for path in root.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, copy)
    script = "from setuptools import build_meta as b; b.build_wheel('..'); b.build_sdist('..')"
    subprocess.run([sys.executable, "-c", script], cwd=copy, capture_output=True, check=True)
    return next(place.glob("*.whl")), next(place.glob("*.tar.gz"))


def test_the_releases_hold_what_they_need_and_nothing_else(releases):
    root, file = Path(__file__).parents[2], zipfile.ZipFile(releases[0])
    wheel = file.namelist()
    tops = {name.partition("/")[0].partition("-")[0] for name in wheel}
    assert tops == {"basicsr_ext", "i2sb_plugin", "basicsr_i2sb"}
    with tarfile.open(releases[1]) as source:
        packed = {name.partition("/")[2] for name in source.getnames()}
    for name in ("basicsr_ext/benchmark/page/parts/page.html", "i2sb_plugin/weights/i2sb_sr4x.safetensors"):
        assert name in wheel and name in packed
    assert {"requirements.txt", "README.md", "LICENSE", "CHANGELOG.md", "options/i2sb_sr4x.yml"} <= packed
    assert not any(name.startswith(("tests/", "studies/", "docs/")) for name in packed)
    options = {path.relative_to(root / "options").as_posix(): path for path in (root / "options").rglob("*.*")}
    inside = "i2sb_plugin/templates/"
    assert options.keys() == {name.removeprefix(inside) for name in wheel if name.startswith(inside)}
    assert all(file.read(inside + name) == path.read_bytes() for name, path in options.items())


FIRST_MINUTES = """
import sys
from pathlib import Path
import i2sb_plugin
from basicsr_ext import cli
assert Path(i2sb_plugin.__file__).is_relative_to(sys.argv[1]), i2sb_plugin.__file__

def basicsr(*words):
    assert cli.main(words) == 0, words

few = ["--force_yml", "train:total_iter=20", "datasets:train:gt_size=16", "datasets:train:batch_size_per_gpu=1"]
basicsr("init", "denoise", "--gt", "photos")
basicsr("check", "-opt", "denoise.yml", *few)
basicsr("train", "-opt", "denoise.yml", *few)
basicsr("test", "-opt", "denoise.yml")
basicsr("restore", "-i", "photos/val", "-o", "restored", "--checkpoint", "experiments/denoise/models/net_g_latest.pth")
"""


def test_in_an_empty_folder_the_wheel_alone_leads_from_init_to_a_restored_picture(releases, tmp_path):
    target, here = tmp_path / "packages", tmp_path / "here"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        target,
        releases[0],
    ]
    subprocess.run(pip, check=True)
    for part in ("train", "val"):
        write_images(here / "photos" / part, 2, 64)
    environment = {**os.environ, "PYTHONPATH": str(target)}
    script = [sys.executable, "-c", FIRST_MINUTES, target]
    done = subprocess.run(script, cwd=here, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "basicsr train -opt denoise.yml" in done.stdout and "all well" in done.stdout
    assert {path.name for path in (here / "restored").iterdir()} == {"0.png", "1.png"}
    assert (here / "results/denoise/metrics.json").exists()
