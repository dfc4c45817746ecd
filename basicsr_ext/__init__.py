"""BasicSR made to work on today's Python stack, for any restoration model."""

import os

from basicsr_ext.repairs.imports import repair_imports

for _side in ("PIXELS", "WIDTH", "HEIGHT"):  # OpenCV's own limits: a wrong one aborts, a small one blames the image
    os.environ.pop(f"OPENCV_IO_MAX_IMAGE_{_side}", None)

repair_imports()
