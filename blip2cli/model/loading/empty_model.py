"""A model without weights, of a configuration whose settings are those of a BLIP-2 model."""

from __future__ import annotations

import torch

from blip2cli.errors import ModelError
from blip2cli.model.checkpoint.config import Blip2Config
from blip2cli.model.layers.linear import ACTIVATIONS, Linear
from blip2cli.model.nets.blip2 import Blip2Net, build


def empty_model(config: Blip2Config, where: str) -> Blip2Net:
    """The model of ``config`` on the meta device.

    Raises ModelError, naming ``where`` it is from, for settings with which none can be run.
    """
    _check_config(config, where)
    with torch.device("meta"):
        model = build(config)
    _check_activations(model, where)
    return model


def _check_config(config: Blip2Config, where: str) -> None:
    if not config.family.writes and not config.qformer_config.use_qformer_text_input:
        raise ModelError(
            None,
            f"{where} is a retrieval model whose Q-Former does not read texts",
            "set use_qformer_text_input to true under qformer_config in config.json",
        )
    text = (config.text_config,) if config.family.writes else ()
    for each in text:
        start = getattr(each, "decoder_start_token_id", None)
        if start is not None and not 0 <= start < each.vocab_size:
            raise ModelError(
                None,
                f"{where} says that texts begin with token {start}, and has embeddings "
                f"of {each.vocab_size}",
                "set decoder_start_token_id in text_config of config.json",
            )
    for section in (config.vision_config, config.qformer_config, *text):
        width, heads = (getattr(section, n, 1) for n in ("hidden_size", "num_attention_heads"))
        if width % heads:
            raise ModelError(
                None,
                f"{where} has a hidden_size of {width}, which its num_attention_heads, "
                f"{heads}, do not divide",
                "take config.json from the model that the weights are from",
            )


def _check_activations(model: Blip2Net, where: str) -> None:
    for layer in model.modules():
        if isinstance(layer, Linear) and layer.activation and layer.activation not in ACTIVATIONS:
            raise ModelError(
                None,
                f"{where} uses the activation {layer.activation}, which BLIP-2 models do not have",
                f"config.json must name one of {', '.join(ACTIVATIONS)}",
            )
