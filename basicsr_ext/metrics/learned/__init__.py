"""Metrics that look through pretrained networks."""
