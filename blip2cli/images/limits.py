"""What the options of reading may hold, checked before anything heavy is imported."""

from __future__ import annotations

from blip2cli.errors import OptionError, option
from blip2cli.options import LoaderOptions


def check_loading(options: LoaderOptions) -> None:
    """Raise OptionError for numbers that make no sense, alone or together."""
    if options.batch_size is not None and options.batch_size < 1:
        raise OptionError(
            "batch_size",
            f"{option('batch_size')} takes a positive number, not {options.batch_size}",
        )
    if options.workers is not None and options.workers < 0:
        raise OptionError(
            "workers", f"{option('workers')} takes 0 or a positive number, not {options.workers}"
        )
    if options.image_timeout is not None:
        if not options.image_timeout > 0:
            raise OptionError(
                "image_timeout",
                f"{option('image_timeout')} takes a positive number of seconds, not "
                f"{options.image_timeout}",
            )
        if options.workers == 0:
            raise OptionError(
                "image_timeout",
                f"{option('image_timeout')} needs worker processes, since only another process can "
                "be ended in the middle of an image",
                f"leave out {option('workers')} 0, or give {option('workers')} 1",
            )
