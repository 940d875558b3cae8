"""The engine: requests, scheduling, cache, the step loop, and its Python interfaces."""
