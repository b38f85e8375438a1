"""Arrow's compute kernels and arrays without types: the stubs know few of the calls made here."""

from __future__ import annotations

from typing import Any

import pyarrow.compute

pc: Any = pyarrow.compute
Array = Any  # a pa.Array
