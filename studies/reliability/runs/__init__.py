"""Runs that are killed, starved, long or strange."""
