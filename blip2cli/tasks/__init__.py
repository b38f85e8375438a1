"""What a run makes of its images: captions, answers or embeddings."""

from __future__ import annotations

from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.base import Task
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.embed import EmbedTask
from blip2cli.tasks.embed_texts import EmbedTextsTask

__all__ = ["AskTask", "CaptionTask", "EmbedTask", "EmbedTextsTask", "Task"]
