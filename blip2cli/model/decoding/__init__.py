"""Decoding: the scheduler over KV slots, beam search, sampling and scoring."""
