"""BasicSR made to work on today's Python stack, for any restoration model."""

from basicsr_ext.repairs.imports import repair_imports

repair_imports()
