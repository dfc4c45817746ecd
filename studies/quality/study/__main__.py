"""``python -m studies.quality.study`` trains and compares; see :mod:`studies.quality.study.study`."""

import sys

from studies.quality.study.study import main

if __name__ == "__main__":
    sys.exit(main())
