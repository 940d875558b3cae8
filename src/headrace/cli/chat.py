"""`headrace chat`: talk with a model in the terminal, or line by line through a pipe."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from headrace.cli.conversation import Conversation
from headrace.cli.engine_arguments import (
    add_engine_arguments,
    add_model_arguments,
    add_sampling_arguments,
    open_llm,
    sampling_params,
)
from headrace.engine.sampling_params import SamplingParams
from headrace.errors import EngineDead, EngineStopped, HeadraceError, InvalidParameter

if TYPE_CHECKING:
    from headrace import LLM

_HELP = """\
/system TEXT   set the system prompt (without TEXT: remove it); starts a new conversation
/reset         start a new conversation
/help          this list
/quit          end, as does Ctrl-D; Ctrl-C stops an answer"""

_PROMPT = "> "
_ROOM_RATIO = 0.25
"""Share of the model's length that is kept for an answer whose length is not limited more."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.usage = "headrace chat MODEL [options]"
    add_model_arguments(parser)
    parser.add_argument("--system", metavar="TEXT", help="the system prompt")
    add_sampling_arguments(parser)
    add_engine_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    params = sampling_params(arguments)
    if params.n != 1:
        raise InvalidParameter("n", params.n, "1: a conversation goes on from one answer")
    with open_llm(arguments) as llm:
        length = llm.config.max_model_len
        assert length is not None, "an LLM's config has every setting worked out"
        conversation = Conversation(llm.tokenizer, length, system=arguments.system)
        chat = Chat(llm, conversation, sampling_params(arguments, llm.default_sampling_params))
        chat.loop()
    return 1 if chat.num_failed else 0


class Chat:
    """The loop of reading a line and showing an answer. Answers go to stdout, everything else to stderr.

    Attributes:
        num_failed: messages that got an error for an answer.
    """

    def __init__(self, llm: LLM, conversation: Conversation, params: SamplingParams) -> None:
        """Start with the conversation as it is."""
        self._llm = llm
        self._conversation = conversation
        self._params = params
        self.num_failed = 0

    def loop(self) -> None:
        """Answer each line until the end of the input or /quit."""
        if sys.stdin.isatty():
            _say("/help lists the commands")
        for line in _lines():
            if line == "/quit":
                return
            if line.startswith("/"):
                self._command(line)
            elif line:
                self._turn(line)

    def _command(self, line: str) -> None:
        name, _, text = line.partition(" ")
        if name in ("/system", "/reset"):
            self._conversation.turns.clear()
            if name == "/system":
                self._conversation.system = text.strip() or None
            _say("a new conversation")
        elif name == "/help":
            _say(_HELP)
        else:
            _say(f"there is no command {name}; /help lists them")

    def _turn(self, message: str) -> None:
        try:
            answer = self._answer(message)
        except (EngineDead, EngineStopped):
            raise
        except HeadraceError as error:
            self.num_failed += 1
            _say(f"error: {error}")
        else:
            self._conversation.turns.append((message, answer))

    def _answer(self, message: str) -> str:
        """Show the answer while it is generated; an interrupt ends it, and what was shown is the answer."""
        length = self._conversation.max_tokens
        room_tokens = max(1, min(self._params.max_tokens or length, int(length * _ROOM_RATIO)))
        ids, num_forgotten = self._conversation.prompt(message, room_tokens)
        if num_forgotten:
            _say(f"(the model's {length} tokens are full: the oldest {num_forgotten} turns are forgotten)")
        params = replace(self._params, max_tokens=min(self._params.max_tokens or length, length - len(ids)))
        answer = ""
        handle = self._llm.submit(ids, params, streaming=True)
        try:
            for delta in handle.deltas():
                answer += delta.text
                print(delta.text, end="", flush=True)
        except KeyboardInterrupt:
            handle.cancel()
            print(" …", end="")
        print(flush=True)
        return answer


def _lines() -> Iterator[str]:
    """Lines that are typed, with editing and history where the terminal has them, or that come through a pipe."""
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin)
        return
    with suppress(ImportError):
        import readline  # noqa: F401  its import is what gives input() its history
    while True:
        try:
            yield input(_PROMPT).strip()
        except KeyboardInterrupt:
            print()
        except EOFError:
            print()
            return


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
