"""One model for every restorer: hooks, options, acceleration, validation."""
