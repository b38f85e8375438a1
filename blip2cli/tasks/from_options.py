"""Tasks made from option groups, as the command line has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blip2cli.errors import OptionError, option
from blip2cli.options import AskOptions, CaptionOptions, DecodeOptions, EmbedOptions

if TYPE_CHECKING:
    from blip2cli.tasks import AskTask, CaptionTask, EmbedTask, EmbedTextsTask


def caption_task(options: CaptionOptions, decode: DecodeOptions) -> CaptionTask:
    """Captions of images."""
    from blip2cli.tasks import CaptionTask

    return CaptionTask(options.prompt, decode)


def ask_task(options: AskOptions, decode: DecodeOptions) -> AskTask:
    """Answers about images. Raises ``OptionError``, also for files that cannot be read."""
    from blip2cli.tasks import AskTask, choices, questions

    _exclude("question", options.question, "questions", options.questions, "questions")
    _exclude("choices", options.choices, "choices_file", options.choices_file, "choices")
    if options.questions is not None:
        asked = questions.from_file(options.questions)
    else:
        asked = questions.from_texts(options.question)
    among: tuple[str, ...] = ()
    if options.choices is not None:
        among = choices.from_text(options.choices)
    elif options.choices_file is not None:
        among = choices.from_file(options.choices_file)
    norm, match = options.choice_norm, options.match
    return AskTask(asked, options.template, decode, among, norm, match)


def embed_task(options: EmbedOptions, of_images: bool) -> EmbedTask | EmbedTextsTask:
    """Vectors of images, or of texts alone. Raises ``OptionError``."""
    from blip2cli.tasks import EmbedTask, EmbedTextsTask, texts
    from blip2cli.tasks.vectors import VectorOptions

    _exclude("text", options.text, "texts", options.texts, "texts")
    if options.texts is not None:
        given = texts.from_file(options.texts)
    else:
        given = texts.from_lines(options.text)
    vectors = VectorOptions(options.normalize, options.embedding_dtype)
    if of_images:
        return EmbedTask(options.kind or "image", options.pool, vectors, given)
    if options.kind == "multimodal":
        raise OptionError(
            "kind",
            f"{option('kind')} multimodal looks at images with texts",
            f"give {option('sources')} as well",
        )
    if not given:
        raise OptionError(
            "sources",
            "Nothing is embedded",
            f"give {option('sources')}, such as a folder of images, or texts with "
            f"{option('text')} or {option('texts')}",
        )
    return EmbedTextsTask(given, options.kind, options.pool, vectors)


def _exclude(first: str, value: object, second: str, other: object, what: str) -> None:
    """Raise ``OptionError`` when both of two options are given."""
    if value and other is not None:
        raise OptionError(
            second,
            f"{option(first)} and {option(second)} exclude each other",
            f"put all {what} in one",
        )
