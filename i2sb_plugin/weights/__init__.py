"""Weights of other programs: the release of I2SB's authors, and ADM."""
