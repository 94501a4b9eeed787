"""Training at full size on one GPU, random weights: see `benchmarks.gpu_train`."""
