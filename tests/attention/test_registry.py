"""Attention implementations by name."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from headrace.errors import ConfigError
from headrace.model.attention import registry
from headrace.model.attention.interface import LayerSpec
from headrace.model.kernels.library import available_isas
from tests.attention.cases import served_on_the_cpu


@pytest.mark.parametrize("name", served_on_the_cpu())
def test_every_name_makes_the_implementation_of_that_name(name):
    assert registry.get(name).name == name


CPU = torch.device("cpu")


def test_auto_is_the_first_that_serves_the_layers() -> None:
    layer = make_layer(head_dim=512)  # beyond the CPU kernels
    assert registry.choose("auto", [layer], torch.float32, CPU).name == "torch"
    usual = registry.choose("auto", [make_layer(head_dim=64)], torch.float32, CPU).name
    assert usual == ("cpu" if available_isas() else "torch")


def test_triton_serves_cuda_and_on_the_cpu_only_who_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from headrace.model.attention.triton_paged import TritonAttention

    monkeypatch.setattr(TritonAttention, "_try", lambda *_: None)  # there may be no such device here
    monkeypatch.setattr(registry, "_factories", {name: registry._factories[name] for name in ("triton", "torch")})
    assert registry.choose("auto", [make_layer(head_dim=64)], torch.bfloat16, torch.device("cuda")).name == "triton"
    assert registry.choose("auto", [make_layer(head_dim=512)], torch.bfloat16, torch.device("cuda")).name == "torch"
    assert registry.choose("auto", [make_layer(head_dim=64)], torch.bfloat16, CPU).name == "torch"


def test_triton_without_its_package_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [m for m in sys.modules if m.startswith("headrace.model.triton_kernels")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ConfigError, match="needs the triton package"):
        registry.get("triton")
    assert registry.choose("auto", [make_layer(head_dim=64)], torch.float32, torch.device("cuda")).name == "torch"


def test_kernels_that_do_not_run_on_a_device_are_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from headrace.model.attention.triton_paged import TritonAttention

    def fail(*_: object) -> None:
        raise RuntimeError("out of resource: shared memory, 98816 of 65536")

    monkeypatch.setattr(TritonAttention, "_try", fail)
    refusal = registry.get("triton").refusal([make_layer(head_dim=64)], torch.float16, torch.device("cuda"))
    assert refusal is not None and "shared memory, 98816 of 65536" in refusal
    assert registry.choose("auto", [make_layer(head_dim=64)], torch.float16, torch.device("cuda")).name == "torch"


def test_a_name_that_does_not_serve_the_layers_is_refused_with_the_reason() -> None:
    if not available_isas():
        pytest.skip("the CPU kernels were not built here")
    with pytest.raises(ConfigError, match="up to 256, not 512"):
        registry.choose("cpu", [make_layer(head_dim=512)], torch.float32, CPU)


def make_layer(head_dim: int) -> LayerSpec:
    return LayerSpec(0, num_heads=2, num_kv_heads=1, key_dim=head_dim, value_dim=head_dim, scale=1.0)


def test_every_get_makes_a_new_one():
    assert registry.get("torch") is not registry.get("torch")


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"'flash'.*auto, cpu, triton, torch, reference"):
        registry.get("flash")


def test_a_user_registers_an_implementation(monkeypatch):
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    mine = registry.get("reference")
    registry.register("mine", lambda: mine)
    assert registry.get("mine") is mine
    assert "mine" in registry.available()


@pytest.mark.parametrize("name", ["torch", "auto"])
def test_a_taken_name_is_refused(name):
    with pytest.raises(ConfigError, match=name):
        registry.register(name, lambda: registry.get("reference"))


def test_the_names_are_known_without_importing_torch():
    code = (
        "import sys; from headrace.model.attention import registry; registry.available(); print('torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert shown.strip() == "False"
