"""The degradations, one family a file. Every file of this folder is found by itself."""
