"""The recipes of docs/architecture.md, followed: what each adds is used through the command.

Each module but the test adds one thing the way its recipe says, and then is the command itself.
"""
