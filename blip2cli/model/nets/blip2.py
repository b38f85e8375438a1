"""The whole model: vision encoder, Q-Former, and a language model or heads for retrieval.

As transformers' ``Blip2ForConditionalGeneration``, ``InstructBlipForConditionalGeneration`` and
``Blip2ForImageTextRetrieval``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from blip2cli.model.checkpoint.config import Blip2Config
from blip2cli.model.families import LanguageFamily
from blip2cli.model.layers.linear import Linear
from blip2cli.model.layers.streamed import LayerStream
from blip2cli.model.nets.qformer import InstructedQFormer, QFormer, TextEmbeddings
from blip2cli.model.nets.vision import VisionModel


class VisionQFormer(nn.Module):
    """Vision encoder and Q-Former, which every BLIP-2 model has."""

    def __init__(self, config: Blip2Config) -> None:
        super().__init__()
        self.config = config
        width = config.qformer_config.hidden_size
        self.vision_model = VisionModel(config.vision_config)
        self.query_tokens = nn.Parameter(torch.empty(1, config.num_query_tokens, width))
        kind = InstructedQFormer if config.instructed else QFormer
        self.qformer: Any = kind(config.qformer_config)
        self.remarks: tuple[str, ...] = ()  # what is to be said of the checkpoint, as sentences
        self.placed = ""  # where its layers are, behind the reason for device and precision
        self.stream: LayerStream | None = None  # brings in layers that are not in memory

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.query_tokens.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights; the Q-Former's may be another."""
        return self.vision_model.post_layernorm.weight.dtype

    def text_embeddings(self) -> TextEmbeddings:
        """Those of texts that the Q-Former reads beside an image, where it does."""
        raise NotImplementedError

    def encode_pairs(self, images: Tensor, ids: Tensor, owners: Tensor) -> Tensor:
        """Query states of images [U, P+1, Dv] with texts [M, T], each beside the image of its entry
        in ``owners`` [M]: [M, Q, D]."""
        queries = self.query_tokens.expand(len(ids), -1, -1)
        count = queries.shape[1]
        embeds = self.text_embeddings()(ids, queries)
        states: Tensor = self.qformer(embeds, images, count, owners)
        return states[:, :count]


class GenerationModel(VisionQFormer):
    """A model with a language model, which generates texts."""

    def __init__(self, config: Blip2Config) -> None:
        super().__init__(config)
        text = config.text_config
        self.language_projection = Linear(config.qformer_config.hidden_size, text.width)
        assert isinstance(config.family, LanguageFamily)  # as ``build`` chooses
        self.language_model: Any = config.family.language_model(text)

    @property
    def input_embeddings(self) -> nn.Embedding:
        """The embedding that the language model reads with."""
        embeddings: nn.Embedding = self.language_model.input_embeddings
        return embeddings

    def text_embeddings(self) -> TextEmbeddings:
        """Those of prompts; only a model that is instructed has them."""
        found: TextEmbeddings = self.qformer.embeddings
        return found


class RetrievalModel(VisionQFormer):
    """A retrieval model, which scores images against texts."""

    def __init__(self, config: Blip2Config) -> None:
        super().__init__(config)
        width, shared = config.qformer_config.hidden_size, config.image_text_hidden_size
        self.embeddings = TextEmbeddings(config.qformer_config)
        self.vision_projection = Linear(width, shared)
        self.text_projection = Linear(width, shared)
        self.itm_head = Linear(width, 2)

    def text_embeddings(self) -> TextEmbeddings:
        """Those of texts to compare with images."""
        return self.embeddings

    def encode_texts(self, ids: Tensor) -> Tensor:
        """Hidden states of texts without an image, [N, T] to [N, T, D]."""
        states: Tensor = self.qformer(self.embeddings(ids), queries=0)
        return states


Blip2Net = GenerationModel | RetrievalModel


def build(config: Blip2Config) -> Blip2Net:
    """The network of a configuration, its weights not filled in."""
    writes = isinstance(config.family, LanguageFamily)
    return GenerationModel(config) if writes else RetrievalModel(config)
