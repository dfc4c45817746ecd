"""Data sets: pairs of folders, and clean images that are degraded on the fly."""

import basicsr_ext  # noqa: F401  (makes basicsr importable)
