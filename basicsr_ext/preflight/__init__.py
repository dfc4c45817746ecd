"""What would fail later, found before anything is written; then the run starts."""
