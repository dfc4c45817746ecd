"""Which claims of the paper hold; docs/results.md tells the outcome."""
