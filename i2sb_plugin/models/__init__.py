"""The registered model."""

import basicsr_ext  # noqa: F401  (makes basicsr importable)
