"""Small things that every room uses: errors, option blocks, registries, plugins, seeds, safe file writes. Knows no run."""
