"""Tasks: captions, answers and embeddings, from a batch of image features to rows."""

from __future__ import annotations

from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.base import Task
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.embed import EmbedTask
from blip2cli.tasks.embed_texts import EmbedTextsTask

__all__ = ["AskTask", "CaptionTask", "EmbedTask", "EmbedTextsTask", "Task"]
