"""Arrow's compute kernels, and arrays, untyped: the stubs know few of the calls made here."""

from __future__ import annotations

from typing import Any

import pyarrow.compute

pc: Any = pyarrow.compute
Column = Any  # a pa.Array
