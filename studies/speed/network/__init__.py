"""The network and the sampler's loop, timed alone."""
