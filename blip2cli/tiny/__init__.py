"""The embedded models: their weights, and the drawn scenes that ``doctor`` tries them on.

``training/`` at the top of the repository trains them, and draws scenes with the same modules.
"""
