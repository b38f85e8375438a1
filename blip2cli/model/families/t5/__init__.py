"""Flan-T5: how BLIP-2 reads an image and a prompt with it, and writes."""
