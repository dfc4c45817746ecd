"""A forked process, whose output goes to a file."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path


def fork(act: Callable[[], int], root: Path, out: Path) -> int:
    """Fork; the child does ``act`` in ``root``, appends what it says to ``out`` and ends with the exit code of ``act``.

    Returns the child's process id. An exception goes to ``out`` too, with the exit code 70.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.chdir(root)
        code = act()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
