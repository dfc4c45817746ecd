"""The network that comes with this package: super-resolution x4, trained by ``options/i2sb_sr4x_builtin.yml``."""

from pathlib import Path

__all__ = ["checkpoint"]


def checkpoint() -> Path:
    """Path of the file, whose options and licence are inside; docs/builtin.md is its card."""
    return Path(__file__).with_name("i2sb_sr4x.safetensors")
