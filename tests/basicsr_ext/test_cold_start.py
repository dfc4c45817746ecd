"""What a command must not import, since it does not use it: the seconds before it begins."""

import json
import subprocess
import sys

from tests.support.basicsr_runs import write_images
from tests.support.cli_runs import bridge_options, write

UNUSED = {"scipy", "torchvision", "skimage", "matplotlib", "tensorboard", "lpips", "torch_fidelity", "spandrel"}
COMPILER = {"torch._dynamo", "sympy"}  # torch's optimisers import it
SCRIPT = """
import json, sys
from basicsr_ext import cli
out = sys.stdout
for words in json.loads(sys.argv[1]):
    sys.stdout = sys.stderr
    try:
        code = cli.main(words)
    except SystemExit as end:
        code = end.code
    print(json.dumps([words[0], code, [name for name in sys.modules if name in json.loads(sys.argv[2])]]), file=out)
"""


def test_commands_import_nothing_that_they_do_not_use(tmp_path):
    images = write_images(tmp_path / "in", 1, 16)
    options = write(tmp_path, bridge_options(tmp_path))
    restore = ["restore", "-i", str(images), "-o", str(tmp_path / "out"), "--device", "cpu"]
    commands = [["--version"], ["init", "--list"], ["list"], ["doctor"], restore, ["check", "-opt", str(options)]]
    given = [json.dumps(commands), json.dumps(sorted(UNUSED | COMPILER | {"torch", "basicsr"}))]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *given], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    found = {name: (code, set(modules)) for name, code, modules in told}
    assert all(code == 0 for code, _ in found.values()), done.stderr
    assert found["--version"][1] == found["init"][1] == set()
    assert found["list"][1] == found["doctor"][1] == found["restore"][1] == {"torch", "basicsr"}
    assert (tmp_path / "out/000.png").exists()
    assert not found["check"][1] & UNUSED
