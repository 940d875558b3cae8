"""Memory that is taken ahead of a model, and for which models."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from headrace.config import EngineConfig
from headrace.model import reserve as module
from headrace.model.kernels.pages import HUGE_PAGE_BYTES
from headrace.model.reserve import Reserve, reserve_for


def resident_bytes(memory: torch.Tensor) -> int:
    """Bytes of the mapping around a tensor that are in memory."""
    address, inside = memory.data_ptr(), False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, _, rest = line.partition(" ")
        if "-" in first and not first.endswith(":"):
            start, end = (int(part, 16) for part in first.split("-"))
            inside = start <= address < end
        elif inside and first == "Rss:":
            return int(rest.split()[0]) << 10
    raise AssertionError("the memory is not mapped")


def test_it_is_handed_out_once_and_then_comes_new_memory() -> None:
    reserve = Reserve(2 * HUGE_PAGE_BYTES)
    taken = [reserve.take(size) for size in (5000, HUGE_PAGE_BYTES, HUGE_PAGE_BYTES)]
    for value, memory in enumerate(taken, 1):
        assert memory.data_ptr() % 64 == 0
        assert not memory.any()
        memory.fill_(value)
    assert [int(memory.min()) for memory in taken] == [1, 2, 3]
    start = taken[0].data_ptr()
    inside = [start <= memory.data_ptr() < start + 2 * HUGE_PAGE_BYTES for memory in taken]
    assert inside == [True, True, False]
    reserve.close()


def test_what_is_taken_is_not_written_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a page, a thread that is let go chunk by chunk: whatever is taken meanwhile keeps its values."""
    monkeypatch.setattr(module, "_CHUNK_BYTES", 4096)
    go, real = threading.Semaphore(0), module.ctypes.memset

    def memset(address: int, value: int, num_bytes: int) -> None:
        go.acquire()
        real(address, value, num_bytes)

    monkeypatch.setattr(module.ctypes, "memset", memset)
    reserve = Reserve(64 * 4096)
    taken = []
    for pages in (1, 3, 5, 2, 7):
        go.release(4)
        taken.append(reserve.take(pages * 4096).fill_(pages))
    go.release(64)
    reserve._thread.join()
    assert [(int(memory.min()), int(memory.max())) for memory in taken] == [(n, n) for n in (1, 3, 5, 2, 7)]
    rest = reserve.take(46 * 4096)
    assert not rest.any()
    reserve.close()


def test_what_is_written_ahead_and_not_taken_goes_back_to_the_system() -> None:
    reserve = Reserve(16 * HUGE_PAGE_BYTES)
    reserve._thread.join()
    used = reserve.take(3 * HUGE_PAGE_BYTES).fill_(1)
    assert resident_bytes(used) >= 16 * HUGE_PAGE_BYTES
    reserve.close()
    reserve.close()
    assert 3 * HUGE_PAGE_BYTES <= resident_bytes(used) <= 4 * HUGE_PAGE_BYTES
    assert used.all()
    assert not reserve.take(100).any()  # from elsewhere now


def test_closing_ends_the_thread_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_BYTES", HUGE_PAGE_BYTES)
    first, real = threading.Event(), module.ctypes.memset
    closing = threading.Event()

    def memset(address: int, value: int, num_bytes: int) -> None:
        first.set()
        closing.wait()
        real(address, value, num_bytes)

    monkeypatch.setattr(module.ctypes, "memset", memset)
    reserve = Reserve(64 * HUGE_PAGE_BYTES)
    first.wait()
    reserve._is_writing = False  # as close() begins
    closing.set()
    reserve.close()
    assert not reserve._thread.is_alive()
    assert reserve._chunk.start <= HUGE_PAGE_BYTES


def test_given_back_memory_leaves_its_neighbours_alone() -> None:
    reserve = Reserve(8 * HUGE_PAGE_BYTES)
    first, second, third = (reserve.take(2 * HUGE_PAGE_BYTES).fill_(7) for _ in range(3))
    reserve.close()
    before = resident_bytes(first)
    reserve.give_back(second)
    assert resident_bytes(first) <= before - 2 * HUGE_PAGE_BYTES
    assert (first == 7).all()
    assert (third == 7).all()
    elsewhere = torch.ones(5000, dtype=torch.uint8)
    reserve.give_back(elsewhere)
    assert elsewhere.all()


def test_no_cycle_keeps_it() -> None:
    reserve = Reserve(HUGE_PAGE_BYTES)
    reserve.close()
    gone = weakref.ref(reserve)
    del reserve
    gc.collect()
    assert gone() is None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of 100 numbers in bfloat16, on a machine with two processors and no GPU."""
    save_file({"w": torch.zeros(10, 10, dtype=torch.bfloat16)}, tmp_path / "model.safetensors")
    monkeypatch.setattr(module, "usable_threads", lambda: 2)
    monkeypatch.setattr(module, "visible_gpus", lambda: ())
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "num_bytes"),
    [
        ({}, 200),
        ({"device": "cpu"}, 200),
        ({"dtype": "float32"}, 400),
        ({"quantization": "int8"}, 100),
        ({"surgery": False}, None),
        ({"compile_mode": "default"}, None),
        ({"device": "cuda"}, None),
        ({"dtype": "float16"}, None),
    ],
)
def test_how_much_for_which_settings(settings: dict[str, object], num_bytes: int | None, folder: Path) -> None:
    reserve = reserve_for(str(folder), EngineConfig.from_settings(settings))
    assert (None if reserve is None else reserve.num_bytes) == num_bytes
    if reserve is not None:
        reserve.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("usable_threads", lambda: 1),
        ("visible_gpus", lambda: ("0",)),
        ("available_memory_bytes", lambda: 399),
        ("available_memory_bytes", lambda: None),
    ],
)
def test_machines_without(name: str, value: object, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, name, value)
    assert reserve_for(str(folder), EngineConfig()) is None


@pytest.mark.parametrize("model", ["no/such-model", "builtin", "not a name of the hub!", torch.nn.Linear(2, 2)])
def test_models_without(model: object, folder: Path) -> None:
    assert reserve_for(model, EngineConfig()) is None


def test_a_model_of_the_hub_is_found_in_its_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder / "cache"))
    repository = folder / "cache" / "models--some--model"
    snapshot = repository / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    (snapshot / "config.json").write_text("{}")
    os.symlink(folder / "model.safetensors", snapshot / "model.safetensors")
    reserve = reserve_for("some/model", EngineConfig())
    assert reserve is not None
    assert reserve.num_bytes == 200
    reserve.close()
    assert reserve_for("some/model", EngineConfig(), revision="another") is None
