"""What was broken on purpose; docs/reliability.md reports the results."""
