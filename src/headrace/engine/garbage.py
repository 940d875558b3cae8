"""Python's garbage collector, out of the way of imports.

torch and transformers make some 600,000 objects that stay. The collector goes through all that there are again and
again while they become more, and finds next to nothing: 0.8 of the 3.0 s until a small model is loaded.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collections_paused() -> Iterator[None]:
    """No collection inside, on any thread; what is in no cycle is freed as ever.

    What was made inside counts as old afterwards, as what a collection has found in use.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            if not gc.get_freeze_count():  # what others have frozen stays so
                gc.freeze()  # a way into the oldest generation without the 0.3 s of a collection
                gc.unfreeze()
            gc.enable()


def leave_out_of_collections() -> None:
    """What there is now stays: no later collection, during which nothing else runs, looks at it (0.3 s each).

    For a process of headrace's own, when it is ready.
    """
    gc.freeze()
