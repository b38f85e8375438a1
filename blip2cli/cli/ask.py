"""``blip2cli ask``: answers to questions about every image."""

from __future__ import annotations

from typing import Annotated

from blip2cli.cli.flags.declare import lines, option
from blip2cli.cli.flags.decoding import DecodeFlags
from blip2cli.cli.flags.options import AskReportFlags, ModelFlags, OutputFlags, run_options
from blip2cli.cli.flags.presets import AskPreset
from blip2cli.cli.flags.resuming import ResumeFlags
from blip2cli.cli.flags.source import SourceFlags
from blip2cli.errors import OptionError
from blip2cli.options import Norm

EXAMPLES = (
    "Example:  blip2cli ask photos/ -q 'is there a dog?' -q 'what season is it?' -o out.parquet"
)
QUESTIONS = "Questions"


def ask(
    source: SourceFlags,
    *,
    question: Annotated[
        list[str] | None,
        lines(
            "--question",
            "-q",
            metavar="TEXT",
            panel=QUESTIONS,
            help="A question for every image; repeatable. {answer} in it is the answer before it.",
        ),
    ] = None,
    questions: Annotated[
        str | None,
        option(
            "--questions",
            metavar="FILE",
            panel=QUESTIONS,
            help="A .txt with one question a line, or a .jsonl, .csv or .tsv table with "
            "file_name, question and, if wanted, question_id and choices.",
            show_default=False,
        ),
    ] = None,
    template: Annotated[
        str,
        option(
            "--template",
            metavar="TEXT",
            panel=QUESTIONS,
            help="What the model reads: auto, or a text that holds {question} (a retrieval model: "
            "{choice}).",
        ),
    ] = "auto",
    choices: Annotated[
        str | None,
        option(
            "--choices",
            metavar="A,B,…",
            panel=QUESTIONS,
            help="The answers there are, separated by commas; rows get the probability of each.",
            show_default=False,
        ),
    ] = None,
    choices_file: Annotated[
        str | None,
        option(
            "--choices-file",
            metavar="FILE",
            panel=QUESTIONS,
            help="The answers there are, one a line; they may hold commas.",
            show_default=False,
        ),
    ] = None,
    choice_norm: Annotated[
        Norm,
        option(
            "--choice-norm",
            panel=QUESTIONS,
            help="Choices compare by the log-probability of the whole text, or of a token.",
        ),
    ] = "sum",
    match: Annotated[
        bool,
        option(
            "--match",
            panel=QUESTIONS,
            help="A retrieval model compares with its matching head: slower, more exact.",
        ),
    ] = False,
    preset: AskPreset = None,
    output: OutputFlags,
    resume: ResumeFlags,
    model: ModelFlags,
    decode: DecodeFlags,
    report: AskReportFlags,
) -> int:
    """Answer questions about every image: one row an image and question."""

    from blip2cli.cli.run_command import Built, perform

    def build() -> Built:
        from blip2cli.tasks import AskTask
        from blip2cli.tasks import choices as answers
        from blip2cli.tasks.questions import from_file, from_texts

        if question and questions is not None:
            raise OptionError("-q and --questions exclude each other; put all questions in one.")
        if choices is not None and choices_file is not None:
            raise OptionError(
                "--choices and --choices-file exclude each other; put all choices in one."
            )
        asked = from_file(questions) if questions is not None else from_texts(question or [])
        among = answers.from_text(choices) if choices is not None else ()
        if choices_file is not None:
            among = answers.from_file(choices_file)
        task = AskTask(asked, template, decode.options(), among, choice_norm, match)
        return task, run_options(source, model, output, resume)

    return perform(build, report)
