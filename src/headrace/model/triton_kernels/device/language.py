"""What every kernel here shares: whether it is interpreted, and a product that is the same either way."""

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))
"""Whether kernels of this process run in Triton's interpreter, on CPU tensors."""

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def dot(a, b):
    """The product a · b, summed in float32; float32 is not rounded to tf32. The interpreter has none of bfloat16."""
    if INTERPRETED:
        product = tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    else:
        product = tl.dot(a, b, input_precision="ieee")
    return product
