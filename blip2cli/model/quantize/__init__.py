"""Linear layers in eight bits: our own on a CPU, other libraries' on CUDA."""
