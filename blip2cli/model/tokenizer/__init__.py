"""Texts to token ids and back, and the templates of prompts."""
