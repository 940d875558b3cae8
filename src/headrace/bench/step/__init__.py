"""`headrace bench step`: where the time of one step goes, part by part, beside what the machine could do.

::

    command ─► measure: a real engine, step by step ─► StepSplit ─► report: table, JSON
                  │  instrument puts a stopwatch around kernels, attention, linear layers, sampler
                  └─ roofline: memory bandwidth and GEMM peak, measured before

An engine that is not benched has none of this: the stopwatch is put around functions from outside, and taken off.
"""
