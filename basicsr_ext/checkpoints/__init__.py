"""Saves that are whole or absent, whether weights fit, which save to resume."""
