"""The command line: parses, builds option objects, calls ``blip2cli.pipeline.run``, prints."""

from blip2cli.system.current_folder import leave_out_current_folder

leave_out_current_folder()  # before anything else is imported

from blip2cli.system.early_interrupt import hide_interrupts  # noqa: E402

hide_interrupts()
