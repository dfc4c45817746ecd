"""One file for each sub-command: arguments in, exit code out."""
