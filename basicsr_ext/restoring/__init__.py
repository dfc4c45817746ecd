"""A trained network restores pictures of any kind and size."""
