"""The language models that BLIP-2 comes with: one entry of a table each."""
