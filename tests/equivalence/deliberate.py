"""What differs from the old version on purpose. Everything else that differs is a failure."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Reworded:
    """Text of the old version, as a regular expression, and what stands there now."""

    old: str
    new: str
    why: str


@dataclass(frozen=True)
class Deliberate:
    """Parts of cases that differ; both are regular expressions that match the whole name."""

    case: str
    part: str
    why: str


REWORDED: tuple[Reworded, ...] = (
    Reworded(r'"num_return"', '"num_captions"', "the setting has the name of its option"),
    Reworded(r"^num_return: ", "num_captions: ", "the setting has the name of its option"),
    Reworded(
        r"(given with |question with |blip2cli: )-q\b",
        r"\1--question",
        "options by their long names",
    ),
    Reworded(
        r"(--texts \S+) cannot be read: No such file or directory",
        r"\1: there is no such file",
        "the same sentence for all files of texts",
    ),
    Reworded(r"name it with -o\.", "name it with --output.", "options by their long names"),
    Reworded(
        r"folder; --absolute-paths allows that",
        "folder, which was not allowed",
        "lists of failures name no option",
    ),
    Reworded(r"the cause is mended", "the cause is removed", "plain words"),
    Reworded(r"because they lay in a", "because they were in a", "plain words"),
    Reworded(r'"questions": \[', '"question": [', "the setting has the name of its option"),
    Reworded(r'"questions_file"', '"questions"', "the setting has the name of its option"),
    Reworded(r"^questions: \[", "question: [", "the setting has the name of its option"),
    Reworded(r"^questions_file: ", "questions: ", "the setting has the name of its option"),
    Reworded(r'"mend"', '"remedy"', "doctor says remedy"),
    Reworded(r"--help lists them", "--help-all lists them", "the short help lists the common ones"),
    Reworded(r'"error": null', '"error": ""', "a column of text from the first row on"),
)

DELIBERATE: tuple[Deliberate, ...] = (
    Deliberate("help: .*", "1.stdout", "help is made from the declarations, in their order"),
    Deliberate(
        "(usage: .* --batch-size.*|environment: number)",
        "1.stderr",
        "refused by the option itself, without a pointer",
    ),
    Deliberate(
        "decoding: embed --text a .* --include x --fast-decode",
        "1.stderr",
        "of two options about images the other is named",
    ),
    Deliberate("doctor of a broken model", "5.stdout", "remedies have no full stop in JSON"),
    Deliberate(
        "caption a (CSV|TSV|JSONL|Parquet) table", ".*", "rows of manifests are numbered an image"
    ),
    Deliberate("convert answers", "5.stderr", "a file of --questions, not a --questions file"),
    Deliberate("convert and merge", "8.stderr", "the command is quoted, the sentence ends"),
    Deliberate(
        "embed texts", "4.stderr", "with -v the phases of the start are shown for texts too"
    ),
    Deliberate(
        r"conversion: convert rows.jsonl out(\.json|\.npy|\.tar)?( --to \w+)?",
        "1.stderr",
        "problem and remedy in one sentence",
    ),
    Deliberate("conversion: convert bad.jsonl out.csv", "1.stderr", "plain words"),
    Deliberate(
        "ask (with choices|a retrieval model|damaged images, inline)|convert answers",
        r"file:.*\.(parquet|csv)",
        "the column choice_mass, and settings that stand for columns",
    ),
    Deliberate(
        r"decoding: caption photos --model tiny --prompt 'zzzz \{answer\}' --dry-run",
        ".*",
        "a name in braces is a column of the source",
    ),
    Deliberate(
        "conversion: .* --quiet --verbose", ".*", "a contradiction everywhere, in convert as well"
    ),
)


# JSON of the new version that the old one lacks: columns and settings that were added.
ADDED: tuple[str, ...] = (
    r', "choice_(mass|scores)": [^,}\]]+',
    r', "images_per_second": [^,}\]]+, "seconds_left": [^,}\]]+',  # of events of progress
)


def reword(text: str) -> str:
    """``text`` of the old version in the words of the new one."""
    for each in REWORDED:
        text = re.sub(each.old, each.new, text, flags=re.MULTILINE)
    return text


def without_added(text: str) -> str:
    """``text`` of the new version without what it adds."""
    for each in ADDED:
        text = re.sub(each, "", text)
    return text


def reason(case: str, part: str) -> Deliberate | None:
    """The entry that allows this part of this case to differ, if there is one."""
    for each in DELIBERATE:
        if re.fullmatch(each.case, case) and re.fullmatch(each.part, part):
            return each
    return None
