"""CUDA graphs: what `DecodeGraphs` captures with. The one file of it that needs a GPU to run."""

from __future__ import annotations

from collections.abc import Callable

import torch


class CudaGraphFactory:
    """Captures functions on one device; all graphs share a pool of memory, since one runs at a time."""

    def __init__(self, device: torch.device) -> None:
        """Nothing is captured yet."""
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """Run once, so that what is compiled or chosen at a first call is, then record."""
        with torch.cuda.device(self._device):
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                function()
            torch.cuda.current_stream().wait_stream(stream)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                function()
            return graph
