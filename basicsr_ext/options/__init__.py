"""From YAML to checked, complete options. Builds nothing."""
