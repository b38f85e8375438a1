"""Evaluation: metrics of captions, answers and vectors against references."""
