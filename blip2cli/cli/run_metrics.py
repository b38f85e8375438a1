"""Metrics at the end of a run: its finished output compared with references."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from blip2cli.cli.terminal.evaluation_lines import figure_lines
from blip2cli.cli.terminal.spelling import sentence
from blip2cli.errors import Blip2CliError, OptionError, option
from blip2cli.exit_codes import FAILED_IMAGES, SUCCESS
from blip2cli.pipeline.events import Evaluated, Listener, Remark, Summary
from blip2cli.sinks.paths import to_stdout
from blip2cli.storage.opening import is_remote

if TYPE_CHECKING:
    from blip2cli.evaluate.evaluation import Evaluation
    from blip2cli.evaluate.references import References
    from blip2cli.options import OutputOptions

    # What an output was compared with, and what came of it.
    Judged = tuple[References, Evaluation]

Evaluate = Callable[[], "Judged"]
FINISHED = (SUCCESS, FAILED_IMAGES)  # exit codes of runs whose output is complete


def against_references(path: str | None, output: OutputOptions) -> Evaluate | None:
    """How captions are compared with the references of ``path``. Raises UserError."""
    if path is None:
        return None
    if output.out is None or to_stdout(output) or is_remote(output.out):
        raise OptionError(
            "references",
            f"{option('references')} compares an output with references, and there is none to read",
            f"write into a local file with {option('out')}",
        )
    from blip2cli.evaluate.metric_table import QUICK_CAPTION_METRICS
    from blip2cli.evaluate.read_references import read_references

    references = read_references(path, "references")
    return partial(_evaluate, references, output.out, QUICK_CAPTION_METRICS)


def against_answers(path: str | None, output: OutputOptions) -> Evaluate | None:
    """How answers are compared with those in the file of questions; None where it has none.

    What an output on stdout or another machine holds is not read back.
    """
    if path is None or output.out is None or to_stdout(output) or is_remote(output.out):
        return None
    from blip2cli.evaluate.question_answers import answer_column

    column = answer_column(path)
    if column is None:
        return None
    from blip2cli.evaluate.read_references import read_references

    out = output.out

    def evaluate() -> Judged:
        return _evaluate(read_references(path, "questions", column), out, ())

    return evaluate


def report_metrics(
    evaluate: Evaluate, summary: Summary, summary_file: str | None, listener: Listener
) -> Judged | None:
    """Hand the metrics to the listener, and write them into the file of the summary.

    What prevents it is a remark: the run itself is good. Raises OutputError.
    """
    from blip2cli.pipeline.summary_file import write_summary

    try:
        references, found = evaluate()
    except Blip2CliError as error:
        listener(Remark(f"The metrics could not be computed: {sentence(error).rstrip('.')}"))
        return None
    metrics = found.as_dict()
    lines = [f"Against {references.path}, with 95 % intervals:", *figure_lines(found.figures)]
    listener(Evaluated(references.path, metrics, (*lines, *found.notes)))
    if summary_file is not None:
        write_summary(summary_file, replace(summary, metrics=metrics))
    return references, found


def _evaluate(references: References, out: str, metrics: tuple[str, ...]) -> Judged:
    from blip2cli.evaluate.read_rows import Table
    from blip2cli.evaluate.run import evaluate_rows
    from blip2cli.options import EvalOptions

    rows = Table.of("rows", (out,))
    return references, evaluate_rows(rows, references, EvalOptions(metric=metrics))
