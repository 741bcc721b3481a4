"""Weights in int8 or int4: the published scheme, a linear layer that holds them, and kernels for CPU and CUDA."""
