"""Tasks: captions, answers and embeddings, from a batch of image features to rows."""
