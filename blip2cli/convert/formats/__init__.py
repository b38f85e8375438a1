"""One file a format of results; see ``convert.table``."""
