"""One file a format of results; see ``convert.format_table``."""
