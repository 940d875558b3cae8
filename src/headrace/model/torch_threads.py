"""torch's own threads, beside the kernels' pool.

Both pools spin for a while when they run out of work, torch's for milliseconds. Where the kernels do the products,
what is left to torch (an embedding, a few cosines) is microseconds of work whose second thread then keeps a core from
the kernels: at 64 decodes of shape S on two cores a step took 21 ms with two torch threads and 12.9 ms with one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from headrace.model.surgery.lease import is_lent

_MOST_LEFT = 0.05


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """One torch thread for what the calling thread does inside.

    For a handful of small forwards with pauses between them: a second thread has gone to sleep each time, and where it
    is woken on the caller's core the product waits for the system's next look at its cores (12 ms for one of 0.03 ms).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class TorchThreads:
    """Lowers torch's threads to one for the calling thread, where the kernels hold nearly all of a model's matrices.

    OpenMP keeps the number per thread, so the threads of who uses torch beside an engine keep theirs; a thread that
    uses torch for the first time meanwhile starts with one.
    """

    def __init__(self, model: nn.Module) -> None:
        """Look at the model, after surgery."""
        self._applies = left_to_torch(model) <= _MOST_LEFT
        self._before: int | None = None

    def lower(self) -> None:
        """Lower them; to be called on the thread that runs the model. Does nothing the second time."""
        if self._applies:
            self._applies = False
            before = torch.get_num_threads()
            if before > 1:
                self._before = before
                torch.set_num_threads(1)

    def restore(self) -> None:
        """As they were."""
        if self._before is not None:
            torch.set_num_threads(self._before)
            self._before = None


def left_to_torch(model: nn.Module) -> float:
    """Share (0..1) of the elements of a model's matrices that torch multiplies; embeddings are looked up, not that."""
    looked_up = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    matrices = [p for p in model.parameters() if p.dim() >= 2 and id(p) not in looked_up]
    total = sum(p.numel() for p in matrices)
    return sum(p.numel() for p in matrices if not is_lent(p)) / total if total else 1.0
