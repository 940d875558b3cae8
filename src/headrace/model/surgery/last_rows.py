"""Leaves out, after the last attention, the tokens of a prompt whose logits nobody reads.

Their keys and values are in the cache by then. What is left of the last layer, its feed-forward above all, is for the
tokens alone that are sampled from or looked at: one of L layers less for the rest of a prompt.
"""

from __future__ import annotations

from headrace.model.paged_model import PagedModel
from headrace.model.surgery.layer_program import LayerProgram
from headrace.model.surgery.numerics import difference
from headrace.model.surgery.operation import Operation
from headrace.model.surgery.watch import Stage


def end_in_kept_rows(operation: Operation, paged: PagedModel, stage: Stage) -> None:
    """Have the last layer do so, if the model then gives the logits that it gave before, to the bit.

    A model that does more with its hidden states after that layer than norm and head fails, or differs, and stays.
    """
    forwards = [module.__dict__["forward"] for module in operation.replaced]
    layers = [forward for forward in forwards if isinstance(forward, LayerProgram)]
    last = next((layer for layer in layers if layer.index == len(paged.layers) - 1), None)
    if last is None:
        return
    tokens = [stage.num_tokens - 1, 0, stage.num_tokens - 1, 3]  # in any order, and one of them twice
    wanted = stage.logits(tokens)

    def take(*, takes: bool) -> None:
        last.take_kept_rows(takes=takes)
        paged.ends_in_kept_rows = takes

    take(takes=True)
    try:
        holds = difference(stage.logits(tokens), wanted) == 0
    except (ValueError, RuntimeError, IndexError):
        holds = False
    if holds:
        operation.on_undo(lambda: take(takes=False))
    else:
        take(takes=False)
