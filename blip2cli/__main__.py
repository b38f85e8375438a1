"""``python -m blip2cli``."""

from __future__ import annotations

from blip2cli.cli.app import main

if __name__ == "__main__":
    main()
