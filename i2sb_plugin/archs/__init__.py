"""Networks of the bridge."""
