"""Proof of durability: runs that are killed, or whose disk fails, at every point one can think of.

What is claimed: ``blip2cli … --resume`` after any interruption ends with the very output of a run
that was never interrupted, leaves nothing else behind, and every state in between is a legal one.

* ``zygote`` starts the command in a fraction of its usual time, thousands of times,
  with the model or, quicker still, a ``standin`` for it;
* ``sources`` draws the images, ``work`` knows the commands and what their outputs have to be;
* ``kills`` kills at random instants, ``faults`` at every system call that touches the output,
  and makes each of them fail (through ``injection``, which drives strace);
* ``report`` counts, prints, and says how to repeat what failed.

``make torture`` runs everything; the test files beside this one run a sample.
"""
