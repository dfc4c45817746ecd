"""What a benchmark runs: settings, methods, the work and what is measured."""
