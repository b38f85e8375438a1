"""Linear layers and attention whose rows do not depend on the rest of the batch."""
