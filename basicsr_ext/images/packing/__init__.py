"""Folders of images cut into crops and packed for fast training."""

KINDS = ("lmdb", "raw", "folder")  # of what is written
