"""Rewrites a loaded transformers model so that its modules run on headrace's kernels, and takes the rewrite back.

A module is recognised by what it computes, not by its name: a candidate formula is compared with the module's own
forward on random input. What holds is installed as the module's `forward`; what does not stays the model's own code.

Hooks that were on a module before are called as before; while an engine is open, a hook that is put on a part of a
replaced module is not, because the part is not called.
"""
