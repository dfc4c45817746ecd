"""Which claims of the paper hold; docs/results.md reports the results."""
