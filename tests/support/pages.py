"""The pages that tell how to add something of one's own, done as they say."""

import re
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from basicsr_ext.common.plugins import load_listed


def read_page(name):
    """The text of a page of docs/, and its blocks of code by language."""
    text = (Path(__file__).parents[2] / "docs" / name).read_text(encoding="utf-8")
    return text, dict(re.findall(r"```(\w+)\n(.*?)```", text, flags=re.DOTALL))


@contextmanager
def plugged_in(blocks, folder):
    """Save the file where the option file names it as a plugin, and stay there; gives the options."""
    options = yaml.safe_load(blocks["yaml"])
    file = Path(options["plugins"][0])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        file.write_text(blocks["python"], encoding="utf-8")
        assert [plugin.ok for plugin in load_listed(options["plugins"])] == [True]
        yield options
    del sys.modules[file.stem]
