"""Replaces modules one by one, each proven against itself, and puts all of them back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from headrace.model.surgery.lease import Lease, Terms
from headrace.model.surgery.numerics import difference, tolerance
from headrace.model.surgery.report import SurgeryReport

Forward = Callable[..., Any]


class Operation:
    """The replaced modules of one model.

    Attributes:
        report: grows with every module.
    """

    def __init__(self, terms: Terms) -> None:
        """Of nothing yet."""
        self.terms = terms
        self.report = SurgeryReport()
        self._replaced: dict[nn.Module, Lease] = {}

    @property
    def replaced(self) -> list[nn.Module]:
        """The replaced modules."""
        return list(self._replaced)

    def is_free(self, module: nn.Module) -> bool:
        """Whether nobody has put a forward of his own on the module (we, or accelerate)."""
        return "forward" not in module.__dict__

    def replace(self, kind: str, module: nn.Module, build: Callable[[Lease], Forward], run: Callable[[], Any]) -> bool:
        """Give a module another forward, if it computes the same.

        Args:
            kind: for the report. build: packs weights and makes the forward. run: calls the module on a sample.

        Returns:
            Whether it holds; if not the module is as it was.
        """
        name = type(module).__name__
        expected = first_tensor(run())
        lease = Lease(self.terms)
        try:
            module.forward = build(lease)
            found = difference(first_tensor(run()), expected)
        except (ValueError, MemoryError, OSError) as error:
            return self._drop(kind, module, str(error))
        allowed = tolerance(self.terms.dtype)
        if found > allowed:
            return self._drop(kind, module, f"differs by {found:.1g} from the module itself, {allowed:g} is allowed")
        lease.settle()
        self._replaced[module] = lease
        self.report.fused[kind, name] += 1
        self.report.packed_bytes += lease.num_bytes
        return True

    def skip(self, kind: str, module: nn.Module, reason: str) -> None:
        """Note that a module stays the model's own."""
        self._drop(kind, module, reason)

    def _drop(self, kind: str, module: nn.Module, reason: str) -> bool:
        module.__dict__.pop("forward", None)
        self.report.dropped[kind, type(module).__name__, reason] += 1
        return False

    def undo(self, *, give_back: bool = True) -> None:
        """Give all modules their own forward again, and their weights unless nobody wants them; repeatable."""
        for module, lease in self._replaced.items():
            del module.__dict__["forward"]
            if give_back:
                lease.give_back()
        self._replaced = {}


def first_tensor(result: Any) -> torch.Tensor:
    """The tensor of a module's result, the first one of a tuple."""
    tensor = result[0] if isinstance(result, tuple) else result
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"the module returns {type(tensor).__name__}")
    return tensor


def shared_parameters(model: nn.Module) -> frozenset[int]:
    """Ids of parameters that several modules hold (tied embeddings)."""
    held = Counter(id(parameter) for module in model.modules() for parameter in module._parameters.values())
    return frozenset(parameter for parameter, count in held.items() if count > 1)
