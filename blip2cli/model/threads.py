"""Threads of one operation (OpenMP's, inside torch), for a process of our own.

Two of torch's defaults cost much where cores are shared, with other programs or with the thread
that decodes images: it takes as many threads as the machine has cores, whatever a container's quota
leaves, and a thread that is done spins for milliseconds until the others are. Measured on two cores
at a load of seven, image encoder of ``tiny``, 64 images: with the usual spinning 1.7 to 2.9 s and
0.8 to 1.6 s of processor time; with none or 2,000 turns of it 0.5 to 0.8 s and 0.26 s; with one
thread 0.5 to 0.7 s and 0.25 s. What the user set in the environment is left alone.
"""

from __future__ import annotations

import os
import sys

from blip2cli.images.cores import available_cores

# Turns of an empty loop before a thread sleeps: what libgomp itself takes as soon as there are
# more threads than cores. Its usual number is 300,000.
SPIN = "1000"


def before_torch() -> None:
    """To be called before torch is imported: libgomp reads the environment when it is loaded."""
    if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN)


def after_torch() -> None:
    """To be called when it is there: no more threads than this process may use cores."""
    import torch

    if "OMP_NUM_THREADS" in os.environ:
        return
    cores = available_cores()
    if cores < torch.get_num_threads():
        torch.set_num_threads(cores)
