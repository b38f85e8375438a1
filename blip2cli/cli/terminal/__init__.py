"""What is printed: console, tables, JSON log, error sentences."""
