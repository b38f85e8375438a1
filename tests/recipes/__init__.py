"""The recipes of the page about architecture, followed: what each adds is used as a command.

Each module but the test adds one thing the way its recipe says, and then is the command itself.
"""
