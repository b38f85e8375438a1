"""``tokenizer.json`` read by the ``tokenizers`` library, without transformers.

transformers wraps that library and changes some things on the way (``PreTrainedTokenizerFast`` in
``tokenization_utils_tokenizers.py``); importing it takes longer than a small job. So where the
files ask for none of these changes, it is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from blip2cli.model.checkpoint.weight_files import read_json

_NAMED = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
# Settings by which transformers changes what tokenizer.json says.
_CHANGING = (
    "add_bos_token",
    "add_eos_token",
    "clean_up_tokenization_spaces",
    "fix_mistral_regex",
    "split_special_tokens",
)
_LARGE = 100_000  # transformers repairs the tokenizers of some models with more tokens


class PlainTokenizer:
    """The part of a transformers tokenizer's interface that is used here."""

    def __init__(self, tokenizer: Any, bos: str | None, eos: str | None) -> None:
        self._tokenizer = tokenizer
        self.bos_token_id = None if bos is None else tokenizer.token_to_id(bos)
        self.eos_token_id = None if eos is None else tokenizer.token_to_id(eos)

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """``{"input_ids": …}``."""
        return {"input_ids": self._tokenizer.encode(text, None, False, add_special_tokens).ids}

    def get_vocab(self) -> dict[str, int]:
        """All tokens with their ids."""
        vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        return vocabulary

    @property
    def all_special_tokens(self) -> list[str]:
        """The texts of special tokens."""
        added = self._tokenizer.get_added_tokens_decoder().values()
        return [token.content for token in added if token.special]

    def __len__(self) -> int:
        """Number of tokens, added ones included."""
        count: int = self._tokenizer.get_vocab_size()
        return count

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Text of token ids."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text


def read_plain(path: Path) -> PlainTokenizer | None:
    """The tokenizer in a directory; None when only transformers reads it as it is meant.

    Raises what the library raises for a damaged file.
    """
    file = path / "tokenizer.json"
    if not file.is_file():
        return None
    settings = [
        read_json(path / name)
        for name in ("tokenizer_config.json", "special_tokens_map.json")
        if (path / name).is_file()
    ]
    if any(values.get(name) for values in settings for name in _CHANGING):
        return None
    if any(name in values for values in settings for name in ("add_bos_token", "add_eos_token")):
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    special = {
        token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special
    }
    if (
        tokenizer.post_processor is None
        or tokenizer.get_vocab_size() > _LARGE
        or not special.issuperset(_special(settings))
    ):
        return None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    bos, eos = (_first(settings, name) for name in ("bos_token", "eos_token"))
    return PlainTokenizer(tokenizer, bos, eos)


def _special(settings: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Tokens that transformers would make special ones, or add."""
    for values in settings:
        yield from (_content(values[name]) for name in _NAMED if values.get(name))
        for key in ("additional_special_tokens", "extra_special_tokens"):
            extra = values.get(key) or ()
            yield from map(_content, extra.values() if isinstance(extra, dict) else extra)
        yield from map(_content, (values.get("added_tokens_decoder") or {}).values())


def _first(settings: Sequence[dict[str, Any]], name: str) -> str | None:
    return next((_content(values[name]) for values in settings if values.get(name)), None)


def _content(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)
