"""How sinks write text: see ``blip2cli.storage.text_encoding``, which sources read with as well."""

from __future__ import annotations

from blip2cli.storage.text_encoding import from_utf8, to_json, to_utf8

__all__ = ["from_utf8", "to_json", "to_utf8"]
