"""Kernels in C for x86 processors, and how they are compiled."""
