"""The messages that docs/troubleshooting.md explains are messages of the program."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
FOREIGN = {  # said by Python or the shell, or names of files and options
    "No module named 'torchvision.transforms.functional_tensor'", "KeyError: '__version__'",
    "basicsr: command not found",
    "basicsr", "data 40%",
}  # fmt: skip


def plain(text):
    """A text as it is compared: one space between words."""
    return " ".join(text.split())


def literals():
    """Every text of the source, with dots where a value is put in."""
    for package in ("basicsr_ext", "i2sb_plugin"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield plain(node.value)
                elif isinstance(node, ast.JoinedStr):
                    yield plain("".join(p.value if isinstance(p, ast.Constant) else " ... " for p in node.values))


SAID = "\n".join(literals())
ROWS = re.findall(r"^\| (.+?) \| .+ \|$", PAGE, re.MULTILINE)
MESSAGES = sorted({text for row in ROWS for text in re.findall(r"`([^`]+)`", row)} - FOREIGN)


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_is_one_of_the_program(message):
    parts = [re.escape(plain(part)) for part in message.split("...")]
    assert re.search(r"[^\n]*".join(parts), SAID), "no text of the source says this"


def test_the_page_covers_the_symptoms():
    assert re.findall(r"^## (.+)$", PAGE, re.MULTILINE) == [
        "Installation", "Option files", "Data", "Training", "Resuming", "Restoring"
    ]  # fmt: skip
    assert len(MESSAGES) > 25
