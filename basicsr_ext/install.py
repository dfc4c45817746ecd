"""Install BasicSR 1.4.2 where pip alone does not: ``python -m basicsr_ext.install``.

BasicSR is published as source only. Built as published, it first downloads torch, Cython and NumPy into a build
environment that it does not use (2.6 GB), and on Python 3.13 its setup.py fails. This installs it with the setuptools
of the current environment and, on the Pythons concerned, with their older ``exec`` during that one build. Nothing of
BasicSR is changed. Its own dependencies are left to this project. Needs the standard library and pip only.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from basicsr_ext.common.versions import version_of

REQUIREMENT = "basicsr==1.4.2"

SHIM = '''\
"""For one build: exec(code) inside a function writes to what locals() shows, as it did before Python 3.13."""
import builtins
import sys

_exec = builtins.exec


def _exec_into_locals(code, globals=None, locals=None, /, **options):
    if globals is not None or locals is not None or options:
        return _exec(code, globals, locals, **options)
    frame = sys._getframe(1)
    names = dict(frame.f_locals)
    _exec(code, frame.f_globals, names)
    frame.f_locals.update(names)


builtins.exec = _exec_into_locals
'''


def exec_writes_locals() -> bool:
    """True if this Python lets setup.py of BasicSR read its version (Pythons up to 3.12 do, see PEP 667)."""
    exec("_written = True")
    return "_written" in locals()


def build_environment(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """Environment variables of the build, after writing the older ``exec`` into ``folder`` if Python has the new."""
    if exec_writes_locals():
        return dict(environment)
    (folder / "sitecustomize.py").write_text(SHIM, encoding="utf-8")
    path = os.pathsep.join(p for p in (str(folder), environment.get("PYTHONPATH")) if p)
    return {**environment, "PYTHONPATH": path}


def install_commands(has_setuptools: bool) -> list[list[str]]:
    """The pip commands to run in turn."""
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    build = [*pip, "--no-build-isolation", "--no-deps", "--use-pep517", REQUIREMENT]
    return [build] if has_setuptools else [[*pip, "setuptools>=70"], build]


def is_installed() -> bool:
    """True if a distribution named basicsr, or a package of that name from another one, is there."""
    return version_of("basicsr") is not None or importlib.util.find_spec("basicsr") is not None


def main() -> int:
    """Install BasicSR unless it is there; returns the exit code."""
    if is_installed():
        print("BasicSR is already installed.")
        return 0
    if importlib.util.find_spec("pip") is None:
        print("pip is missing in this environment; add it with: python -m ensurepip", file=sys.stderr)
        return 1
    has_setuptools = int((version_of("setuptools") or "0").split(".")[0]) >= 70
    with tempfile.TemporaryDirectory(prefix="basicsr_build_") as folder:
        environment = build_environment(Path(folder), dict(os.environ))
        for command in install_commands(has_setuptools):
            if subprocess.run(command, env=environment).returncode:
                print(f"Could not install {command[-1]}: pip's own message stands above.", file=sys.stderr)
                return 1
    print(f"Installed {REQUIREMENT}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
