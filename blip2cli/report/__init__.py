"""Pages that show an output: collects rows, pictures and metrics, and writes the page."""
