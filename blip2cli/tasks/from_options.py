"""Tasks built from the option groups of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blip2cli.errors import OptionError, option
from blip2cli.options import AskOptions, CaptionOptions, DecodeOptions, EmbedOptions

if TYPE_CHECKING:
    from blip2cli.tasks import AskTask, CaptionTask, EmbedTask, EmbedTextsTask
    from blip2cli.tasks.texts import Texts


def caption_task(options: CaptionOptions, decode: DecodeOptions) -> CaptionTask:
    """Captions of images."""
    from blip2cli.tasks import CaptionTask

    return CaptionTask(options, decode)


def ask_task(options: AskOptions, decode: DecodeOptions) -> AskTask:
    """Answers about images. Raises ``OptionError``, also for files that cannot be read."""
    from blip2cli.tasks import AskTask, choices, questions

    _exclude("question", options.question, "questions", options.questions, "questions")
    _exclude("choices", options.choices, "choices_file", options.choices_file, "choices")
    if options.questions is not None:
        all_questions = questions.from_file(options.questions)
    else:
        all_questions = questions.from_texts(options.question)
    all_choices: tuple[str, ...] = ()
    if options.choices is not None:
        all_choices = choices.from_text(options.choices)
    elif options.choices_file is not None:
        all_choices = choices.from_file(options.choices_file)
    return AskTask(all_questions, options, decode, all_choices)


def embedded_texts(options: EmbedOptions) -> Texts:
    """The texts that are embedded, or looked at beside images. Raises ``OptionError``."""
    from blip2cli.tasks import texts

    _exclude("text", options.text, "texts", options.texts, "texts")
    if options.texts is not None:
        return texts.from_file(options.texts)
    return texts.from_lines(options.text)


def embed_task(options: EmbedOptions, texts: Texts) -> EmbedTask:
    """Vectors of images, with ``texts`` beside each. Raises ``OptionError``."""
    from blip2cli.tasks import EmbedTask

    return EmbedTask(options, texts)


def embed_texts_task(options: EmbedOptions, texts: Texts) -> EmbedTextsTask:
    """Vectors of texts without images. Raises ``OptionError``, also when there are no texts."""
    from blip2cli.tasks import EmbedTextsTask

    if options.kind == "multimodal":
        raise OptionError(
            "kind",
            f"{option('kind')} multimodal looks at images with texts",
            f"give {option('sources')} as well",
        )
    if not texts:
        raise OptionError(
            "sources",
            "Nothing is embedded",
            f"give {option('sources')}, such as a folder of images, or texts with "
            f"{option('text')} or {option('texts')}",
        )
    return EmbedTextsTask(options)


def _exclude(first: str, value: object, second: str, other: object, what: str) -> None:
    """Raise ``OptionError`` when both of two options are given."""
    if value and other is not None:
        raise OptionError(
            second,
            f"{option(first)} and {option(second)} exclude each other",
            f"put all {what} in one",
        )
