"""torch's threads while the kernels do the work, and after."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from headrace import LLM, SamplingParams
from headrace.model.kernels.library import load_library
from headrace.model.torch_threads import TorchThreads, left_to_torch, one_torch_thread

needs_kernels = pytest.mark.skipif(load_library() is None, reason="the CPU kernels are not built")


def in_a_thread(call):  # type: ignore[no-untyped-def]
    found = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def engine_threads(**settings) -> tuple[int, int]:  # type: ignore[no-untyped-def]
    """Threads of torch in the engine's thread after a request, and in the caller's."""
    with LLM("builtin", num_blocks=32, **settings) as llm:
        llm.generate(["Who"], SamplingParams(max_tokens=2))
        return llm._client.call(lambda core: torch.get_num_threads()), torch.get_num_threads()


@needs_kernels
def test_one_while_the_kernels_do_the_products_and_the_callers_stay(two_threads: None) -> None:
    assert engine_threads() == (1, 2)
    assert torch.get_num_threads() == 2
    assert in_a_thread(torch.get_num_threads) == 2


def test_all_where_torch_does_the_products(two_threads: None) -> None:
    assert engine_threads(surgery=False) == (2, 2)


def test_a_model_that_is_not_packed_is_left_to_torch(two_threads: None) -> None:
    model = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 8))
    assert left_to_torch(model) == 1.0
    threads = TorchThreads(model)
    threads.lower()
    assert torch.get_num_threads() == 2


def test_embeddings_and_lent_weights_are_no_work_of_torch(two_threads: None) -> None:
    model = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 8), nn.Linear(8, 24))
    model[1].weight.data = torch.full((), float("nan")).expand(8, 8)
    assert left_to_torch(model) == pytest.approx(0.75)
    model[2].weight.data = torch.full((), float("nan")).expand(24, 8)
    threads = TorchThreads(model)
    threads.lower()
    threads.lower()
    assert torch.get_num_threads() == 1
    threads.restore()
    assert torch.get_num_threads() == 2
    threads.restore()


def test_one_for_a_while_and_as_they_were_after_an_error(two_threads: None) -> None:
    def fail() -> None:
        with one_torch_thread():
            assert torch.get_num_threads() == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.get_num_threads() == 2
