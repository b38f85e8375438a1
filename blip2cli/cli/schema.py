"""``blip2cli schema``: the JSON Schema of rows."""

from __future__ import annotations

import json
from typing import Annotated

from blip2cli.cli.flags.command import Required
from blip2cli.options import SchemaOptions

EXAMPLES = (
    "blip2cli schema caption",
    "blip2cli schema errors",
)


def schema(options: Annotated[SchemaOptions, Required(("rows",))]) -> int:
    """Print the JSON Schema of rows, for programs that check or type them."""
    from blip2cli.tasks.row_schema import row_schema

    print(json.dumps(row_schema(options.rows), indent=2), flush=True)
    return 0
