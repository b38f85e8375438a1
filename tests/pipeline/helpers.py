"""What tests of the pipeline share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blip2cli.model.wrapper import Blip2
from blip2cli.options import (
    DecodeOptions,
    LoaderOptions,
    ModelOptions,
    OutputOptions,
    RunOptions,
    SourceOptions,
)
from blip2cli.tasks.caption import CaptionTask

Loader = Callable[[ModelOptions], Blip2]
SHORT = DecodeOptions(max_new_tokens=6)
CAPTION = CaptionTask(decode=SHORT)


def options(folder: Path, out: Path | None = None, batch: int = 2, **output: Any) -> RunOptions:
    return RunOptions(
        source=SourceOptions((str(folder),)),
        loader=LoaderOptions(batch_size=batch, workers=0),
        output=OutputOptions(str(out) if out else None, **output),
    )


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def unwanted(options: ModelOptions) -> Blip2:
    raise AssertionError("the model was loaded")
