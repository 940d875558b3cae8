"""The whole surgery of one model."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch
from torch import nn

from headrace.model.kernels.library import Kernels
from headrace.model.paged_model import PagedModel
from headrace.model.surgery.arguments import far_away
from headrace.model.surgery.attention import AttentionForward, holds_far_out, read_attention
from headrace.model.surgery.experts import ExpertsForward, read_experts
from headrace.model.surgery.kit import Kit
from headrace.model.surgery.last_rows import end_in_kept_rows
from headrace.model.surgery.layer import LayerForward, read_layer
from headrace.model.surgery.layer_program import LayerProgram
from headrace.model.surgery.lease import Part, Terms, is_lent
from headrace.model.surgery.linear import LinearForward, random_if_float, read_linear
from headrace.model.surgery.mlp import MlpForward, read_mlp
from headrace.model.surgery.norm import NormForward, read_norm
from headrace.model.surgery.numerics import near_and_far, random_like
from headrace.model.surgery.operation import Operation, holders_of_shared
from headrace.model.surgery.own_code import OwnProductForward, TiedEmbeddingForward, own_product
from headrace.model.surgery.watch import Stage, Watched

_ROUTED_ALIKE = 0.75
"""Share of a sample's tokens that a layer must compute alike: in bfloat16 a router of experts may send one elsewhere,
because the sum before it is rounded once less. A wrong sum is wrong for all."""


def operate(paged: PagedModel, kernels: Kernels, *, quantization: str | None = None) -> Operation:
    """Replace what can be replaced by the CPU kernels; `paged.close` takes it back, and so does `undo`.

    Args:
        paged: wired, without a cache. kernels: what the model is to run on.
        quantization: "int8": weights per output channel, activations per row. The weights of a model that was handed
            in are kept beside them then, because int8 has no way back.
    """
    loaded = paged.loaded
    kept = frozenset(map(id, holders_of_shared(loaded.model.modules())))
    if quantization == "int8" and not loaded.owned:
        kept = frozenset(map(id, loaded.model.parameters()))
    terms = Terms(kernels, torch.int8 if quantization == "int8" else loaded.dtype, kept, loaded.reserve)
    operation = operate_on(paged, terms, undoable=quantization is None)
    if loaded.owned:
        _leave_the_file(loaded.model)
    return operation


def operate_on(paged: PagedModel, terms: Terms, *, undoable: bool = True) -> Operation:
    """Replace what can be replaced on these terms; see `operate`. undoable: whether weights have a way back."""
    loaded = paged.loaded
    operation = Operation(terms)
    paged.on_close(lambda: operation.undo(give_back=not loaded.owned))
    start = time.perf_counter()
    try:
        _operate(operation, paged)
    except BaseException:
        operation.undo(give_back=undoable)
        raise
    operation.report.seconds = time.perf_counter() - start
    return operation


def _leave_the_file(model: nn.Module) -> None:
    """Copy what was not packed, if that is the smaller part: one tensor would keep the whole mapped file in memory."""
    tensors = [tensor for tensor in (*model.parameters(), *model.buffers()) if not is_lent(tensor)]
    if 2 * sum(tensor.nbytes for tensor in tensors) < sum(parameter.nbytes for parameter in model.parameters()):
        for tensor in tensors:
            tensor.data = tensor.data.clone()


def _operate(operation: Operation, paged: PagedModel) -> None:
    """Blocks before their parts; parts of what was replaced are left."""
    stage = Stage(paged)
    with torch.no_grad(), stage.open():
        watched = stage.watch()
        linears = _linears(watched)
        kit = operation.terms.kit
        for module in watched.calls:
            if operation.is_free(module):
                _replace(operation, module, watched, linears, kit)
        if paged.context.implementation.name == kit.attention_name:
            _replace_attention(operation, paged, stage, watched, linears)
        if kit.replaces_single_matrices:
            _replace_linears(operation, watched, linears)
            _replace_own_products(operation, watched)
            _replace_tied_embeddings(operation, watched, paged.loaded.model)
        _replace_norms(operation, watched)
        _replace_layers(operation, paged, stage, watched)
        end_in_kept_rows(operation, paged, stage)


def _linears(watched: Watched) -> dict[nn.Module, Part]:
    read = {module: read_linear(module, call) for module, call in watched.calls.items()}
    return {module: part for module, part in read.items() if part is not None}


def _replace(
    operation: Operation, module: nn.Module, watched: Watched, linears: dict[nn.Module, Part], kit: Kit
) -> None:
    """Replace a block of several weights, if it is one that we know."""
    call = watched.calls[module]
    sample = partial(module, *map(random_if_float, call.args))
    mlp = read_mlp(module, watched, linears)
    if mlp is not None and operation.replace("mlp", module, [partial(MlpForward, mlp=mlp)], sample):
        for child in module.children():
            linears.pop(child, None)
    experts = read_experts(module, call) if kit.replaces_single_matrices else None
    if experts is not None:
        operation.replace("experts", module, [partial(ExpertsForward, experts=experts)], sample)


def _replace_attention(
    operation: Operation, paged: PagedModel, stage: Stage, watched: Watched, linears: dict[nn.Module, Part]
) -> None:
    for module in [module for module in watched.calls if hasattr(module, "headrace_tag")]:
        attention = read_attention(module, watched, linears, paged) if operation.is_free(module) else None
        call = watched.calls[module]
        if attention is None or not holds_far_out(module, attention, call, stage):
            operation.skip("attention", module, "computes queries, keys or values in a way of its own")
            continue
        x = random_like(attention.hidden.take(call.args, call.kwargs))
        sample = partial(_attend, stage, module, *attention.hidden.put(x, call.args, call.kwargs))
        build = partial(AttentionForward, attention=attention, paged=paged)
        if operation.replace("attention", module, [build], sample):
            for child in module.modules():
                linears.pop(child, None)


def _attend(stage: Stage, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with stage.step():
        return module(*args, **kwargs)


def _replace_linears(operation: Operation, watched: Watched, linears: dict[nn.Module, Part]) -> None:
    for module, part in linears.items():
        if operation.is_free(module):
            sample = partial(module, near_and_far(watched.calls[module].args[0]))
            operation.replace("linear", module, [partial(LinearForward, part=part)], sample)


def _replace_own_products(operation: Operation, watched: Watched) -> None:
    inside = _inside(operation)
    for module, call in watched.calls.items():
        name = own_product(module, call) if module not in inside and operation.is_free(module) else None
        if name is not None:
            sample = partial(module, *map(random_if_float, call.args), **call.kwargs)
            operation.replace("product", module, [partial(OwnProductForward, module=module, name=name)], sample)


def _replace_tied_embeddings(operation: Operation, watched: Watched, model: nn.Module) -> None:
    """Weights that one product and one embedding hold, and nobody else."""
    forwards = [module.__dict__["forward"] for module in operation.replaced]
    products = {f.part.parameter: f for f in forwards if isinstance(f, LinearForward) and f.part.is_whole}
    for parameter, holders in holders_of_shared(model.modules()).items():
        others = [(m, name) for m, name in holders if m in watched.calls and operation.is_free(m)]
        product = products.get(parameter)
        if product is None or len(holders) != 2 or len(others) != 1 or product.matrix.dtype != parameter.dtype:
            continue
        module, name = others[0]
        call = watched.calls[module]
        build = partial(TiedEmbeddingForward, module=module, name=name, part=product.part, matrix=product.matrix)
        operation.replace("embedding", module, [build], partial(module, *call.args, **call.kwargs))


def _inside(operation: Operation) -> set[nn.Module]:
    return {child for module in operation.replaced for child in module.modules()}


def _replace_norms(operation: Operation, watched: Watched) -> None:
    inside = _inside(operation)
    for module, call in watched.calls.items():
        norm = read_norm(module, call) if module not in inside and operation.is_free(module) else None
        if norm is not None:
            sample = partial(module, random_like(call.args[0]))
            operation.replace("norm", module, [partial(NormForward, norm=norm)], sample)


def _replace_layers(operation: Operation, paged: PagedModel, stage: Stage, watched: Watched) -> None:
    form: Any = partial(LayerProgram, paged=paged) if operation.terms.kit.runs_programs else LayerForward
    for module, call in watched.calls.items():
        layers = read_layer(module, watched) if operation.is_free(module) else []
        if layers:
            hidden, (args, kwargs) = layers[0].hidden, far_away(call)
            args, kwargs = hidden.put(near_and_far(hidden.take(args, kwargs)), args, kwargs)
            builds = [partial(form, layer=layer) for layer in layers]
            operation.replace("layer", module, builds, partial(_attend, stage, module, args, kwargs), _ROUTED_ALIKE)
