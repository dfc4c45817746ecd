"""Damaged and random inputs."""
