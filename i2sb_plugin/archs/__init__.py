"""Networks of the bridge."""

import basicsr_ext  # noqa: F401  (makes basicsr importable)
