"""OpenMP settings: how many threads torch's operations have, and how long they spin.

Two of torch's defaults cost much where cores are shared, with other programs or with the thread
that decodes images: it takes as many threads as the machine has cores, whatever a container's quota
leaves, and a thread that is done spins for milliseconds until the others are. One that sleeps at
once, though, has to be woken for every operation. Measured on two cores, OPT of width 512 writing
16 captions in bfloat16, seconds, by the number of spins, on an idle machine and beside six busy
processes:

============ ============ ============ ============ ============ ============
spins        1,000        5,000        20,000       50,000       300,000
============ ============ ============ ============ ============ ============
idle         0.62         0.52         0.44         0.43         0.43
beside six   2.9          2.8          2.5 to 3.8   4.2 to 8.8   15
============ ============ ============ ============ ============ ============

What the user set in the environment is not changed.
"""

from __future__ import annotations

import os
import sys

from blip2cli.system.cores import available_cores

# Iterations of an empty loop before a thread sleeps. libgomp's usual number is 300,000, and 1,000
# where there are more threads than cores.
SPIN = "20000"


def before_torch() -> None:
    """Set the spin count. Call it before torch is imported: libgomp reads the environment once."""
    if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN)


def after_torch() -> None:
    """Limit torch's threads to the cores of this process. Call it when torch is imported."""
    import torch

    if "OMP_NUM_THREADS" in os.environ:
        return
    cores = available_cores()
    if cores < torch.get_num_threads():
        torch.set_num_threads(cores)
