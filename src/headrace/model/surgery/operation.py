"""Replaces modules one by one, each proven against itself, and puts all of them back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from headrace.model.surgery.lease import Lease, Terms
from headrace.model.surgery.numerics import difference, tolerance
from headrace.model.surgery.report import SurgeryReport

Forward = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class _Attempt:
    error: float
    reason: str
    forward: Any
    lease: Lease


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
        self._at_undo: list[Callable[[], None]] = []

    @property
    def replaced(self) -> list[nn.Module]:
        """The replaced modules."""
        return list(self._replaced)

    def is_free(self, module: nn.Module) -> bool:
        """Whether nobody has put a forward of his own on the module (we, or accelerate), or hooks within it."""
        inside = [child for child in module.modules() if child is not module]
        return "forward" not in module.__dict__ and not any(m._forward_hooks or m._forward_pre_hooks for m in inside)

    def replace(
        self,
        kind: str,
        module: nn.Module,
        builds: Sequence[Callable[[Lease], Forward]],
        run: Callable[[], Any],
        share: float = 1.0,
    ) -> bool:
        """Give a module another forward, of several the nearest, if it computes the same.

        Args:
            kind: for the report. builds: each packs weights and makes a forward. run: calls the module on a sample.
            share: of the sample's rows that must agree.

        Returns:
            Whether it holds; if not the module is as it was.
        """
        expected = first_tensor(run())
        tried = [self._try(module, build, run, expected, share) for build in builds]
        best = min(tried, key=lambda attempt: attempt.error)
        if best.error > (allowed := tolerance(self.terms.dtype)):
            why = best.reason or f"differs by {best.error:.1g} from the module itself, {allowed:g} is allowed"
            self.skip(kind, module, why)
            return False
        module.forward = best.forward
        best.lease.settle()
        self._replaced[module] = best.lease
        self.report.fused[kind, type(module).__name__] += 1
        self.report.packed_bytes += best.lease.num_bytes
        return True

    def _try(
        self,
        module: nn.Module,
        build: Callable[[Lease], Forward],
        run: Callable[[], Any],
        expected: torch.Tensor,
        share: float,
    ) -> _Attempt:
        """Compare a forward with the module's own, which it has again afterwards."""
        lease = self.terms.lease()
        try:
            module.forward = build(lease)
            return _Attempt(difference(first_tensor(run()), expected, share), "", module.forward, lease)
        except (ValueError, RuntimeError, MemoryError, OSError) as error:
            return _Attempt(float("inf"), str(error), None, lease)
        finally:
            module.__dict__.pop("forward", None)

    def on_undo(self, callback: Callable[[], None]) -> None:
        """Have `undo` call this."""
        self._at_undo.append(callback)

    def skip(self, kind: str, module: nn.Module, reason: str) -> None:
        """Note that a module stays the model's own."""
        self.report.dropped[kind, type(module).__name__, reason] += 1

    def undo(self, *, give_back: bool = True) -> None:
        """Give all modules their own forward again, and their weights unless nobody wants them; repeatable."""
        for callback in self._at_undo:
            callback()
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


def holders_of_shared(modules: Iterable[nn.Module]) -> dict[nn.Parameter, list[tuple[nn.Module, str]]]:
    """Parameters that several modules hold (tied embeddings), with the modules and the name that each has for it."""
    held: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
    for module in modules:
        for name, parameter in module._parameters.items():
            if parameter is not None:
                held.setdefault(parameter, []).append((module, name))
    return {parameter: holders for parameter, holders in held.items() if len(holders) > 1}
