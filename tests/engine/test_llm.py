"""`LLM`: prompts in, outputs out, in order; every parameter does what it says."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
from typing import Any

import pytest
import torch

from headrace import LLM, SamplingParams
from headrace.errors import EngineStopped, InvalidParameter, InvalidRequest, ModelNotSupported
from tests.engine.reference import PROMPTS, greedy, logprobs_of, own_tokens

SETTINGS: dict[str, Any] = {"block_size": 4, "max_num_batched_tokens": 32, "max_num_seqs": 8, "check_integrity": True}


@pytest.fixture(scope="module")
def llm(tiny_model: Any, tokenizer: Any) -> Any:
    with LLM(copy.deepcopy(tiny_model), tokenizer, **SETTINGS) as llm:
        yield llm


def _ids(outputs: Any) -> list[tuple[int, ...]]:
    return [output.outputs[0].token_ids for output in outputs]


def test_outputs_are_in_order_and_equal_transformers(llm, tiny_model):
    outputs = llm.generate(PROMPTS, greedy(12))
    assert [output.prompt_token_ids for output in outputs] == [tuple(prompt) for prompt in PROMPTS]
    assert _ids(outputs) == [own_tokens(tiny_model, prompt, 12) for prompt in PROMPTS]
    assert all(output.error is None for output in outputs)
    llm.check_integrity()


def test_text_token_ids_and_tensors_are_prompts(llm, tokenizer):
    text = "hello world"
    ids = tokenizer(text)["input_ids"]
    expected = _ids(llm.generate([ids], greedy(6)))
    for prompts in (text, [text], ids, torch.tensor(ids), torch.tensor([ids]), (ids,), iter([ids])):
        assert _ids(llm.generate(prompts, greedy(6))) == expected
    assert llm.generate([], greedy(6)) == []


def test_one_params_per_prompt(llm):
    outputs = llm.generate(PROMPTS[:3], [greedy(2), greedy(5), greedy(3)])
    assert [len(ids) for ids in _ids(outputs)] == [2, 5, 3]
    with pytest.raises(InvalidRequest, match="2 sampling_params for 3 prompts"):
        llm.generate(PROMPTS[:3], [greedy(2), greedy(3)])


@pytest.mark.parametrize("wrong", [5, 1.5, object()])
def test_wrong_types_are_refused(llm, wrong):
    with pytest.raises(InvalidRequest):
        llm.generate(wrong, greedy(2))
    with pytest.raises(InvalidRequest):
        llm.generate("hello", wrong)


def test_the_progress_bar_counts_requests_and_tokens(llm, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    llm.generate([*PROMPTS[:2], []], greedy(3), progress=True)
    assert "3/3" in stream.getvalue()
    assert "tokens/s" in stream.getvalue()


def test_seeds_give_the_same_tokens_alone_and_in_any_batch(llm):
    params = [SamplingParams(max_tokens=10, seed=seed, ignore_eos=True) for seed in range(6)]
    together = _ids(llm.generate([PROMPTS[1]] * 6, params))
    assert len(set(together)) == 6
    for ids, settings in reversed(list(zip(together, params, strict=True))):
        assert _ids(llm.generate([PROMPTS[1]], settings)) == [ids]


def test_n_completions_are_independent_reproducible_and_begin_with_the_one(llm):
    params = SamplingParams(max_tokens=8, seed=7, n=4, ignore_eos=True)
    first = llm.generate([PROMPTS[2]], params)[0]
    assert [completion.index for completion in first.outputs] == [0, 1, 2, 3]
    assert len({completion.token_ids for completion in first.outputs}) == 4
    crowd = llm.generate([*PROMPTS, PROMPTS[2]], params)[-1]
    assert [c.token_ids for c in crowd.outputs] == [c.token_ids for c in first.outputs]
    alone = llm.generate([PROMPTS[2]], SamplingParams(max_tokens=8, seed=7, ignore_eos=True))[0]
    assert alone.outputs[0].token_ids == first.outputs[0].token_ids


def test_a_stop_string_cuts_text_and_tokens_and_stops_the_engine(llm):
    free = llm.generate([PROMPTS[0]], greedy(200, prompt_logprobs=0))[0]
    text = free.outputs[0].text
    stop = text[10:13]
    output = llm.generate([PROMPTS[0]], greedy(200, stop=stop, logprobs=1, prompt_logprobs=0))[0]
    cut = output.outputs[0]
    assert cut.text == text[: text.index(stop)]
    assert (cut.finish_reason, cut.stop_reason) == ("stop", stop)
    assert len(cut.token_ids) < 40
    assert cut.token_ids == free.outputs[0].token_ids[: len(cut.token_ids)]
    assert len(cut.logprobs) == len(cut.token_ids)
    assert output.error is None
    assert output.prompt_logprobs == free.prompt_logprobs
    assert None not in (output.timing.queued_s, output.timing.prefill_s, output.timing.ttft_s, output.timing.e2e_s)
    steps = llm.dump_state()["counters"]["num_steps"]
    llm.generate([PROMPTS[0]], greedy(200, stop=stop))
    assert llm.dump_state()["counters"]["num_steps"] - steps < 60


def test_stop_token_ids_min_tokens_and_ignore_eos(llm, tiny_model):
    free = _ids(llm.generate([PROMPTS[3]], greedy(30)))[0]
    token = free[4]
    at = free.index(token)
    output = llm.generate([PROMPTS[3]], greedy(30, stop_token_ids=[token]))[0].outputs[0]
    assert output.token_ids == free[: at + 1]
    assert (output.finish_reason, output.stop_reason) == ("stop", token)
    late = llm.generate([PROMPTS[3]], greedy(30, stop_token_ids=[token], min_tokens=10))[0].outputs[0]
    assert token not in late.token_ids[:10]
    bias = {2: 100.0}  # the model's end of sequence
    ends = llm.generate([PROMPTS[3]], greedy(30, ignore_eos=False, logit_bias=bias))[0].outputs[0]
    assert (ends.token_ids, ends.finish_reason, ends.stop_reason, ends.text) == ((2,), "stop", None, "")
    goes_on = llm.generate([PROMPTS[3]], greedy(5, logit_bias=bias))[0].outputs[0]
    assert (goes_on.token_ids, goes_on.finish_reason) == ((2,) * 5, "length")


@pytest.mark.parametrize("settings", [{}, {"max_num_batched_tokens": 5, "max_num_seqs": 3}, {"num_blocks": 14}])
def test_logprobs_equal_transformers(tiny_model, tokenizer, settings, monkeypatch):
    """Of the output and of the prompt; whole, in chunks, and under preemption; twice, so that a prefix is there."""
    if "num_blocks" in settings:  # admit without foresight, so that requests are preempted
        monkeypatch.setattr("headrace.engine.scheduler.admission.GROWTH_HORIZON_TOKENS", 0)
    with LLM(
        copy.deepcopy(tiny_model), tokenizer, **{**SETTINGS, "max_model_len": 48, "safety_margin": 0.0, **settings}
    ) as llm:
        params = greedy(10, logprobs=3, prompt_logprobs=2)
        for _ in range(2):
            for output, prompt in zip(llm.generate(PROMPTS, params), PROMPTS, strict=True):
                _check_logprobs(tiny_model, prompt, output)
        if "num_blocks" in settings:
            assert llm.dump_state()["counters"]["num_preemptions"] > 0
        plain = llm.generate(PROMPTS, greedy(10))  # from the prefix cache, where there are prompt logprobs computed
        assert max(output.num_cached_tokens for output in plain) > 0 or "num_blocks" in settings


def _check_logprobs(model: Any, prompt: list[int], output: Any) -> None:
    completion = output.outputs[0]
    expected = logprobs_of(model, [*prompt, *completion.token_ids])
    assert output.prompt_logprobs[0] is None
    entries = [*output.prompt_logprobs[1:], *completion.logprobs]
    tokens = [*prompt[1:], *completion.token_ids]
    assert len(entries) == len(tokens)
    for i, (entry, token) in enumerate(zip(entries, tokens, strict=True)):
        row = expected[i]
        assert entry.token_id == token
        assert entry.logprob == pytest.approx(float(row[token]), abs=2e-3)
        assert entry.rank == pytest.approx(1 + int((row > row[token]).sum()), abs=1)
        top = row.topk(2 if i < len(prompt) - 1 else 3)
        assert list(entry.top.values()) == pytest.approx(top.values.tolist(), abs=2e-3)


def test_a_stream_gives_the_text_piece_by_piece(llm):
    whole = llm.generate([PROMPTS[0]], greedy(20))[0].outputs[0]
    deltas = list(llm.stream(PROMPTS[0], greedy(20)))
    assert "".join(delta.text for delta in deltas) == whole.text
    assert sum((delta.token_ids for delta in deltas), ()) == whole.token_ids
    assert [delta.finish_reason for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
    assert deltas[-1].finish_reason == "length"


@pytest.mark.parametrize("read", [0, 1, 3])
@pytest.mark.parametrize("how", ["close", "drop", "with"])
def test_a_stream_that_is_closed_or_dropped_cancels_its_request(llm, read, how):
    stream = llm.stream(PROMPTS[0], greedy(400))
    for _ in range(read):
        next(stream)
    if how == "close":
        stream.close()
        assert list(stream) == []
    elif how == "with":
        with stream:
            pass
    del stream
    before = llm.dump_state()["counters"]["num_steps"]
    llm.generate([PROMPTS[1]], greedy(3))
    state = llm.dump_state()
    assert state["running"] == state["waiting"] == []
    assert state["counters"]["num_steps"] - before < 100


def test_a_stream_of_a_stop_string_ends_at_it(llm):
    text = llm.generate([PROMPTS[0]], greedy(60))[0].outputs[0].text
    stop = text[12:14]
    deltas = list(llm.stream(PROMPTS[0], greedy(60, stop=[stop])))
    assert "".join(delta.text for delta in deltas) == text[: text.index(stop)]
    assert (deltas[-1].finish_reason, deltas[-1].stop_reason) == ("stop", stop)


def test_as_completed_yields_each_handle_once_in_the_order_of_ends(llm):
    handles = [llm.submit(PROMPTS[0], greedy(count)) for count in (60, 2, 30)]
    calls: list[Any] = []
    handles[0].on_done(lambda handle: 1 / 0)  # somebody else's callback raises
    handles[0].on_done(calls.append)
    ended = [handle.request_id for handle in llm.as_completed(handles)]
    assert ended == [handles[i].request_id for i in (1, 2, 0)]
    assert calls == [handles[0]]
    handles[1].on_done(calls.append)
    assert calls[1:] == [handles[1]]


def test_a_result_can_be_waited_for_with_a_timeout(llm):
    handle = llm.submit(PROMPTS[0], greedy(300))
    with pytest.raises(TimeoutError, match=r"has not ended after 0\.0 s"):
        handle.result(0.0)
    handle.cancel()
    output = handle.result(30)
    assert output.outputs[0].finish_reason == "cancelled"
    assert output.error is not None
    assert handle.result() == output


def test_a_live_request_id_is_refused_and_the_live_request_goes_on(llm):
    handle = llm.submit(PROMPTS[0], greedy(50), request_id="mine")
    with pytest.raises(InvalidRequest, match="taken"):
        llm.submit(PROMPTS[1], greedy(5), request_id="mine")
    assert handle.result(30).outputs[0].finish_reason == "length"


def test_cached_tokens_are_counted_and_a_salt_keeps_them_apart(tiny_model, tokenizer):
    prompt = list(range(40, 61))
    with LLM(copy.deepcopy(tiny_model), tokenizer, **SETTINGS) as llm:
        first, again = (llm.generate([prompt], greedy(4))[0] for _ in range(2))
        assert (first.num_cached_tokens, again.num_cached_tokens) == (0, 20)
        assert first.outputs == again.outputs
        salted = [llm.submit(prompt, greedy(4), cache_salt="a").result() for _ in range(2)]
        assert [output.num_cached_tokens for output in salted] == [0, 20]
        assert salted[0].outputs == first.outputs
    with LLM(copy.deepcopy(tiny_model), tokenizer, enable_prefix_caching=False, **SETTINGS) as llm:
        for _ in range(2):
            output = llm.generate([prompt], greedy(4))[0]
            assert (output.num_cached_tokens, output.outputs) == (0, first.outputs)


def test_timing_is_in_order(llm):
    timing = llm.generate([PROMPTS[0]], greedy(5))[0].timing
    assert 0 <= timing.queued_s <= timing.queued_s + timing.prefill_s <= timing.ttft_s + 1e-9 <= timing.e2e_s + 1e-9
    assert timing.ttft_s == pytest.approx(timing.queued_s + timing.prefill_s)


def test_chat_goes_through_the_template(llm):
    conversation = [{"role": "user", "content": "hello"}]
    prompt = llm.tokenizer.encode("user: hello\nassistant:")
    (answer,) = llm.chat(conversation, greedy(4))
    assert list(answer.prompt_token_ids) == prompt
    several = llm.chat([conversation, conversation], greedy(4))
    assert [output.outputs for output in several] == [answer.outputs] * 2


def test_without_a_tokenizer_there_are_ids_and_no_text(tiny_model):
    with LLM(copy.deepcopy(tiny_model), **SETTINGS) as llm:
        output = llm.generate([PROMPTS[0]], greedy(4))[0].outputs[0]
        assert (len(output.token_ids), output.text) == (4, "")
        (refused,) = llm.generate(["text"], greedy(4))
        assert "tokenizer" in str(refused.error)
        with pytest.raises(InvalidParameter, match="stop strings need a tokenizer"):
            llm.submit(PROMPTS[0], greedy(4, stop="x"))


def test_the_model_object_is_given_back_as_it_was(tiny_model, tokenizer):
    before = own_tokens(tiny_model, PROMPTS[0], 10)
    attention = tiny_model.config._attn_implementation
    with LLM(tiny_model, tokenizer, **SETTINGS) as llm:
        with pytest.raises(ModelNotSupported, match="in use by another headrace engine"):
            LLM(tiny_model, tokenizer)
        assert _ids(llm.generate([PROMPTS[0]], greedy(10))) == [before]
    assert tiny_model.config._attn_implementation == attention
    assert not any(hasattr(module, "headrace_tag") for module in tiny_model.modules())
    assert own_tokens(tiny_model, PROMPTS[0], 10) == before
    llm.close()
    with pytest.raises(EngineStopped):
        llm.generate([PROMPTS[0]], greedy(1))
    assert llm.dump_state()["running"] == []


def test_the_schedulers_and_their_settings_give_the_same_tokens(tiny_model, tokenizer):
    expected = [own_tokens(tiny_model, prompt, 8) for prompt in PROMPTS]
    for changes in ({"scheduler": "prefill_first"}, {"max_num_seqs": 1}, {"block_size": 1}, {"block_size": 64}):
        with LLM(copy.deepcopy(tiny_model), tokenizer, **{**SETTINGS, **changes}) as llm:
            assert _ids(llm.generate(PROMPTS, greedy(8))) == expected


def test_importing_headrace_imports_no_torch_and_an_open_engine_does_not_hold_up_the_end():
    code = "import headrace, sys; headrace.SamplingParams; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_a_program_that_ends_without_closing_ends(tmp_path, tiny_model):
    tiny_model.save_pretrained(tmp_path)
    code = (
        "import sys; from headrace import LLM, SamplingParams; llm = LLM(sys.argv[1]);"
        "llm.submit([5, 6, 7], SamplingParams(max_tokens=400, ignore_eos=True)); print('over')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "over\n"), done.stderr
