"""Run BasicSR's own tests against the installed BasicSR, with the repairs and without them.

    git clone --branch v1.4.2 https://github.com/XPixelGroup/BasicSR BASICSR
    python -m studies.reliability.runs.basicsr_tests --source BASICSR

The tests run in a copy; their pictures, which the repository keeps in LMDBs only, are written out there. They ask for a
CUDA device and for VGG weights from the network. Where there is no device they run a third time with the CPU in
its place and with random VGG weights: shapes, losses and files are tested all the same.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

# This module is the pytest plugin too: it imports nothing of ours, so that a run without repairs is one.
RESULT = Path(__file__).parents[1] / "results" / "basicsr_tests.json"
MODES = {"without repairs": "none", "with repairs": "repairs", "with repairs, on the CPU": "repairs cpu"}
REASONS = {  # words of an error -> why a test cannot pass here
    "not compiled with CUDA": "needs a CUDA device",
    "No CUDA GPUs": "needs a CUDA device",
    "Found no NVIDIA": "needs a CUDA device",
    "urlopen error": "downloads weights of VGG19",
}


def pytest_configure(config: object) -> None:
    """Make the repairs and use the CPU, as the environment asks for."""
    wanted = os.environ.get("BASICSR_TESTS", "")
    if "repairs" in wanted:
        from basicsr_ext import repairs

        repairs.apply()
    if "cpu" in wanted:
        _use_the_cpu()


def _use_the_cpu() -> None:
    """Let ``.cuda()`` and ``num_gpu: 1`` mean the CPU."""
    import torch
    from basicsr.models.base_model import BaseModel

    torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *_, **__: self
    original = BaseModel.__init__

    def init(self: BaseModel, opt: dict) -> None:
        original(self, {**opt, "num_gpu": 0})
        self.opt = opt

    BaseModel.__init__ = init


def prepare(source: Path, root: Path) -> None:
    """Copy the tests, write the pictures of their LMDBs out, and put random weights where VGG's are looked for."""
    import lmdb
    import torch
    import torchvision

    shutil.copytree(source / "tests", root / "tests")
    for side in ("gt", "lq"):
        folder = root / "tests" / "data" / side
        folder.mkdir(exist_ok=True)
        with (
            lmdb.open(str(folder.with_suffix(".lmdb")), readonly=True, lock=False) as database,
            database.begin() as read,
        ):
            for key, content in read.cursor():
                (folder / f"{key.decode()}.png").write_bytes(content)
    weights = root / "vgg19-random.pth"
    torch.manual_seed(0)
    torch.save(torchvision.models.vgg19(weights=None).state_dict(), weights)


def run_tests(root: Path, mode: str) -> dict[str, str]:
    """Run all tests in ``root``; maps each to ``passed`` or to the line that says why not."""
    place = root / "experiments" / "pretrained_models" / "vgg19-dcbb9e9d.pth"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    if "cpu" in mode:
        place.symlink_to(root / "vgg19-random.pth")
    here = str(Path(__file__).parents[3])
    environment = os.environ | {"PYTHONPATH": here, "BASICSR_TESTS": mode}
    words = ["-p", "studies.reliability.runs.basicsr_tests", "-p", "no:cacheprovider", "--rootdir", str(root)]
    report = root / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "tests", *words, f"--junitxml={report}"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=3000)
    if not report.exists():
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    return dict(sorted(_outcome(case) for case in ET.parse(report).iter("testcase")))


def _outcome(case: ET.Element) -> tuple[str, str]:
    name = ".".join(part for part in (case.get("classname"), case.get("name")) if part).removeprefix("tests.")
    for kind in ("failure", "error", "skipped"):
        found = case.find(kind)
        if found is not None:
            text = found.text or ""
            errors = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")]
            said = " ".join(errors[-1:]) or " ".join((found.get("message") or kind).split())
            return name, said[:300]
    return name, "passed"


def reason(said: str) -> str:
    """Why a test did not pass: a known hindrance, or its own words."""
    return next((why for words, why in REASONS.items() if words in said), said)


def compare(source: Path) -> dict:
    """Outcomes of every test: without repairs, with them, and with them on the CPU."""
    with tempfile.TemporaryDirectory(prefix="basicsr-tests-") as folder:
        root = Path(folder)
        prepare(source, root)
        runs = {name: run_tests(root, mode) for name, mode in MODES.items()}
    counts = {name: Counter(reason(said) for said in run.values()) for name, run in runs.items()}
    last = runs["with repairs, on the CPU"]
    written = runs["with repairs"]
    tests = {test: {"as written": written.get(test, "not collected"), "on the CPU": last[test]} for test in last}
    return {"counts": {name: dict(count) for name, count in counts.items()}, "tests with repairs": tests}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="a checkout of BasicSR")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    from studies.reliability.runs import tiny_runs as tiny

    record = compare(args.source.resolve())
    tiny.store(args.out, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
