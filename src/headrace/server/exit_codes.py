"""What `headrace serve` ends with."""

OK = 0
"""Stopped by a signal or by /admin/drain: everything was finished, or had its time to."""

FAILED = 1
"""Something that was not foreseen."""

USAGE = 2
"""A flag, a setting or a combination of them that cannot be."""

MODEL_NOT_LOADED = 3
"""The model is not there, or cannot run here."""

ADDRESS_NOT_AVAILABLE = 4
"""The port is taken, or the address is none of this machine."""

ENGINE_FAILED = 5
"""The engine ended again and again, and was given up."""

CUT_SHORT = 130
"""Ended at once by a second signal."""
