"""The registered model."""
