"""The pipeline of a run: listing, loading, model, task and sink, one batch after another."""
