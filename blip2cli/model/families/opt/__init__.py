"""OPT: how BLIP-2 reads an image and a prompt with it, and writes."""
