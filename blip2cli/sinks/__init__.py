"""Where rows go: one writer a format, chosen by the suffix of the output (see ``format_table``)."""

from blip2cli.sinks.base import IDENTITY, Column, RowSchema, Sink
from blip2cli.sinks.check_output import check_output
from blip2cli.sinks.differences import check_settings
from blip2cli.sinks.failure_list import FailureList
from blip2cli.sinks.failure_list_journal import old_failure_list
from blip2cli.sinks.journal import check_whole
from blip2cli.sinks.lock import OutputLock, lock_of
from blip2cli.sinks.open_output import ResumedOutput, open_failure_list, open_sink, read_output
from blip2cli.sinks.paths import to_stdout
from blip2cli.sinks.settings import Settings, adapted_weights, both_weights, new_token

__all__ = [
    "IDENTITY",
    "Column",
    "FailureList",
    "OutputLock",
    "ResumedOutput",
    "RowSchema",
    "Settings",
    "Sink",
    "adapted_weights",
    "both_weights",
    "check_output",
    "check_settings",
    "check_whole",
    "lock_of",
    "new_token",
    "old_failure_list",
    "open_failure_list",
    "open_sink",
    "read_output",
    "to_stdout",
]
