"""What was broken on purpose; docs/reliability.md tells the outcome."""
