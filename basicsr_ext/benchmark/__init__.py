"""``basicsr benchmark``: methods x data sets x metrics, by one option file."""
