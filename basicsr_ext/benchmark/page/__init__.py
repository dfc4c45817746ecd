"""The page of a benchmark: one HTML file with a folder of pictures beside it, which opens from disk."""
