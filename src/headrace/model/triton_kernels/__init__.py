"""GPU kernels in Triton: paged attention, the cache write, norms, rotation, activations, draws.

On a machine without a GPU they run in Triton's interpreter (`TRITON_INTERPRET=1`), which is how they are tested. Only
modules that are asked for by name import this package: triton comes with PyTorch's CUDA builds, and may be missing.
"""
