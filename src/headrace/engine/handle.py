"""A submitted request in its caller's hands: collects the engine's outputs, and turns tokens into text."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from headrace.engine.outputs import EngineOutput, FinishReason, Timing, TokenLogprobs
from headrace.engine.request import Request
from headrace.engine.results import CompletionOutput, RequestOutput, StreamDelta
from headrace.errors import HeadraceError, RequestCancelled, RequestFailed
from headrace.text import TextStream, Tokenizer

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Completion:
    """One sequence. `read_*` say how far the stream's reader has come.

    At a stop string it has its `finish_reason` before the engine has heard of it: `engine_ended` comes a step later.
    """

    index: int
    stream: TextStream | None
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    read_tokens: int = 0
    read_text: int = 0
    told_end: bool = False
    engine_ended: bool = False


class RequestHandle:
    """A live or ended request of n sequences.

    The dispatcher's thread feeds it (`take`), any thread waits on it. What a reader has not fetched yet is kept as the
    completion itself, so a slow reader costs no memory beyond it.

    Args:
        requests: the sequences. cancel: ends one of them by id, in the engine.
        tokenizer: None for token ids only. streaming: keep the text up to date while it is generated; without it, the
            text is made at the end, unless stop strings have to be looked for.
    """

    def __init__(
        self,
        request_id: str,
        requests: Sequence[Request],
        cancel: Callable[[str], None],
        tokenizer: Tokenizer | None,
        streaming: bool = False,
    ) -> None:
        """Nothing came yet."""
        self.request_id = request_id
        self._requests = tuple(requests)
        self._cancel = cancel
        self._tokenizer = tokenizer
        self._places = {request.request_id: i for i, request in enumerate(requests)}
        params = requests[0].params
        self._completions = [_Completion(i, None) for i in range(len(requests))]
        if tokenizer is not None and (streaming or params.stop):
            for completion in self._completions:
                completion.stream = TextStream(tokenizer, params.stop, min_tokens=params.min_tokens)
        self._num_cached_tokens = 0
        self._prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
        self._error: HeadraceError | None = None
        self._timing = Timing()
        self._changed = threading.Condition()
        self._callbacks: list[Callable[[RequestHandle], None]] = []

    # ---------------------------------------------------------------- the dispatcher's side

    def take(self, output: EngineOutput) -> None:
        """One output of the engine for one of the sequences."""
        with self._changed:
            completion = self._completions[self._places[output.request_id]]
            if completion.engine_ended or not (self._runs(completion) or output.finished):
                return  # it ended at a stop string, and the engine goes on for a moment
            if self._runs(completion):
                self._error = self._error or output.error
                self._take_tokens(completion, output)
            if output.finished:
                completion.engine_ended = True
                self._take_ending(output)
            done = self.done
            self._changed.notify_all()
        if done:
            self._call_back()

    def _take_tokens(self, completion: _Completion, output: EngineOutput) -> None:
        try:
            self._add_tokens(completion, output)
            if output.finished and self._runs(completion):
                # A guide that is complete ends a request without a token that says so.
                self._end(completion, output.finish_reason, output.stop_reason, bool(output.new_token_ids))
        except Exception as error:  # a tokenizer that raises ends its request, whose caller waits
            _log.exception("the text of request %s could not be made", output.request_id)
            self._error = RequestFailed(f"the text could not be made: {type(error).__name__}: {error}")
            completion.finish_reason = "error"
            self._cancel(output.request_id)

    def _call_back(self) -> None:
        for callback in self._callbacks:
            try:
                callback(self)
            except Exception:  # the next one may be what somebody waits for
                _log.exception("a callback of request %s raised", self.request_id)

    @staticmethod
    def _runs(completion: _Completion) -> bool:
        return completion.finish_reason is None

    def _add_tokens(self, completion: _Completion, output: EngineOutput) -> None:
        kept = len(output.new_token_ids)
        stream = completion.stream
        if stream is not None and kept:
            # The end-of-sequence or stop token is no text, whether the tokenizer calls it special or not.
            is_end = output.finish_reason == "stop"
            delta = stream.push(output.new_token_ids[:-1] if is_end else output.new_token_ids)
            completion.text += delta.text
            if delta.stopped:
                kept = delta.num_tokens
                self._end(completion, "stop", delta.stop_string)
                if not output.finished:
                    self._cancel(output.request_id)
        completion.token_ids.extend(output.new_token_ids[:kept])
        completion.logprobs.extend(output.new_logprobs[:kept])

    def _end(
        self,
        completion: _Completion,
        reason: FinishReason | None,
        stop_reason: int | str | None,
        has_end_token: bool = True,
    ) -> None:
        stopped_by_string = isinstance(stop_reason, str)
        if completion.stream is not None and not stopped_by_string:
            last = completion.stream.flush()
            completion.text += last.text
            if last.stopped:
                reason, stop_reason = "stop", last.stop_string
        elif completion.stream is None and self._tokenizer is not None:
            ids = completion.token_ids[:-1] if reason == "stop" and has_end_token else completion.token_ids
            completion.text = self._tokenizer.decode(ids)
        completion.finish_reason, completion.stop_reason = reason, stop_reason

    def _take_ending(self, output: EngineOutput) -> None:
        self._num_cached_tokens = max(self._num_cached_tokens, output.num_cached_tokens)
        self._prompt_logprobs = self._prompt_logprobs or output.prompt_logprobs
        self._timing = output.timing

    # ---------------------------------------------------------------- the caller's side

    @property
    def done(self) -> bool:
        """Whether every sequence has ended, in the engine too."""
        return all(completion.engine_ended for completion in self._completions)

    def cancel(self) -> None:
        """End what still runs with finish_reason "cancelled"; harmless when it has ended."""
        for request in self._requests:
            self._cancel(request.request_id)

    def result(self, timeout: float | None = None) -> RequestOutput:
        """Wait for the end, `timeout` seconds at most. Raises TimeoutError; the request goes on then."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.done, timeout):
                raise TimeoutError(f"request {self.request_id} has not ended after {timeout} s")
            return self._output()

    def deltas(self) -> Iterator[StreamDelta]:
        """Yield what comes, as it comes; ends with the last sequence. Raises the error of a request that failed.

        One reader at a time. A reader that falls behind gets what it missed in one delta.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._has_news() or self.done)
                news = [self._read(c) for c in self._completions if self._is_news(c)]
                over = self.done
            yield from news
            if over:
                break
        if self._error is not None and not isinstance(self._error, RequestCancelled):
            raise self._error

    def on_done(self, callback: Callable[[RequestHandle], None]) -> None:
        """Have `callback` called once when it has ended (at once when it has), on the dispatcher's thread."""
        with self._changed:
            if not self.done:
                self._callbacks.append(callback)
                return
        callback(self)

    def _has_news(self) -> bool:
        return any(map(self._is_news, self._completions))

    @staticmethod
    def _is_news(completion: _Completion) -> bool:
        return completion.read_tokens < len(completion.token_ids) or (
            completion.finish_reason is not None and not completion.told_end
        )

    def _read(self, completion: _Completion) -> StreamDelta:
        tokens, text = completion.read_tokens, completion.read_text
        completion.read_tokens, completion.read_text = len(completion.token_ids), len(completion.text)
        completion.told_end = completion.finish_reason is not None
        return StreamDelta(
            completion.index,
            completion.text[text:],
            tuple(completion.token_ids[tokens:]),
            completion.finish_reason,
            completion.stop_reason,
            tuple(completion.logprobs[tokens:]) if completion.logprobs else None,
        )

    def _output(self) -> RequestOutput:
        wants_logprobs = self._requests[0].params.logprobs is not None
        outputs = tuple(
            CompletionOutput(
                c.index,
                tuple(c.token_ids),
                c.text,
                c.finish_reason or "error",
                c.stop_reason,
                tuple(c.logprobs) if wants_logprobs else None,
            )
            for c in self._completions
        )
        return RequestOutput(
            self.request_id,
            tuple(self._requests[0].prompt_token_ids),
            outputs,
            self._num_cached_tokens,
            self._prompt_logprobs,
            self._error,
            self._timing,
        )


class DeltaStream:
    """What a request generates, piece by piece; closing or dropping it cancels the request. One reader at a time.

    Iterating raises the error of a request that fails on the way.
    """

    def __init__(self, handle: RequestHandle) -> None:
        """Nothing was read yet."""
        self._handle = handle
        self._deltas = handle.deltas()
        self._closed = False

    def __iter__(self) -> DeltaStream:
        """The stream itself."""
        return self

    def __next__(self) -> StreamDelta:
        """Wait for the next piece."""
        if self._closed:
            raise StopIteration
        return next(self._deltas)

    def close(self) -> None:
        """Cancel what still runs; nothing more is yielded. Harmless when repeated."""
        self._closed = True
        if not self._handle.done:
            self._handle.cancel()

    def __enter__(self) -> DeltaStream:
        """The stream itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def __del__(self) -> None:
        """Close."""
        self.close()
