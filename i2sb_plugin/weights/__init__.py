"""Weights of other programs, and the network that is built in."""
