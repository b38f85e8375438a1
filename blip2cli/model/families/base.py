"""What a language model family is: one frozen object with all that is particular to it.

Reading the data here needs no torch. A method that runs a network imports it inside, so that the
command line can ask a family what it can do before anything heavy is loaded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from blip2cli.errors import ModelError, OptionError, option
from blip2cli.model.families.config_section import ConfigSection

if TYPE_CHECKING:
    from torch import Tensor, nn

    from blip2cli.model.decoding.session import DecoderSession
    from blip2cli.model.vision.features import ImageFeatures


@dataclass(frozen=True)
class TextSize:
    """What a language model takes, in numbers of its precision."""

    width: int  # of a layer
    inner: int  # of its feed-forward part
    cached: int  # keys and values of one position, in all layers
    vocabulary: int
    weights: int  # about


@dataclass(frozen=True)
class TextConfig(ConfigSection, ABC):
    """``text_config``: the language model's section of ``config.json``."""

    vocab_size: int
    pad_token_id: int | None
    bos_token_id: int | None
    eos_token_id: Any  # one id or several

    @property
    @abstractmethod
    def width(self) -> int:
        """Of the states that go from layer to layer."""

    @property
    @abstractmethod
    def embed_width(self) -> int:
        """Of the word embeddings, and of the states that the output matrix reads."""

    @property
    @abstractmethod
    def positions(self) -> int | None:
        """The most positions a sequence may have; None: no limit."""

    @property
    @abstractmethod
    def size(self) -> TextSize:
        """What the model takes."""

    @property
    def ties_embeddings(self) -> bool:
        """Whether one matrix may stand for input embedding and output matrix in the files."""
        return True

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """The token ids that end a text, as transformers' ``generate`` takes them."""
        end = self.eos_token_id
        several = end if isinstance(end, list) else [] if end is None else [end]
        # One outside the vocabulary is never generated.
        return tuple(dict.fromkeys(each for each in several if 0 <= each < self.vocab_size))


@dataclass(frozen=True)
class Family(ABC):
    """One kind of BLIP-2 model, by the network behind its Q-Former.

    A ``LanguageFamily`` generates texts about images. The retrieval family has no language model:
    it scores images against texts.
    """

    writes: ClassVar[bool] = False  # whether it generates texts

    name: str  # as ``doctor`` shows it
    label: str  # after "a model", in messages
    model_type: str  # of the language model's own config.json (retrieval: the tokenizer's)
    architecture: str  # the class of transformers that holds the whole model
    config_class: type[TextConfig]
    lavis_key: str  # the weight by which its checkpoints of LAVIS are known
    # Names in LAVIS and here of the weights that the other families lack: {n} is a number, {p}
    # weight or bias, {rest} anything.
    lavis_names: tuple[tuple[str, str], ...]
    lavis_dtype: str | None = None  # what LAVIS casts the language model to
    # The special tokens that LAVIS sets in the tokenizer, by their names there.
    lavis_tokens: tuple[tuple[str, str], ...] = ()
    encoder_decoder: bool = False
    template: str = ""  # the paper's prompt for a question
    end_text: str | None = None  # text whose one token ends a text; None: the tokenizer's end token
    tied_embeddings: bool = False  # published models read and write with one matrix
    adds_begin_token: bool = False  # to prompts, where tokenizer_config.json says add_bos_token
    continued_text: str = ""  # what the tokenizer has to read in front of the rest of a line
    unfit_dtypes: tuple[str, ...] = ()  # precisions that it does not bear …
    unfit_because: str = ""  # … and why
    word_weights: tuple[str, ...] = ()  # the language model's matrices with one row a token
    # Other names that files give a weight, of the whole model, and the name it has here.
    weight_aliases: tuple[tuple[str, str], ...] = ()
    # Of those, the names of layers that read the matrix themselves, and what theirs is called here
    # once an adapter has changed one of them.
    separate_words: tuple[tuple[str, str], ...] = ()

    def check_dtype(self, dtype: str) -> None:
        """Raise OptionError when the model gives wrong results in this precision."""
        if dtype in self.unfit_dtypes:
            raise OptionError(
                "dtype",
                f"{option('dtype')} {dtype} {self.unfit_because}",
                f"use {option('dtype')} bfloat16 or float32",
            )

    @abstractmethod
    def start_token(self, tokenizer: Any, config: Any, path: Path) -> int:
        """The token that is the whole sequence where there is no prompt.

        ``config`` is the text config, ours or transformers'; ``path`` is where the tokenizer was
        read. Raises ModelError when neither of the two names it.
        """

    def split_gap(self, prompt: str) -> tuple[str, str]:
        """What is read before an answer, and the blanks that the answer itself begins with.

        A decoder goes on in the line of the prompt, and the blank before a word belongs to the
        word's token: a prompt that kept it would leave the answer a first token the model never
        learnt. After a line break there is none.
        """
        bare = prompt.rstrip(" ")
        return bare, prompt[len(bare) :] or ("" if bare.endswith(("\n", "\t")) else " ")

    def weight_name(self, name: str) -> str:
        """The language model's name of a weight that its own checkpoint calls ``name``."""
        return name


class LanguageFamily(Family):
    """A family with a language model."""

    writes: ClassVar[bool] = True

    @abstractmethod
    def language_model(self, config: Any) -> nn.Module:
        """The language model's network, its weights not filled in. ``config`` is its text config.

        It has ``input_embeddings``, the embedding of the tokens it reads, and ``lm_head``, the
        output matrix.
        """

    @abstractmethod
    def open_session(self, model: Any, features: ImageFeatures) -> DecoderSession:
        """The language model of ``model`` (a ``GenerationModel``) with the images of one batch."""

    @abstractmethod
    def text_states(self, language: Any, ids: Tensor) -> Tensor:
        """The language model's last hidden state of texts without an image, [N, T] to [N, T, D].

        ``get_text_features`` of transformers' ``Blip2Model``.
        """


def first_id(*ids: int | None) -> int:
    """The first id that is one. Raises ModelError when none is."""
    for value in ids:
        if value is not None:
            return int(value)
    raise ModelError(
        None, "neither config.json nor the tokenizer names a begin token (bos_token_id)"
    )
