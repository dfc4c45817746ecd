"""Methods x data sets x metrics, by one option file; tables, sheets, a page."""

FORMAT = 1  # of records.json and of the notes beside restored images
