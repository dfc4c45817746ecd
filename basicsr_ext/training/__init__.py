"""What watches the training loop: state, sample order, signals, bad steps, memory, progress."""
