"""The degradations, one family a file; each registers itself."""
