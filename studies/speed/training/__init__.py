"""Training, its data and its loop, timed."""
