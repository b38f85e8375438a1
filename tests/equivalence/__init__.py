"""Two versions of the command compared: outputs, stderr and exit codes of many command lines.

Run as ``python -m tests.equivalence OLD NEW``; each is a checkout or a ``blip2cli`` executable.
"""
