"""``python -m basicsr_ext`` does the same as the command ``basicsr``."""

import sys

from basicsr_ext.cli import main

if __name__ == "__main__":
    sys.exit(main())
