"""Fault injection: runs that are killed, or whose disk fails, at every point, and are resumed.

The claim under test: the option ``resume`` after any interruption ends with the very output of a
run that was never interrupted, leaves nothing else behind, and every state in between is legal.

* ``kills`` kills at random instants; ``faults`` goes through every system call that touches the
  output, kills there or makes the call fail (``injection`` drives strace; ``stages`` lists the
  folders to begin with);
* ``corpora`` decodes hostile and mutated images (``mutants``, ``bombs``);
* ``report`` counts, prints, and gives the command that repeats a failed trial;
* ``stub_model`` replaces the model where only durability matters.

The commands, their legal outputs and how they are started: ``tests/workload.py``,
``tests/drawn_source.py`` and ``tests/fork_server.py``. ``make torture`` runs everything; the test
files beside this one run a sample.
"""
