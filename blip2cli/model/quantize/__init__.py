"""Linear layers in eight or four bits: our own, and those of other packages on CUDA."""
