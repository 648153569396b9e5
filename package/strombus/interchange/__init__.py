"""Files of other libraries, read and written; only formats, so that everything above may use it."""
