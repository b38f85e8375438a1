"""Answers: our VQA accuracy beside the official evaluation.

    python benchmarks/answer_metrics.py vqaEval.py [--pairs 50000] [--golden FILE]

``vqaEval.py`` is that of GT-Vision-Lab/VQA, as it is: what Python 3 does not read in it is turned
into what it does. Answers come from a written grammar (``answer_grammar``). ``--rules 2017`` is for
the file before commit a013f00; ``--golden`` writes what the tests compare with.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import types
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.answer_grammar import pairs
from blip2cli.evaluate.vqa_accuracy import vqa_score, vqa_score_2017

RULES = {"2021": vqa_score, "2017": vqa_score_2017}
SAMPLE = 50  # pairs that are written down


def digest_of(scores: Iterable[float]) -> str:
    """A digest of scores, to six digits."""
    return hashlib.sha256(",".join(f"{score:.6f}" for score in scores).encode()).hexdigest()


def their_scores(file: Path, answers: list[tuple[str, list[str]]]) -> list[float]:
    """The scores of the official evaluation."""
    code = file.read_text(encoding="utf-8").replace("\t", "    ")
    code = re.sub(r'print "[^"]*"', "pass", code)
    code = re.sub(r"^( *)self\.updateProgress\(.*$", r"\1pass", code, flags=re.MULTILINE)
    module = types.ModuleType("vqaEval")
    with warnings.catch_warnings(action="ignore"):
        exec(compile(code, str(file), "exec"), module.__dict__)
        truth = {
            number: {
                "answers": [{"answer": text, "answer_id": n} for n, text in enumerate(people)],
                "question_type": "",
                "answer_type": "",
            }
            for number, (_, people) in enumerate(answers)
        }
        given = {number: {"answer": answer} for number, (answer, _) in enumerate(answers)}
        official: Any = module.__dict__["VQAEval"](_Answers(truth), _Answers(given), n=9)
        official.evaluate()
    return [official.evalQA[number] / 100 for number in range(len(answers))]


class _Answers:
    """What the evaluation asks of its readers."""

    def __init__(self, answers: dict[int, Any]) -> None:
        self.qa = answers

    def getQuesIds(self) -> list[int]:  # noqa: N802 - as it is called there
        return list(self.qa)


def main() -> None:
    """Compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("official", type=Path)
    parser.add_argument("--pairs", type=int, default=50_000)
    parser.add_argument("--rules", choices=list(RULES), default="2021")
    parser.add_argument("--golden", type=Path)
    given = parser.parse_args()
    answers = pairs(given.pairs)
    theirs = their_scores(given.official, answers)
    ours = [RULES[given.rules](answer, people) for answer, people in answers]
    differing = [n for n, score in enumerate(ours) if abs(score - theirs[n]) > 1e-6]
    for number in differing[:10]:
        print(answers[number], ours[number], theirs[number])
    mean = sum(theirs) / len(theirs)
    print(f"{len(ours)} pairs, {len(differing)} differ; the accuracy is {mean:.6f}")
    if differing:
        raise SystemExit("not equal")
    if given.golden is not None:
        golden = json.loads(given.golden.read_text()) if given.golden.exists() else {}
        step = len(answers) // SAMPLE
        golden[given.rules] = {
            "pairs": given.pairs,
            "accuracy": round(mean, 9),
            "digest": digest_of(theirs),
            "sample": [[*answers[n], round(theirs[n], 6)] for n in range(0, len(answers), step)],
        }
        given.golden.write_text(json.dumps(golden, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
