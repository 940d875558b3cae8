"""A replica without an engine, started as a process: says where it serves, answers slowly if asked to, drains."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys


async def main() -> None:
    num_active = 0
    draining = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal num_active
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length: ")[2].partition("\r\n")[0] or 0)
                body = await reader.readexactly(length)
                num_active += 1
                answer, status = {"pid": os.getpid()}, 200
                if head.startswith("post"):
                    await asyncio.sleep(json.loads(body).get("takes_s", 0.0))
                elif head.startswith("get /v1/models"):
                    answer = {"data": [{"id": "fake"}]}
                elif draining.is_set():
                    status = 503
                data = json.dumps(answer).encode()
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(data), data))
                await writer.drain()
                num_active -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, draining.set)
    print("a line before", file=sys.stderr)
    port = server.sockets[0].getsockname()[1]
    print(f"headrace: serving fake at http://127.0.0.1:{port}", file=sys.stderr, flush=True)
    await draining.wait()
    while num_active:
        await asyncio.sleep(0.01)
    print("drained", file=sys.stderr)
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(f"headrace: error: it cannot be: {sys.argv[1]}", file=sys.stderr)
        sys.exit(int(sys.argv[1]))
    asyncio.run(main())
