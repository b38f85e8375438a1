"""Training of the embedded models: scenes, questions, batches and the training loops."""
