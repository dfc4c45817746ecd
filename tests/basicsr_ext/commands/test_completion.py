import shutil
import subprocess
import sys

import pytest

from tests.support.cli_runs import run

BASH = shutil.which("bash")


@pytest.mark.skipif(BASH is None, reason="no bash")
def test_bash_completes_commands_flags_and_files(tmp_path, capsys):
    pytest.importorskip("shtab")
    code, script, _ = run(capsys, "completion", "bash")
    assert code == 0
    (tmp_path / "basicsr.bash").write_text(script)
    (tmp_path / "mine.yml").write_text("")

    def completed(*words: str) -> list[str]:
        asked = f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}"
        lines = f"source ./basicsr.bash; {asked}; _shtab_basicsr; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        return subprocess.run([BASH, "-c", lines], cwd=tmp_path, capture_output=True, text=True).stdout.split()

    assert completed("basicsr", "ini") == ["init"]
    assert completed("basicsr", "import-") == ["import-adm", "import-i2sb"]
    assert completed("basicsr", "init", "--ne") == ["--network"]
    assert completed("basicsr", "restore", "--tile_") == ["--tile_batch"]
    assert completed("basicsr", "train", "-opt", "mi") == ["mine.yml"]
    assert completed("basicsr", "check", "--launcher", "py") == ["pytorch"]


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_get_a_script(shell, capsys):
    pytest.importorskip("shtab")
    code, script, _ = run(capsys, "completion", shell)
    assert code == 0 and "benchmark" in script and "init" in script


def test_without_the_package_the_pip_line_is_there(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    code, _, said = run(capsys, "completion", "bash")
    assert code == 2 and "pip install shtab" in said


def test_an_unknown_shell_is_refused(capsys):
    with pytest.raises(SystemExit) as end:
        run(capsys, "completion", "fish")
    assert end.value.code == 2 and "invalid choice: 'fish'" in capsys.readouterr().err
