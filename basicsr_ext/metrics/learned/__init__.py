"""Metrics that look through pretrained networks. Every file of this folder is found by itself."""
