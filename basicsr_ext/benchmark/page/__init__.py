"""The page of a benchmark: one HTML file with a folder of pictures beside it, which opens from disk."""

from basicsr_ext.benchmark.page.build import write

__all__ = ["write"]
