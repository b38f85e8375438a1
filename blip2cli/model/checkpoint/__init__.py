"""Finding a checkpoint: embedded, in a directory or on the hub, and what it holds."""
