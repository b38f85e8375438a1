"""The model: checkpoints, networks, image features, decoding and retrieval.

Importing this package imports none of it; ``wrapper.Blip2`` is the entry point.
"""
