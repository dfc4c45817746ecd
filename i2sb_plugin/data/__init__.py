"""Data sets and image files."""

import basicsr_ext  # noqa: F401  (makes basicsr importable)
