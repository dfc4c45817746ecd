"""I2SB, the image-to-image Schroedinger bridge (Liu et al., ICML 2023), as a plugin of BasicSR."""

__version__ = "0.1.0"
