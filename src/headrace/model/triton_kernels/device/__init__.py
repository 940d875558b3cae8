"""Code that Triton compiles for the device; its types are the kernels' own, and constants of a kernel are capital."""
