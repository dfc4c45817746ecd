"""What the process imports from which tests fork theirs: everything that a command imports, and nothing computed."""

import cv2
import torch

from basicsr_ext import repairs
from basicsr_ext.common import plugins

torch.set_num_threads(1)
cv2.setNumThreads(0)
repairs.apply()
plugins.load_entry_points()
