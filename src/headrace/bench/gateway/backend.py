"""A replica that does what the benchmark says, cheaply: a process of its own, so that it can be killed and stopped.

Started as ``python -m headrace.bench.gateway.backend '<settings as JSON>'``; prints its port. Every GET is answered
200. What a replica of headrace does for a stream to go on elsewhere (token ids in comments, `headrace_continue`) is
done with `is_resumable`, so that the gateway's part of it can be measured without a model.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from typing import Literal, cast

import msgspec

Fault = Literal["none", "reset", "truncate", "stall", "hang", "storm"]

FAULT_PATH = b"/bench/fault/"
WORD = "t%d "
"""Text of token i: what a client has to see is known, so a lost or doubled token is."""

_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n%btransfer-encoding: chunked\r\n\r\n"
_RESUMABLE = b"x-headrace-token-ids: 1\r\nx-headrace-seed: 1\r\n"
_MODELS = b'{"object":"list","data":[{"id":"m","object":"model","created":1,"owned_by":"bench"}]}'
_ANSWER = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":'
    b'"assistant","content":"hello there"},"finish_reason":"stop"}],"usage":{"prompt_tokens":40,"completion_tokens":2,'
    b'"total_tokens":42}}'
)
_FAILURE = b'{"error":{"message":"storm","type":"server_error","code":"internal_error"}}'


class BackendSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a scripted replica does.

    Attributes:
        port: 0: any. json_s: until an answer that is no stream is there. num_chunks: of a stream.
        chunk_s: between two of them; 0: all are written at once, each in a write of its own.
        is_resumable: speaks the protocol of streams that go on elsewhere. name: told in header x-backend.
    """

    port: int = 0
    name: str = "backend"
    json_s: float = 0.0
    num_chunks: int = 100
    chunk_s: float = 0.0
    is_resumable: bool = False


class _Continue(msgspec.Struct):
    choices: list[dict[str, msgspec.Raw]] = []


class _Body(msgspec.Struct):
    stream: bool = False
    flood: int = 0  # events as fast as the client takes them
    headrace_continue: _Continue | None = None


_decode = msgspec.json.Decoder(_Body).decode


class Script:
    """What all connections of a backend share.

    Attributes: fault: that is on now.
    """

    def __init__(self, settings: BackendSettings) -> None:
        """Well."""
        self.settings = settings
        self.fault: Fault = "none"
        self.json_answer = whole(200, _ANSWER, settings.name)
        self.failure = whole(500, _FAILURE, settings.name)
        self.models = whole(200, _MODELS, settings.name)
        self.chunks = [self._chunk(number) for number in range(settings.num_chunks)]
        end = b": headrace usage\n" if settings.is_resumable else b""
        usage = b'data: {"id":"chatcmpl-1","choices":[],"usage":{"prompt_tokens":40,"completion_tokens":%d}}\n\n'
        self.end = chunk(end + usage % settings.num_chunks) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
        told = b"x-backend: %b\r\n" % settings.name.encode()
        self.head = _STREAM_HEAD % (told + _RESUMABLE if settings.is_resumable else told)

    def _chunk(self, number: int) -> bytes:
        content = (WORD % number).encode()
        event = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":' + (
            b'[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n' % content
        )
        last = b" 0=stop" if number == self.settings.num_chunks - 1 else b""
        comment = b": headrace 0:%d%b\n" % (number, last) if self.settings.is_resumable else b""
        return chunk(comment + event)


