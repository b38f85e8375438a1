"""Text to token ids and back, as the checkpoint's own tokenizer does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from blip2cli.errors import ModelError, OptionError
from blip2cli.model.checkpoint.weight_files import QFORMER_TOKENIZER, Checkpoint, read_json
from blip2cli.model.limits import shortened
from blip2cli.model.tokenizer.tokenizer import read_plain
from blip2cli.system.library_logging import silence_libraries


@dataclass(frozen=True)
class TextCodec:
    """A checkpoint's tokenizer, with what BLIP-2 expects around a prompt."""

    tokenizer: Any  # a ``PlainTokenizer``, or one of transformers
    start: int  # the whole sequence where there is no prompt
    bos: int | None  # put in front of every prompt when the tokenizer forgets it
    rows: int  # tokens that the model has an embedding of
    continued_text: str = ""  # see ``Family``
    instructions: TextCodec | None = None  # that of a Q-Former which reads prompts as well

    @cached_property
    def special_texts(self) -> tuple[str, ...]:
        """Texts that become a special token wherever they stand, such as ``</s>``."""
        return tuple(self.tokenizer.all_special_tokens)

    def encode(self, text: str | None) -> tuple[int, ...]:
        """Prompt ids, special tokens included; never empty.

        Decoders: begin token, then text. T5: text, then end token. A Q-Former: text between a
        class token and a separator.
        """
        if text is None:
            return (self.start,)
        ids = tuple(self.tokenizer(text)["input_ids"])
        if self.bos is not None and ids[:1] != (self.bos,):
            ids = (self.bos, *ids)
        return self._known(ids, text) or (self.start,)

    def encode_choices(self, choices: Sequence[str], gap: str) -> tuple[tuple[int, ...], ...]:
        """Token ids of each choice as a continuation behind ``gap``, without special tokens.

        Raises OptionError when two have the same ids, or one has none.
        """
        before = len(self._ids(self.continued_text))
        ids = tuple(self._ids(self.continued_text + gap + text)[before:] for text in choices)
        check_distinct(choices, ids)
        return ids

    def _ids(self, text: str) -> tuple[int, ...]:
        """Token ids without special tokens."""
        return self._known(tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"]), text)

    def _known(self, ids: tuple[int, ...], text: str) -> tuple[int, ...]:
        """``ids``. Raises ModelError when the model knows one of them not."""
        if ids and max(ids) >= self.rows:
            raise ModelError(
                None,
                f"the tokenizer makes the token {max(ids)} of {shortened(text)!r}, and the model "
                f"has embeddings of {self.rows} tokens",
                "take weights, config.json and tokenizer from one model",
            )
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Generated ids as text, without special tokens and outer white space."""
        text: str = self.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text.strip()


def check_distinct(
    choices: Sequence[str], ids: Sequence[tuple[int, ...]], empty: tuple[int, ...] = ()
) -> None:
    """Raise OptionError when two choices are the same tokens, or one is none.

    ``empty`` are the tokens of no choice.
    """
    first: dict[tuple[int, ...], str] = {}
    for choice, own in zip(choices, ids, strict=True):
        if own == empty:
            raise OptionError("choices", f"the model has no token for the choice {choice!r}")
        if own in first:
            raise OptionError(
                "choices",
                f"the model's tokenizer cannot tell the choices {first[own]!r} and {choice!r} "
                "apart",
                "leave one of them out",
            )
        first[own] = choice


def load_codec(checkpoint: Checkpoint, text_config: Any) -> TextCodec:
    """Load the tokenizer from the checkpoint's directory. Raises ModelError."""
    tokenizer = read_tokenizer(checkpoint.path, plain=True)
    family = checkpoint.family
    start = family.start_token(tokenizer, text_config, checkpoint.path)
    forced = _forced_bos(checkpoint, tokenizer.bos_token_id) if family.adds_begin_token else None
    config = checkpoint.model_config
    section: Any = config.text_config if family.writes else config.qformer_config
    rows = section.vocab_size
    if not 0 <= start < rows:
        raise ModelError(
            None,
            f"prompts begin with token {start}, and the model in {checkpoint.path} has embeddings "
            f"of {rows}",
            "take weights, config.json and tokenizer from one model",
        )
    instructions = None
    if config.instructed:
        own = read_tokenizer(checkpoint.path / QFORMER_TOKENIZER, plain=True)
        instructions = TextCodec(own, 0, None, config.qformer_config.vocab_size)
    return TextCodec(tokenizer, start, forced, rows, family.continued_text, instructions)


def read_tokenizer(path: Path, plain: bool = False) -> Any:
    """The tokenizer in a directory: one of transformers, or, with ``plain``, one that only reads
    and writes, where that comes to the same.

    ``tokenizer.json`` is read as it is: transformers would rebuild a GPT2Tokenizer or
    T5Tokenizer around its vocabulary and lose, for some published BLIP-2 files, what the file
    puts around a prompt. Raises ModelError when the files cannot be read.
    """
    whole = (path / "tokenizer.json").is_file()
    try:
        found = read_plain(path) if plain else None
        return _read_with_transformers(path, whole) if found is None else found
    except ModelError:
        raise
    except Exception as error:  # the tokenizers library raises bare Exception
        pieces = any((path / name).is_file() for name in ("spiece.model", "tokenizer.model"))
        if not whole and pieces and not _reads_sentencepiece():
            raise ModelError(
                None,
                f"{path} has a SentencePiece tokenizer without tokenizer.json",
                "pip install sentencepiece protobuf to read it",
            ) from error
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            None,
            f"the tokenizer in {path} cannot be read ({lines[0]})",
            "fetch its files again",
        ) from error


def _read_with_transformers(path: Path, whole: bool) -> Any:
    with silence_libraries():
        from transformers.models.auto.tokenization_auto import AutoTokenizer
        from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast

        loader: Any = PreTrainedTokenizerFast if whole else AutoTokenizer
        return loader.from_pretrained(str(path), local_files_only=True)


def _reads_sentencepiece() -> bool:
    """Whether what transformers reads such a model with is there.

    Where it is not, transformers takes the file for one of tiktoken's and asks for that instead.
    """
    from transformers.utils.import_utils import is_protobuf_available

    return find_spec("sentencepiece") is not None and bool(is_protobuf_available())


def _forced_bos(checkpoint: Checkpoint, bos: int | None) -> int | None:
    """The begin token, where the tokenizer's settings ask for one.

    OPT's published tokenizer says ``add_bos_token``; some readers of ``tokenizer.json`` do not
    look at it.
    """
    settings = checkpoint.path / "tokenizer_config.json"
    if bos is not None and settings.is_file() and read_json(settings).get("add_bos_token"):
        return bos
    return None
