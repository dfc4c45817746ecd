"""Small things that every room uses: errors, option blocks, registries, plugins, seeds, safe writes. Knows no run."""
