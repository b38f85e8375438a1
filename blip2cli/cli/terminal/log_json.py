"""What a run prints on stderr, as JSON for other programs: an object a line.

Every object has ``time`` (seconds since 1970) and ``event``, the name of an event of
``blip2cli.pipeline.events`` in lower case with underscores, or ``error`` with ``message`` and
``exit_code``. Its other keys are the event's. ``progress`` also has ``images_per_second`` since the
model was ready and, where the total is known, ``seconds_left``. ``waiting`` says what the run waits
for when no rows have come for a minute.
"""

from __future__ import annotations

import re
import time
from dataclasses import asdict
from typing import Any, TextIO

from blip2cli.cli.terminal.run_summary import pace
from blip2cli.cli.terminal.spelling import as_json
from blip2cli.pipeline.events import Evaluated, Event, Finished, ModelReady, Progress


class JsonLog:
    """Listens to a run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._ready_at = 0.0  # on the monotonic clock

    def __call__(self, event: Event) -> None:
        """Print ``event``."""
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(event).__name__).lower()
        values = _values(event)
        if isinstance(event, ModelReady):
            self._ready_at = time.monotonic()
        elif isinstance(event, Progress):
            rate, left = pace(event, time.monotonic() - self._ready_at)
            values["images_per_second"] = round(rate, 4)
            values["seconds_left"] = None if left is None else round(left, 1)
        self._print(name, values)

    def error(self, message: str, exit_code: int) -> None:
        """Print why the run ended."""
        self._print("error", {"message": message, "exit_code": exit_code})

    def _print(self, name: str, values: dict[str, Any]) -> None:
        line = as_json({"time": round(time.time(), 3), "event": name} | values)
        self._stream.write(line + "\n")  # at once: a stall is announced by a thread of its own
        self._stream.flush()


def _values(event: Event) -> dict[str, Any]:
    match event:
        case Finished():
            return event.summary.as_dict()
        case Evaluated():
            return {"against": event.against} | event.metrics
    return asdict(event)
