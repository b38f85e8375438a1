"""Who computes the rows of a run: threads of this process, or worker processes with a device each.

``base`` is the protocol that a run speaks with them. What a worker runs, wherever it is, is a
``Replica``: references in, rows out.
"""
