"""What a run prints on stderr, as JSON for other programs: an object a line.

Every object has ``time`` (seconds since 1970) and ``event``, the name of an event of
``blip2cli.pipeline.events`` in lower case with underscores, or ``error`` with ``message`` and
``exit_code``. Its other keys are the event's.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict
from typing import Any, TextIO

from blip2cli.cli.terminal.spelling import with_flags
from blip2cli.pipeline.events import Event, Finished
from blip2cli.storage.secrets import hide_secrets


class JsonLog:
    """Listens to a run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        """Print ``event``."""
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(event).__name__).lower()
        values = event.summary.as_dict() if isinstance(event, Finished) else asdict(event)
        self._print(name, values)

    def error(self, message: str, exit_code: int) -> None:
        """Print why the run ended."""
        self._print("error", {"message": message, "exit_code": exit_code})

    def _print(self, name: str, values: dict[str, Any]) -> None:
        shown = {k: _shown(v) if isinstance(v, str) else v for k, v in values.items()}
        line = json.dumps({"time": round(time.time(), 3), "event": name} | shown)
        print(line.replace("\x7f", "\\u007f"), file=self._stream, flush=True)


def _shown(text: str) -> str:
    return hide_secrets(with_flags(text))
