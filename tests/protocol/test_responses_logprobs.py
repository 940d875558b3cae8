"""Log-probabilities of responses: every token's, with the item whose text it is of, streamed and whole alike."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.protocol import ContentPart, Part, ReasoningPart, TokenLogprob, ToolCallPart, make_writer, parse_responses
from tests.protocol.events import PROMPT, USAGE, events

PIECES: list[tuple[list[Part], str]] = [
    ([], "<think>"),
    ([ReasoningPart("hm")], "hm"),
    ([], "half of é"),
    ([ContentPart("é")], "other half"),
    ([ContentPart("!"), ToolCallPart(0, "call_1", "f", "")], "!"),
    ([ToolCallPart(0, None, None, "{}")], "{}"),
    ([ContentPart("x")], "x"),
    ([], "end"),
]
"""What tokens one by one came to: parts of the answer, none where text is not final or where there is none."""


def written(stream: bool) -> bytes:
    body = {"input": "hi", "stream": stream, "include": ["message.output_text.logprobs"]}
    writer = make_writer(parse_responses(body), "resp_1", 0, "m")
    data = writer.start([PROMPT])
    for place, (parts, name) in enumerate(PIECES):
        data += writer.parts(0, parts, [place], [TokenLogprob(place, name, name.encode(), -1.0)])
    data += writer.finish_choice(0, "stop")
    return data + writer.end(USAGE) if stream else writer.body(USAGE)


def names(logprobs: list[dict[str, Any]]) -> list[str]:
    return [item["token"] for item in logprobs]


def of_items(response: dict[str, Any]) -> list[list[str]]:
    return [names(item["content"][0]["logprobs"]) for item in response["output"] if item["type"] == "message"]


def test_every_token_of_a_text_is_in_its_item() -> None:
    expected = [["half of é", "other half", "!"], ["x", "end"]]
    assert of_items(msgspec.json.decode(written(stream=False))) == expected
    sent = [event.data for event in events(written(stream=True))]
    assert of_items(sent[-1]["response"]) == expected
    deltas: dict[int, list[str]] = {}
    for event in sent:
        if event["type"] == "response.output_text.delta":
            deltas.setdefault(event["output_index"], []).extend(names(event["logprobs"]))
    assert list(deltas.values()) == expected
    done = [event for event in sent if event["type"] == "response.output_text.done"]
    assert [names(event["logprobs"]) for event in done] == expected
