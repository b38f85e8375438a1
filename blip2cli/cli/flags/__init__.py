"""Command-line options, made from the declarations in ``blip2cli.options``."""
