"""What ``eval`` costs: ``python benchmarks/evaluation.py [--rows 1000000] [METRIC ...]``.

Writes rows and references of that many images or questions (captions with two references, answers
with ten of people, three questions an image), and prints for each metric the seconds and the peak
memory of a process that computes it with its interval, and of one that only starts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.answer_grammar import pairs
from benchmarks.caption_grammar import plain_captions

CAPTIONS, ANSWERS = ("bleu", "rouge", "cider"), ("vqa", "exact", "normalized", "yesno")
COMMAND = (sys.executable, "-m", "blip2cli")


def write_captions(folder: Path, rows: int) -> tuple[Path, Path]:
    """An output and its references."""
    out, against = folder / "captions.jsonl", folder / "references.jsonl"
    pool = plain_captions(50_000)
    source = random.Random(1)
    with out.open("w") as ours, against.open("w") as theirs:
        for number in range(rows):
            name, texts = f"{number:08}.jpg", [source.choice(pool) for _ in range(3)]
            row = {"file_name": name, "caption": texts[0], "logprob": -0.5}
            print(json.dumps(row), file=ours)
            print(json.dumps({"file_name": name, "captions": texts[1:]}), file=theirs)
    return out, against


def write_answers(folder: Path, rows: int, yes_no: bool) -> tuple[Path, Path]:
    """An output and VQA annotations, or labels that are yes or no."""
    kind = "yes_no" if yes_no else "answers"
    out, against = folder / f"{kind}.jsonl", folder / f"{kind}_references.json"
    pool = [("yes", ["yes", "no"])] if yes_no else pairs(50_000)
    with out.open("w") as ours, against.open("w") as theirs:
        theirs.write('{"annotations": [')
        for number in range(rows):
            answer, people = pool[number % len(pool)]
            people = [people[number % 2]] * 10 if yes_no else people
            name, question = f"{number // 3:08}.jpg", str(number)
            row = {"file_name": name, "question": "?", "question_id": question, "answer": answer}
            print(json.dumps(row), file=ours)
            annotation = {
                "question_id": number,
                "image_id": number // 3,
                "answers": [{"answer": text, "answer_id": n} for n, text in enumerate(people)],
            }
            theirs.write((", " if number else "") + json.dumps(annotation))
        theirs.write("]}")
    return out, against


def measured(*arguments: str) -> tuple[float, float, str]:
    """Seconds, megabytes at most, and what was printed."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen([*COMMAND, *arguments], stdout=printed)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        printed.seek(0)
        if status:
            raise SystemExit(f"{arguments} failed")
        return seconds, usage.ru_maxrss / 1024, printed.read()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("metrics", nargs="*", default=[*CAPTIONS, *ANSWERS])
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {}
        if set(given.metrics) & set(CAPTIONS):
            files |= dict.fromkeys(CAPTIONS, write_captions(folder, given.rows))
        if set(given.metrics) & set(ANSWERS):
            files |= dict.fromkeys(ANSWERS, write_answers(folder, given.rows, yes_no=False))
        if "yesno" in given.metrics:
            files["yesno"] = write_answers(folder, given.rows, yes_no=True)
        seconds, megabytes, _ = measured("--version")
        print(f"{'start':<12}{seconds:8.1f} s{megabytes:8.0f} MB")
        for metric in given.metrics:
            out, against = files[metric]
            seconds, megabytes, text = measured(
                "eval", str(out), "--against", str(against), "--metric", metric, "--json"
            )
            assert json.loads(text)["rows"] == given.rows
            print(f"{metric:<12}{seconds:8.1f} s{megabytes:8.0f} MB", flush=True)


if __name__ == "__main__":
    main()
