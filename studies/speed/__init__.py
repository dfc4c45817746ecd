"""What everything costs; docs/performance.md tells the outcome."""
