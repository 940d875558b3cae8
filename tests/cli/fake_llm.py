"""Stands in for `headrace.LLM`: answers at once, and each answer is the prompt again, reversed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from headrace.engine.outputs import Timing
from headrace.engine.results import CompletionOutput, RequestOutput
from headrace.engine.sampling_params import SamplingParams
from headrace.errors import EmptyPrompt, HeadraceError, PromptTooLong, QueueFull
from headrace.text import Tokenizer
from tests.text import tokenizers_for_tests as trained

TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"


class FakeHandle:
    """A request that was accepted. It has ended, but counts as pending until its result is fetched."""

    def __init__(self, llm: FakeLLM, output: Any) -> None:
        self.llm, self.output = llm, output
        self.cancelled = self.fetched = False

    def on_done(self, callback: Callable[[FakeHandle], None]) -> None:
        callback(self)

    def result(self, timeout: float | None = None) -> Any:
        if self.llm.interrupt_after == sum(handle.fetched for handle in self.llm.handles):
            raise KeyboardInterrupt
        self.fetched = True
        return self.output

    def deltas(self) -> Iterator[Any]:
        if self.output.error is not None:
            raise self.output.error
        for place, letter in enumerate(self.output.outputs[0].text):
            if self.llm.interrupt_after == place:
                raise KeyboardInterrupt
            yield SimpleNamespace(text=letter, token_ids=(1,), finish_reason=None)

    def cancel(self) -> None:
        self.cancelled = True


class FakeLLM:
    """Fails on the prompts in `failing`; keeps what it was asked."""

    def __init__(self, *, max_model_len: int = 64, max_num_seqs: int = 2, max_queue_size: int | None = None) -> None:
        inner = trained.byte_level()
        inner.chat_template = TEMPLATE
        self.tokenizer = Tokenizer(inner)
        self.config = SimpleNamespace(
            max_model_len=max_model_len, max_num_seqs=max_num_seqs, max_queue_size=max_queue_size
        )
        self.default_sampling_params = SamplingParams()
        self.asked: list[str] = []
        self.params: list[SamplingParams] = []
        self.handles: list[FakeHandle] = []
        self.most_pending = 0
        self.failing: dict[str, HeadraceError] = {}
        self.interrupt_after: int | None = None
        self.limit = max_queue_size
        self.closed = False

    def __enter__(self) -> FakeLLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def chat_prompt(self, messages: Any) -> list[int]:
        return self.tokenizer.apply_chat_template(messages)

    def submit(self, prompt: str | Sequence[int], params: SamplingParams, *, streaming: bool = False) -> FakeHandle:
        pending = sum(not handle.fetched for handle in self.handles)
        if self.limit is not None and pending >= self.limit:
            raise QueueFull("full")
        handle = FakeHandle(self, self._output(prompt, params))
        self.handles.append(handle)
        self.most_pending = max(self.most_pending, pending + 1)
        return handle

    def generate(self, prompts: Sequence[Any], params: Sequence[SamplingParams], progress: bool = False) -> list[Any]:
        return [self._output(*pair) for pair in zip(prompts, params, strict=True)]

    def stream(self, prompt: str | Sequence[int], params: SamplingParams) -> Iterator[Any]:
        return self.submit(prompt, params, streaming=True).deltas()

    def _output(self, prompt: str | Sequence[int], params: SamplingParams) -> Any:
        text = prompt if isinstance(prompt, str) else self.tokenizer.decode(prompt)
        if not text:
            raise EmptyPrompt("an empty prompt")
        if len(text) > 1000:
            raise PromptTooLong("too long")
        self.asked.append(text)
        self.params.append(params)
        error = self.failing.get(text)
        completion = CompletionOutput(0, (1, 2), text[::-1], "stop")
        completions = () if error else (completion,) * params.n
        return RequestOutput("r", (1, 2, 3), completions, 1, None, error, Timing(0.1, 0.2, 0.3, 0.4))
