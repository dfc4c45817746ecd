"""Folders of images cut into crops and packed for fast training."""
