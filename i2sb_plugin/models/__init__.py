"""I2SB, its students and what it is compared with, as BasicSR models; their options and losses."""

import basicsr_ext  # noqa: F401  (makes basicsr importable)
