"""Log-probabilities of answers by transformers, for comparison."""

from __future__ import annotations

import torch

from blip2cli.model.families import OPT
from tests.model.conftest import Pair


def reference_score(pair: Pair, image: int, text: str, choice: str) -> tuple[float, int]:
    """Log-probability of ``choice`` and its end, by one forward on this image alone."""
    tokenizer, theirs = pair.ours.codec.tokenizer, pair.theirs
    pixels = pair.pixel_values[image : image + 1].to(theirs.dtype)
    end = theirs.config.text_config.eos_token_id
    if pair.ours.family is OPT:
        prompt = list(pair.ours.codec.encode(text.rstrip()))
        whole = list(pair.ours.codec.encode(f"{text.rstrip()} {choice}"))
        assert whole[: len(prompt)] == prompt
        answer = [*whole[len(prompt) :], end]
        filler = [theirs.config.image_token_index] * theirs.config.num_query_tokens
        ids = torch.tensor([filler + prompt + answer])
        with torch.no_grad():
            out = theirs(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids))
        logits = out.logits[0, len(filler) + len(prompt) - 1 : -1]
    else:
        answer = tokenizer(f" {choice}")["input_ids"]
        assert answer[-1] == end
        filler = [theirs.config.image_token_index] * theirs.config.num_query_tokens
        ids = torch.tensor([filler + list(tokenizer(text)["input_ids"])])
        start = theirs.config.text_config.decoder_start_token_id
        decoder = torch.tensor([[start, *answer[:-1]]])
        with torch.no_grad():
            out = theirs(
                pixel_values=pixels,
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                decoder_input_ids=decoder,
            )
        logits = out.logits[0]
    assert len(logits) == len(answer)
    said = logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None])
    return said.sum().item(), len(answer)
