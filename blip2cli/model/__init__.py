"""The model room: finding and loading weights, image features, and turning them into text.

Nothing here is imported by importing this package; ``wrapper.Blip2`` is the way in.
"""
