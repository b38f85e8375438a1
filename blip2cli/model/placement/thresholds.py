"""Model sizes, in bytes of weights, at which a model is run in another way.

Each was measured for itself (see the modules that use it); that some are equal is chance. The
embedded models have 7 MB, OPT-2.7B in bfloat16 7.5 GB.
"""

from __future__ import annotations

# In weight files, on a CPU. Below: float32, because such a model is fast as it is, and in bfloat16
# none to one of 400 texts of the embedded models would differ.
FLOAT32_BELOW = 64 << 20
# In weight files. Below: loaded by one thread, because several only wait for one another.
SINGLE_THREADED_LOAD_BELOW = 64 << 20
# In memory, on a CPU. Below: whole batches run in parallel threads (see ``batch_threads``).
BATCH_THREADS_BELOW = 64 << 20
# In memory, on a CPU. From the previous to this: chunks of images run in parallel threads.
CHUNK_THREADS_BELOW = 1 << 30
# In memory, on a CPU: batch sizes by model size, and that of larger models.
BATCH_SIZES = ((1 << 30, 64), (8 << 30, 16))
LARGE_BATCH_SIZE = 8
