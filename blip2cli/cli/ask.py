"""``blip2cli ask``: answers to questions about every image."""

from __future__ import annotations

from typing import Annotated

from blip2cli.cli.flags.command import Required, Without
from blip2cli.options import (
    AskOptions,
    CalibrationOptions,
    DecodeOptions,
    ReportOptions,
    RunOptions,
    RunPageOptions,
)

EXAMPLES = (
    "blip2cli ask photos -q 'is there a cat?' --choices yes,no -o cats.jsonl",
    "blip2cli ask photos --questions questions.csv -o answers.jsonl",
    "blip2cli ask photos -q 'what is it?' --report things.html -o things.jsonl",
)


def ask(
    questions: AskOptions,
    run: Annotated[RunOptions, Required(("sources",))],
    decode: Annotated[DecodeOptions, Without(("num_captions",))],
    confidence: CalibrationOptions,
    page: RunPageOptions,
    report: Annotated[ReportOptions, Without(("-q",))],  # here -q is a question
) -> int:
    """Answer questions about every image: one row an image and question."""
    from blip2cli.cli.run_command import run_command
    from blip2cli.cli.run_metrics import against_answers
    from blip2cli.cli.run_page import page_of_run
    from blip2cli.pipeline.image_items import ImageItems
    from blip2cli.pipeline.job import Job
    from blip2cli.tasks import calibration, choices
    from blip2cli.tasks.ask import AskTask
    from blip2cli.tasks.questions import from_options

    templates = choices.templates_from_options(questions)
    task = AskTask(
        from_options(questions),
        questions,
        decode,
        templates or choices.from_options(questions),
        calibration=calibration.from_options(confidence),
        choices_hold_columns=bool(templates),
    )
    # Texts that are scored are no right answers.
    answers = questions.questions if questions.choices_column is None else None
    evaluate = against_answers(answers, run.output)
    write_page = page_of_run(page, run, answers if evaluate is not None else None)
    return run_command(Job(ImageItems(), task, run), report, evaluate, write_page)
