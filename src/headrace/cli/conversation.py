"""A conversation that stays within the model's length."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from headrace.errors import PromptTooLong
from headrace.text import Tokenizer

Message = dict[str, Any]


@dataclass(slots=True)
class Conversation:
    """System prompt and turns, oldest first. A turn is a user's message and the answer to it.

    Attributes:
        tokenizer: whose chat template is used.
        max_tokens: most tokens of prompt and answer together: the model's length.
        system: the system prompt, or None.
        turns: (user's message, answer) pairs that are finished.
    """

    tokenizer: Tokenizer
    max_tokens: int
    system: str | None = None
    turns: list[tuple[str, str]] = field(default_factory=list)

    def prompt(self, message: str, room_tokens: int) -> tuple[list[int], int]:
        """Token ids that end with the opening of the answer to a new message.

        The oldest turns are forgotten for good until `room_tokens` are left for the answer.

        Returns:
            The ids, and how many turns were forgotten.

        Raises:
            PromptTooLong: the message alone leaves too little room.
            InvalidRequest: the chat template refuses the messages.
        """
        num_forgotten = 0
        while True:
            ids = self.tokenizer.apply_chat_template(self._messages(message))
            if len(ids) + room_tokens <= self.max_tokens:
                return ids, num_forgotten
            if not self.turns:
                raise PromptTooLong(
                    f"the message takes {len(ids)} tokens; with {room_tokens} kept for the answer, "
                    f"{self.max_tokens - room_tokens} of the model's {self.max_tokens} can be used"
                )
            del self.turns[0]
            num_forgotten += 1

    def _messages(self, message: str) -> list[Message]:
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for question, answer in self.turns:
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return [*messages, {"role": "user", "content": message}]
