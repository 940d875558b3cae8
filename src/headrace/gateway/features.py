"""What a request says of itself that routing can use, found in one pass over its body.

The body is never decoded as a whole: the messages stay the JSON text that the client sent, and prefixes are compared as
that text. Two clients that write the same conversation with other white space do not share an entry; what is decoded
for it would cost more than it brings.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.errors import InvalidField
from headrace.gateway.blocks import BLOCK_BYTES, BYTES_PER_TOKEN, chained_hashes

EXPECTED_OUTPUT_TOKENS = 256
"""Of an answer whose length is not said."""


class Features(msgspec.Struct, frozen=True, gc=False):
    """Of one request.

    Attributes:
        model: that is asked for; "" when none is named. num_tokens: of the prompt, estimated.
        block_hashes: chained: entry i stands for the first i + 1 blocks of the prompt, tools and system included.
        session: what keeps the requests of one user together: a header, `prompt_cache_key` or `user`; "" for none.
        client: the client's address. stream: whether the answer is to be a stream.
        num_output_tokens: that it may have, all choices together; a guess where it is not said.
    """

    model: str
    num_tokens: int
    block_hashes: tuple[int, ...]
    session: str
    client: str
    stream: bool = False
    num_output_tokens: int = EXPECTED_OUTPUT_TOKENS


class _Body(msgspec.Struct, gc=False):
    """Texts stay as they are; what is small is decoded, whatever it is: a wrong type is the replica's to refuse."""

    model: Any = ""
    messages: msgspec.Raw = msgspec.Raw(b"")
    prompt: msgspec.Raw = msgspec.Raw(b"")
    input: msgspec.Raw = msgspec.Raw(b"")
    instructions: msgspec.Raw = msgspec.Raw(b"")
    system: msgspec.Raw = msgspec.Raw(b"")
    tools: msgspec.Raw = msgspec.Raw(b"")
    stream: Any = False
    n: Any = 1
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    prompt_cache_key: Any = ""
    user: Any = ""
    headrace_continue: msgspec.Raw = msgspec.Raw(b"")


_decode = msgspec.json.Decoder(_Body).decode


def features(body: bytes, client: str, session: str = "") -> Features:
    """Read a body. One that is no JSON object has no features but its client's: the replica will say what is wrong.

    Args:
        body: of a generation request, in the form of any of the APIs. client: address. session: of a header, if any.

    Raises:
        InvalidField: it holds what only a gateway may say to a replica.
    """
    try:
        fields = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Features("", 0, (), session, client)
    if fields.headrace_continue:  # whatever it is: a second one beside the gateway's own would win over it
        raise InvalidField("headrace_continue", "that", "nothing: gateways say it to their replicas, clients do not")
    text = memoryview(fields.messages or fields.prompt or fields.input)
    if fields.tools or fields.system or fields.instructions:  # templates put them first
        text = memoryview(b"".join((fields.tools, fields.system, fields.instructions, text)))
    num_bytes, model = len(text), fields.model
    if not session and (fields.prompt_cache_key or fields.user):
        session = _string(fields.prompt_cache_key) or _string(fields.user)
    most = fields.max_completion_tokens or fields.max_output_tokens or fields.max_tokens
    num_output_tokens = EXPECTED_OUTPUT_TOKENS if most is None else _count(most) or EXPECTED_OUTPUT_TOKENS
    if fields.n != 1:
        num_output_tokens *= _count(fields.n) or 1
    return Features(
        model if type(model) is str else "",
        num_bytes // BYTES_PER_TOKEN,
        chained_hashes(text) if num_bytes >= BLOCK_BYTES else (),
        session,
        client,
        fields.stream is True,
        num_output_tokens,
    )


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _count(value: Any) -> int:
    """0 for what is none."""
    return value if type(value) is int and 0 <= value < 10**9 else 0
