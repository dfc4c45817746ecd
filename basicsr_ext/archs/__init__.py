"""Networks that any restoration model may use."""
