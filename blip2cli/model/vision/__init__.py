"""Images to features: vision encoder, Q-Former and projection."""