class Connection(asyncio.Protocol):
    """One connection; its requests are read by hand, which is all that well-formed ones need."""

    def __init__(self, script: Script) -> None:
        """Not connected yet."""
        self._script = script
        self._pending = b""
        self._parts: list[bytes] = []
        self._num_missing = 0
        self._task: asyncio.Task[None] | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()

    def pause_writing(self) -> None:
        """The client's window is full."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """It reads again."""
        self._may_write.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        """It left."""
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Bytes of requests: a long body is gathered in parts, not joined at every read."""
        if self._num_missing > len(data):
            self._parts.append(data)
            self._num_missing -= len(data)
            return
        if self._parts:
            data = b"".join((*self._parts, data))
            self._parts.clear()
            self._num_missing = 0
        self._pending += data
        while (end := self._pending.find(b"\r\n\r\n")) >= 0:
            head = self._pending[:end].lower()
            length = _content_length(head)
            stop = end + 4 + length
            if len(self._pending) < stop:
                self._num_missing = stop - len(self._pending)
                self._parts, self._pending = [self._pending], b""
                return
            body, self._pending = self._pending[end + 4 : stop], self._pending[stop:]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        script, write = self._script, self._transport.write
        if head.startswith(b"get "):
            write(script.models)
        elif head.startswith(b"post " + FAULT_PATH):
            script.fault = cast(Fault, head[5 + len(FAULT_PATH) :].partition(b" ")[0].decode())
            write(script.json_answer)
        elif script.fault == "hang":
            return
        elif script.fault == "storm":
            write(script.failure)
        elif b'"stream"' in body and (fields := _decode(body)).stream:  # some gateways write "stream":false
            self._begin_stream(fields)
        elif script.settings.json_s or script.fault != "none":
            self._task = asyncio.get_running_loop().create_task(self._slow_answer())
        else:
            write(script.json_answer)

    def _begin_stream(self, fields: _Body) -> None:
        given = 0
        if fields.headrace_continue is not None:
            given = len(msgspec.json.decode(fields.headrace_continue.choices[0]["token_ids"]))
        work = self._flood(fields.flood) if fields.flood else self._stream(given)
        self._task = asyncio.get_running_loop().create_task(work)

    async def _flood(self, num_events: int) -> None:
        """More than any buffer holds: waits for the client."""
        self._transport.write(self._script.head)
        for number in range(num_events):
            await self._may_write.wait()
            self._transport.write(self._script.chunks[number % len(self._script.chunks)])
        self._transport.write(self._script.end)

    async def _slow_answer(self) -> None:
        script = self._script
        await asyncio.sleep(script.settings.json_s)
        if script.fault in ("reset", "truncate"):
            self._transport.write(script.json_answer[:-50])
            await self._break()
        elif script.fault != "stall":
            self._transport.write(script.json_answer)

    async def _stream(self, num_given: int) -> None:
        script, write, chunk_s = self._script, self._transport.write, self._script.settings.chunk_s
        write(script.head)
        for number in range(num_given, script.settings.num_chunks):
            if script.fault in ("reset", "truncate", "stall") and number >= num_given + 10:
                write(script.chunks[number][:-20])
                await self._break()
                return
            write(script.chunks[number])
            if chunk_s:
                await asyncio.sleep(chunk_s)
        write(script.end)

    async def _break(self) -> None:
        """In the middle of a chunk: reset the connection, close it as if all were said, or say nothing more."""
        if self._script.fault == "stall":
            return
        await asyncio.sleep(0.01)  # what was written is on its way before the end of the connection
        if self._script.fault == "reset":
            sock: socket.socket = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


def whole(status: int, body: bytes, name: str) -> bytes:
    """An answer that is no stream."""
    head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\nx-backend: %b\r\ncontent-length: %d\r\n\r\n"
    return head % (status, name.encode(), len(body)) + body


def chunk(data: bytes) -> bytes:
    """Chunked coding of a piece."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _content_length(head: bytes) -> int:
    place = head.find(b"content-length:")
    return int(head[place + 15 :].partition(b"\r\n")[0]) if place >= 0 else 0


async def serve(settings: BackendSettings) -> None:
    """Answer until the process ends; listens on every local address, so that one backend can be a hundred replicas."""
    script = Script(settings)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(script), "0.0.0.0", settings.port, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main(settings_json: str) -> None:
    """Run one backend."""
    import uvloop

    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(msgspec.json.decode(settings_json, type=BackendSettings)))


if __name__ == "__main__":
    main(sys.argv[1])
