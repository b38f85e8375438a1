"""The command line: parses, builds option objects, calls ``blip2cli.pipeline.run``, prints."""

from blip2cli.system.early_interrupt import hide_interrupts

hide_interrupts()

from blip2cli.system.current_folder import leave_out_current_folder  # noqa: E402

leave_out_current_folder()  # before anything else is imported
