"""What everything costs; docs/performance.md reports the results."""
