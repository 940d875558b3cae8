"""How many tokens one server process streams, with a simulated engine that computes nothing.

    python benchmarks/streaming.py [--clients 64] [--tokens 400] [--step-s 0]

Each client reads one stream after the other over its own connection and only counts events, so that the processor time
is the server's. Prints tokens/s, the processor time of the server per token, and the TTFT of a lone client beside the
engine's own.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

_CHUNK = 1 << 18
_VOCAB_SIZE = 1536
"""Of the built-in tokenizer."""


def cpu_s(pid: int) -> float:
    """Processor time of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def request(port: int, num_tokens: int, stream: bool) -> bytes:
    """A request for a chat answer of so many tokens."""
    body = json.dumps(
        {
            "messages": [{"role": "user", "content": "Tell me a story."}],
            "max_tokens": num_tokens,
            "stream": stream,
        }
    ).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Client:
    """Asks again whenever an answer has ended."""

    def __init__(self, port: int, payload: bytes) -> None:
        """Connect."""
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.payload = payload
        self.num_events = 0
        self.num_ended_events = 0
        self.num_ended = 0
        self.num_reads = 0
        self._tail = b""

    def ask(self) -> None:
        """Send the request."""
        self.socket.sendall(self.payload)

    def read(self) -> None:
        """Count what there is."""
        data = self.socket.recv(_CHUNK)
        self.num_reads += 1
        self.num_events += data.count(b'"delta":{"content":"')
        if b"[DONE]" in self._tail + data:
            self._tail = b""
            self.num_ended += 1
            self.num_ended_events = self.num_events
            self.ask()
        else:
            self._tail = data[-8:]


def measure(
    port: int, server: int, num_clients: int, num_tokens: int, warm_s: float, seconds: float
) -> dict[str, float]:
    """Stream to all clients for a while."""
    clients = [Client(port, request(port, num_tokens, stream=True)) for _ in range(num_clients)]
    selector = selectors.DefaultSelector()
    for client in clients:
        selector.register(client.socket, selectors.EVENT_READ, client)
        client.ask()
    begin = time.perf_counter()
    marks: list[tuple[float, float, int, int]] = []
    while len(marks) < 2:
        now = time.perf_counter() - begin
        if now >= (warm_s, warm_s + seconds)[len(marks)]:
            events, reads = sum(c.num_events for c in clients), sum(c.num_reads for c in clients)
            marks.append((now, cpu_s(server), events, reads))
        for key, _ in selector.select(0.1):
            key.data.read()
    for client in clients:
        client.socket.close()
    (t0, c0, e0, r0), (t1, c1, e1, r1) = marks
    # A token that ends within a character has no event of its own: so many tokens an event there are in whole answers.
    tokens_per_event = num_tokens * sum(c.num_ended for c in clients) / sum(c.num_ended_events for c in clients)
    tokens = round((e1 - e0) * tokens_per_event)
    return {
        "clients": num_clients,
        "tokens_per_s": round(tokens / (t1 - t0)),
        "events_per_s": round((e1 - e0) / (t1 - t0)),
        "server_cores": round((c1 - c0) / (t1 - t0), 3),
        "server_us_per_token": round((c1 - c0) / tokens * 1e6, 2),
        "tokens_per_core_s": round(tokens / (c1 - c0)),
        "tokens_per_read": round(tokens / (r1 - r0), 2),
    }


def lone_ttft_ms(port: int, num: int) -> dict[str, float]:
    """TTFT of one client at a time, in milliseconds."""
    times = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(num):
            data, begin, first = b"", time.perf_counter(), None
            connection.sendall(request(port, 4, stream=True))
            while b"[DONE]" not in data:
                data += connection.recv(_CHUNK)
                if first is None and data.count(b"data: ") >= 2:  # the first one only says who speaks
                    first = time.perf_counter()
            assert first is not None
            times.append((first - begin) * 1e3)
            connection.recv(16) if not data.endswith(b"0\r\n\r\n") else None
    quantiles = statistics.quantiles(times, n=100)
    return {"ttft_p50_ms": round(quantiles[49], 3), "ttft_p99_ms": round(quantiles[98], 3)}


def main() -> int:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--step-s", type=float, default=0.0)
    parser.add_argument("--warm-s", type=float, default=3.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "headrace.cli.main", "serve", "builtin", "--port", str(port)]
    command += ["--simulated", f"step_s={arguments.step_s}", "--simulated", f"vocab_size={_VOCAB_SIZE}"]
    command += ["--log-level", "warning"]
    server = subprocess.Popen(command)
    try:
        _await_ready(port, server)
        report = lone_ttft_ms(port, 500)
        report |= measure(port, server.pid, arguments.clients, arguments.tokens, arguments.warm_s, arguments.seconds)
        print(json.dumps(report))
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)
    return 0


def _await_ready(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(400):
        if server.poll() is not None:
            raise SystemExit("the server ended")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=2).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("the server is not ready after 20 s")


if __name__ == "__main__":
    sys.exit(main())
