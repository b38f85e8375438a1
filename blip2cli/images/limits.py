"""What the options of reading may hold, checked before anything heavy is imported."""

from __future__ import annotations

from blip2cli.errors import OptionError
from blip2cli.options import LoaderOptions


def check_loading(options: LoaderOptions) -> None:
    """Raise OptionError for numbers that make no sense, alone or together."""
    if options.batch_size is not None and options.batch_size < 1:
        raise OptionError(f"--batch-size takes a positive number, not {options.batch_size}.")
    if options.workers is not None and options.workers < 0:
        raise OptionError(f"--workers takes 0 or a positive number, not {options.workers}.")
    if options.image_timeout is not None:
        if not options.image_timeout > 0:
            raise OptionError(
                f"--image-timeout takes a positive number of seconds, not {options.image_timeout}."
            )
        if options.workers == 0:
            raise OptionError(
                "--image-timeout needs worker processes, since only another process can be ended "
                "in the middle of an image; leave out --workers 0, or give --workers 1."
            )
