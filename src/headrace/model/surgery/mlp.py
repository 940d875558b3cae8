"""Feed-forward blocks: down(act(gate) · up) as one gated product and one more, down(act(up)) likewise."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import torch
from torch import nn

from headrace.model.kernels.linear import Activation
from headrace.model.surgery.activations import FUNCTIONS, candidates
from headrace.model.surgery.lease import Lease, Part
from headrace.model.surgery.linear import rows_of
from headrace.model.surgery.numerics import difference, same, tolerance
from headrace.model.surgery.watch import Call, Watched


@dataclass(frozen=True, slots=True)
class Mlp:
    """down(act(gate) · up); without up, gate is what is activated.

    Attributes:
        inner: gate, or gate and up.
    """

    inner: tuple[Part, ...]
    down: Part
    activation: Activation


def read_mlp(module: nn.Module, watched: Watched, linears: dict[nn.Module, Part]) -> Mlp | None:
    """How a block computes its result, found from what went into and came out of its children in the watched pass.

    None for other blocks. Only the wiring is found here; that it always holds is for `Operation.replace` to prove.
    """
    children = [child for child in module.children() if child in linears]
    call = watched.calls[module]
    if len(children) not in (2, 3) or not _is_unary(call) or any(watched.num_calls[child] != 1 for child in children):
        return None
    last = next((child for child in children if watched.calls[child].result is call.result), None)
    last = last or next((child for child in children if same(watched.calls[child].result, call.result)), None)
    firsts = [child for child in children if same(watched.calls[child].args[0], call.args[0])]
    if last is None or len(firsts) != len(children) - 1 or last in firsts:
        return None
    hidden = watched.calls[last].args[0]
    ways = [
        (
            _error(activation, [y for _, y in inner], hidden),
            Mlp(tuple(part for part, _ in inner), linears[last], activation),
        )
        for activation in candidates(module, set(children))
        for inner in _inner(firsts, watched, linears, hidden.shape[-1])
    ]
    error, best = min(ways, key=lambda way: way[0], default=(float("inf"), None))
    return best if error <= tolerance(hidden.dtype) else None


def _inner(
    firsts: list[nn.Module], watched: Watched, linears: dict[nn.Module, Part], width: int
) -> list[list[tuple[Part, torch.Tensor]]]:
    """Each way in which the first products may be gate and up (or only gate), with their values."""
    known = [(linears[first], watched.calls[first].result) for first in firsts]
    if len(known) == 2:
        return [list(order) for order in permutations(known)]
    (part, y) = known[0]
    if y.shape[-1] == width:
        return [known]
    if y.shape[-1] != 2 * width:
        return []
    halves = [(half(part, i), y[..., i * width : (i + 1) * width]) for i in (0, 1)]
    return [halves, halves[::-1]]


def half(part: Part, index: int) -> Part:
    """The first or second half of a part's rows."""

    def view(weight: torch.Tensor) -> torch.Tensor:
        return part.view(weight).chunk(2)[index]

    return Part(part.parameter, view, None if part.bias is None else part.bias.chunk(2)[index])


def _error(activation: Activation, values: list[torch.Tensor], hidden: torch.Tensor) -> float:
    if any(value.shape != hidden.shape for value in values):
        return float("inf")
    result = FUNCTIONS[activation](values[0])
    return difference(result * values[1] if len(values) == 2 else result, hidden)


def _is_unary(call: Call) -> bool:
    return len(call.args) == 1 and not call.kwargs and isinstance(call.args[0], torch.Tensor)


class MlpForward:
    """The forward of a feed-forward block: [..., K] → [..., K].

    Attributes:
        inner, down: the matrices of its products; inner is gated where there are gates. activation: between them.
    """

    def __init__(self, lease: Lease, mlp: Mlp) -> None:
        """Pack its weights."""
        self.inner = lease.pack(mlp.inner, gated=len(mlp.inner) == 2)
        self.down = lease.pack([mlp.down])
        self.activation = mlp.activation

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Two products."""
        return self.rows(rows_of(x)).view(*x.shape[:-1], -1)

    def rows(
        self, x: torch.Tensor, residual: torch.Tensor | None = None, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The same for [M, K], plus residual; out may be residual."""
        return self.down(self.inner(x, activation=self.activation), residual=residual, out=out)
