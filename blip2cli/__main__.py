"""``python -m blip2cli``."""

from __future__ import annotations

from blip2cli.system.current_folder import leave_out_first_folder

if __name__ == "__main__":
    leave_out_first_folder()  # before anything else is imported
    from blip2cli.cli.app import main

    main()
