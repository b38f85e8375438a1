"""``generation_config.json``: what a checkpoint asks of generation.

transformers reads the file into the whole model, but BLIP-2 generates with its language model,
whose settings come from ``text_config`` in ``config.json`` (``generate`` in
``modeling_blip_2.py``). So nothing in it has an effect there, nor here; what would have is named.
"""

from __future__ import annotations

from typing import Any

from blip2cli.errors import ModelError
from blip2cli.model.checkpoint.weight_files import Checkpoint, read_json

# Settings that change texts, with the values that do not (``GenerationConfig`` of transformers).
_DEFAULTS: dict[str, Any] = {
    "bad_words_ids": None,
    "begin_suppress_tokens": None,
    "diversity_penalty": 0.0,
    "do_sample": False,
    "early_stopping": False,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "exponential_decay_length_penalty": None,
    "force_words_ids": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "guidance_scale": None,
    "length_penalty": 1.0,
    "max_new_tokens": None,
    "min_length": 0,
    "min_new_tokens": None,
    "min_p": None,
    "no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "num_beams": 1,
    "num_return_sequences": 1,
    "penalty_alpha": None,
    "renormalize_logits": False,
    "repetition_penalty": 1.0,
    "sequence_bias": None,
    "stop_strings": None,
    "suppress_tokens": None,
    "typical_p": 1.0,
}
_SAMPLING: dict[str, Any] = {"temperature": 1.0, "top_k": 50, "top_p": 1.0}
_IDS = ("bos_token_id", "decoder_start_token_id", "eos_token_id")


def unheeded_settings(checkpoint: Checkpoint) -> tuple[str, ...]:
    """What is to be said of ``generation_config.json``, as sentences."""
    file = checkpoint.path / "generation_config.json"
    if not checkpoint.family.writes or not file.is_file():
        return ()
    try:
        settings = read_json(file)
    except ModelError as error:
        return (error.problem,)  # as transformers, which goes on without it
    defaults = _DEFAULTS | (_SAMPLING if settings.get("do_sample") else {})
    ids = checkpoint.model_config.text_config
    defaults |= {name: getattr(ids, name) for name in _IDS if hasattr(ids, name)}
    found = [
        f"{name} {settings[name]}"
        for name, default in sorted(defaults.items())
        if settings.get(name) is not None and settings[name] != default
    ]
    if not found:
        return ()
    remark = (
        f"generation_config.json sets {', '.join(found)}, which BLIP-2 in transformers does not "
        "heed, nor does blip2cli: ids of tokens are those in text_config of config.json, the rest "
        "is for options"
    )
    return (remark,)
