"""``blip2cli eval``: metrics of an output against references."""

from __future__ import annotations

import sys
from typing import Annotated

from blip2cli import exit_codes
from blip2cli.cli.flags.command import Required
from blip2cli.cli.terminal.evaluation_lines import evaluation_lines
from blip2cli.cli.terminal.spelling import as_json, readable
from blip2cli.options import EvalOptions

EXAMPLES = (
    "blip2cli eval captions.jsonl --against labels.csv",
    "blip2cli eval captions.jsonl --against labels.csv --fail-under cider=0.5",
)


def eval(options: Annotated[EvalOptions, Required(("rows",))]) -> int:  # noqa: A001 - the command
    """Compute metrics of an output against references, each with a 95 % interval.

    Captions: BLEU, METEOR, ROUGE-L, CIDEr, as the COCO evaluation has them. Answers: VQA accuracy,
    exact and normalized match, yes/no as POPE has it. Vectors: recall of images by texts and of
    texts by images. Exit codes: 0, or 1 when a figure is lower than asked.
    """
    from blip2cli.evaluate.run import evaluate

    found = evaluate(options)
    if options.json:
        print(as_json(found.as_dict()), flush=True)
    else:
        for line in evaluation_lines(found):
            print(readable(line), flush=True)
        for note in found.notes:
            print(readable(note), file=sys.stderr)
    short = list(found.shortfalls(options.least))
    for line in short:
        print(readable(line), file=sys.stderr)
    return exit_codes.RUN_FAILED if short else exit_codes.SUCCESS
