"""The machinery of a study: plan, training, outcomes, tables."""
