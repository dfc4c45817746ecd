"""Losses of the bridge."""
