"""The evidence behind the documentation: speed, reliability, quality."""
