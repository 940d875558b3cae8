"""The CPU kernels: a compiled library behind a C interface (csrc/headrace.h), and typed wrappers over torch tensors."""
