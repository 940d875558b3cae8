"""What the command line says of engines: variants, interpreters, options."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.bench.engines import ENGINES
from headrace.bench.entries import Entry, choose, interpreters, options
from headrace.errors import ConfigError


def names(entries: list[Entry]) -> list[str]:
    return [entry.name for entry in entries]


def test_peers_without_an_interpreter_are_left_out_with_the_package_to_install() -> None:
    entries, left_out = choose(None, {"vllm_cpu": Path("python")})
    own = ["headrace", "headrace_serve", "transformers_generate_batch", "transformers_generate"]
    assert names(entries) == [*own, "vllm_cpu"]
    assert set(left_out) == set(ENGINES) - set(names(entries))
    assert left_out["llama_cpp"].endswith("pip install llama-cpp-python somewhere, then --python llama_cpp=PATH")


def test_a_variant_is_an_entry_of_its_own_under_its_engines_interpreter() -> None:
    entries, left_out = choose(["headrace", "headrace:int8", "openvino:int8"], {"openvino": Path("python")})
    assert names(entries) == ["headrace", "headrace:int8", "openvino:int8"]
    assert [entry.spec.name for entry in entries] == ["headrace", "headrace", "openvino"]
    assert left_out == {}


def test_the_same_entry_twice_is_refused_with_the_way_to_say_it() -> None:
    with pytest.raises(ConfigError, match="headrace is there twice; tell them apart as headrace:a and headrace:b"):
        choose(["headrace", "headrace"], {})


def test_interpreters_are_paths_with_the_home_folder() -> None:
    assert interpreters(["vllm_cpu=~/vllm/bin/python"]) == {"vllm_cpu": Path.home() / "vllm/bin/python"}


def test_options_are_json_or_text() -> None:
    (entry,) = choose(["headrace"], {})[0]
    settings = ["headrace.max_num_seqs=8", "headrace.scheduler=fifo", "headrace.surgery=false"]
    assert options(settings, [entry]) == {entry: {"max_num_seqs": 8, "scheduler": "fifo", "surgery": False}}


def test_a_variants_option_goes_before_its_engines_in_any_order() -> None:
    plain, small = choose(["headrace", "headrace:small"], {})[0]
    found = options(["headrace:small.block_size=16", "headrace.block_size=64", "headrace.a=1"], [plain, small])
    assert found == {plain: {"block_size": 64, "a": 1}, small: {"block_size": 16, "a": 1}}


def test_options_of_an_engine_that_does_not_take_part_are_for_nobody() -> None:
    entries, _ = choose(["headrace"], {})
    assert options(["vllm_cpu.enforce_eager=true"], entries) == {entries[0]: {}}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("headrace=1", "is not ENGINE.OPTION=VALUE"),
        ("headrace.=1", "is not ENGINE.OPTION=VALUE"),
        ("vllm.a=1", "unknown engine 'vllm'"),
        ("headrace:int8.quantization=int8", "headrace:int8 does not take part"),
    ],
)
def test_options_that_mean_nothing_are_refused(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options([setting], choose(["headrace"], {})[0])
