"""Repairs of BasicSR that need it imported, grouped by the part they mend."""
