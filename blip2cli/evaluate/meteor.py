"""METEOR 1.5 through its own jar, as the COCO caption evaluation calls it (Denkowski and Lavie).

The jar computes counts of each candidate, and the score of counts. Those of several images are
summed here, which is what it does itself, so resampled scores cost one line each. It comes with
the package pycocoevalcap, or from its authors.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from typing import IO

import numpy as np

from blip2cli.errors import RunError, SourceError, option
from blip2cli.evaluate.key_index import Numbers
from blip2cli.evaluate.ptb_tokenizer import tokenize
from blip2cli.evaluate.statistics import Statistics

MOST_ROWS = 20_000  # that METEOR is computed for without being asked: it takes about 10 ms each
_PLACES = [0, 1, 20, 21, 22]  # words of both, chunks, matched words of both
_NAME = "meteor-1.5.jar"


def find_jar(given: str | None) -> str | None:
    """The jar that is given, or that of an installed pycocoevalcap; None where Java or the jar is
    missing. Raises SourceError for a file that is not there."""
    if given is not None and not os.path.isfile(given):
        raise SourceError("meteor_jar", f"There is no file {given!r}", "check the path")
    if shutil.which("java") is None:
        return None
    if given is not None:
        return os.path.abspath(given)
    package = importlib.util.find_spec("pycocoevalcap")
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        path = os.path.join(folder, "meteor", _NAME)
        if os.path.isfile(path):
            return path
    return None


def statistics(pairs: Iterable[tuple[str, list[str]]], jar: str) -> Statistics:
    """Counts of each candidate with its references. Raises RunError when Java fails."""
    with _running(jar) as meteor:
        rows = []
        for candidate, references in pairs:
            texts = [_words(text) for text in references]
            rows.append(meteor.ask("SCORE ||| " + " ||| ".join([*texts, _words(candidate)])))
    values = np.array([row.split() for row in rows], float)
    # The jar leaves the one chunk of a perfect match out of its sums.
    words, reference_words, chunks, matches, reference_matches = values[:, _PLACES].T
    perfect = (chunks == 1) & (matches == words) & (reference_matches == reference_words)
    values[perfect, _PLACES[2]] = 0
    return Statistics(("meteor",), values, lambda sums: _scores(jar, sums))


def _scores(jar: str, sums: Numbers) -> Numbers:
    """The scores of summed counts, ``[..., width]`` → ``[..., 1]``."""
    flat = sums.reshape(-1, sums.shape[-1])
    with _running(jar) as meteor:
        found = []
        for row in flat:
            # The jar prints the score of each candidate and that of all.
            meteor.ask("EVAL ||| " + " ".join(f"{value:.1f}" for value in row))
            found.append(float(meteor.read()))
    return np.array(found).reshape(*sums.shape[:-1], 1)


def _words(text: str) -> str:
    return " ".join(tokenize(text)).replace("|||", "")


class _Meteor:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._in: IO[bytes] = process.stdin  # type: ignore[assignment] # both are pipes
        self._out: IO[bytes] = process.stdout  # type: ignore[assignment]

    def ask(self, line: str) -> str:
        """The line that is answered. Raises RunError."""
        try:
            self._in.write(line.encode() + b"\n")
            self._in.flush()
        except BrokenPipeError:
            pass  # the empty answer says it
        return self.read()

    def read(self) -> str:
        """The next line. Raises RunError."""
        line = self._out.readline().decode().strip()
        if not line:
            raise RunError(
                None,
                "The Java process of METEOR ended before its answer",
                f"leave {option('metric')} meteor out, or give another {option('meteor_jar')}",
            )
        return line


@contextlib.contextmanager
def _running(jar: str) -> Iterator[_Meteor]:
    command = ["java", "-jar", "-Xmx2G", jar, "-", "-", "-stdio", "-l", "en", "-norm"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, cwd=os.path.dirname(jar), stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL
    )
    with process:
        try:
            yield _Meteor(process)
        finally:
            process.kill()
