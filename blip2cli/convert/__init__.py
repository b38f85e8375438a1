"""Conversions: results into other formats and back, and checkpoints into other layouts."""

from blip2cli.convert.run import Converted, convert
from blip2cli.options import ConvertOptions

__all__ = ["ConvertOptions", "Converted", "convert"]
