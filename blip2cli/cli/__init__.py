"""The command line: parses, builds option objects, calls ``blip2cli.pipeline.run``, prints."""
