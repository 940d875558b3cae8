"""Where replicas come from: how one is written down, and each source of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import ConfigError
from headrace.gateway.discovery import DiscoveryHub, parse_endpoint
from headrace.gateway.discovery.file import FileSource, read_replica_file
from headrace.gateway.discovery.registration import RegistrationSource
from headrace.gateway.discovery.static import StaticSource
from headrace.gateway.replica import Endpoint
from tests.gateway.test_proxy import run

A, B = Endpoint("a", "10.0.0.1", 80), Endpoint("b", "10.0.0.2", 80)


@pytest.mark.parametrize(
    ("given", "url", "name"),
    [
        ("http://10.0.0.5:8000", "http://10.0.0.5:8000", "10.0.0.5:8000"),
        ("10.0.0.5:8000", "http://10.0.0.5:8000", "10.0.0.5:8000"),
        ("http://10.0.0.5:8000/v1/", "http://10.0.0.5:8000", "10.0.0.5:8000"),
        ("https://llm.example", "https://llm.example:443", "llm.example:443"),
        ("http://[::1]:8000", "http://[::1]:8000", "[::1]:8000"),
        ({"url": "http://h:1", "name": "big"}, "http://h:1", "big"),
    ],
)
def test_an_endpoint_is_read(given: Any, url: str, name: str) -> None:
    endpoint = parse_endpoint(given)
    assert (endpoint.url, endpoint.name) == (url, name)


def test_all_fields_of_an_endpoint() -> None:
    table = {"url": "http://h:1", "name": "n", "weight": 2, "models": ["m"], "metadata": {"zone": "a"}}
    assert parse_endpoint(table) == Endpoint("n", "h", 1, False, 2.0, ("m",), {"zone": "a"})


@pytest.mark.parametrize(
    "given",
    [
        "", "ftp://h:1", "http://h:0", "http://h:99999", "http://h:x", "http://:80", "http://h/other", "http://h/?a=1",
        {}, {"url": 5}, {"url": "http://h", "colour": "red"}, {"url": "http://h", "weight": 0},
        {"url": "http://h", "weight": float("nan")}, {"url": "http://h", "weight": True},
        {"url": "http://h", "weight": "2"}, {"url": "http://h", "models": "m"}, {"url": "http://h", "models": [1]},
        {"url": "http://h", "metadata": {"a": 1}}, {"url": "http://h", "name": "a b"},
        {"url": "http://h", "name": "a\r\nb"}, {"url": "http://h", "name": "a/b"}, {"url": "http://h", "name": 7},
        {"url": "http://user:secret@h"}, "http://h\r\nx: y", "http://[::1",
    ],
)  # fmt: skip
def test_what_is_no_endpoint_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError):
        parse_endpoint(given)


# ---------------------------------------------------------------- the file


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("r.toml", 'replicas = ["http://h:1", { url = "http://g:2", name = "big", weight = 2 }]'),
        ("r.yaml", "replicas:\n- http://h:1\n- {url: 'http://g:2', name: big, weight: 2}\n"),
    ],
)
def test_a_file_of_tables(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    first, second = read_replica_file(tmp_path / name)
    assert (first.url, second.name, second.weight) == ("http://h:1", "big", 2.0)


def test_a_file_of_lines(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("# ours\nhttp://h:1  # first\n\n  g:2\n")
    assert [endpoint.url for endpoint in read_replica_file(tmp_path / "r.txt")] == ["http://h:1", "http://g:2"]


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("r.toml", "replicas = [", "r.toml"),
        ("r.toml", 'replica = ["http://h:1"]', "replicas"),
        ("r.toml", "replicas = [5]", "5"),
        ("r.yaml", "- http://h:1", "replicas"),
        ("r.yaml", "replicas: {", "r.yaml"),
        ("r.txt", "http://h:1\nhttp://h:1", "twice"),
        ("r.txt", "nonsense://h", "nonsense"),
        ("r.txt", "", "no replica"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, name: str, text: str, word: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=word):
        read_replica_file(tmp_path / name)


def test_a_file_is_followed_and_the_last_good_set_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "r.txt"
    path.write_text("h:1")

    async def test() -> None:
        sets = FileSource(path, poll_s=0.005).sets()
        assert [endpoint.name for endpoint in await anext(sets)] == ["h:1"]
        following = asyncio.ensure_future(anext(sets))
        for bad in ("nonsense://", "more://nonsense"):
            path.write_text(bad)
            async with asyncio.timeout(5):
                while bad not in caplog.text:
                    await asyncio.sleep(0.005)
        path.unlink()
        await asyncio.sleep(0.02)
        assert not following.done()
        path.write_text("h:1\ng:2")
        assert [endpoint.name for endpoint in await following] == ["h:1", "g:2"]
        await sets.aclose()  # type: ignore[attr-defined]

    run(test)
    assert caplog.text.count("cannot be used") == 3  # two bad ones, and none at all: each once


def test_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    async def test() -> None:
        sets = FileSource(tmp_path / "later.txt", poll_s=0.005).sets()
        first = asyncio.ensure_future(anext(sets))
        await asyncio.sleep(0.02)
        (tmp_path / "later.txt").write_text("h:1")
        assert len(await first) == 1
        await sets.aclose()  # type: ignore[attr-defined]

    run(test)


# ---------------------------------------------------------------- what is added and announced


def test_what_is_added_and_removed() -> None:
    async def test() -> None:
        source = StaticSource([A])
        sets = source.sets()
        assert await anext(sets) == (A,)
        source.add(B)
        assert await anext(sets) == (A, B)
        assert source.remove("a")
        assert not source.remove("a")
        assert await anext(sets) == (B,)

    run(test)


def test_an_announcement_holds_as_long_as_its_lease() -> None:
    now_s = 100.0
    source = RegistrationSource(lambda: now_s, lease_s=30.0)
    source.announce(A)
    now_s += 20
    source.announce(B)
    assert source.expires_in_s("a") == 10
    now_s += 10
    assert source.drop_expired() == ["a"]
    assert source.expires_in_s("a") is None
    source.announce(B)
    now_s += 29.9
    assert source.drop_expired() == []
    assert source.withdraw("b")
    assert not source.withdraw("b")


def test_announcements_are_told_when_they_change_something() -> None:
    async def test() -> None:
        now_s = 0.0
        source = RegistrationSource(lambda: now_s, lease_s=5.0)
        sets = source.sets()
        assert await anext(sets) == ()
        source.announce(A)
        assert await anext(sets) == (A,)
        waiting = asyncio.ensure_future(anext(sets))
        source.announce(A)  # a heartbeat is no change
        await asyncio.sleep(0.02)
        assert not waiting.done()
        now_s = 5.0
        assert await waiting == ()

    run(test)


# ---------------------------------------------------------------- all together


class Broken:
    """A source that works once, is down, and comes back."""

    def __init__(self) -> None:
        self.num_asked = 0

    async def sets(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        self.num_asked += 1
        yield (A,) if self.num_asked == 1 else (B,)
        if self.num_asked == 1:
            raise OSError("it is down")
        await asyncio.Event().wait()


def test_the_union_changes_when_a_source_does() -> None:
    async def test() -> None:
        given: list[list[Endpoint]] = []
        first, second = StaticSource([A]), StaticSource([Endpoint("a", "elsewhere", 1), B])
        hub = DiscoveryHub({"first": first, "second": second}, given.append)
        hub.start()
        await _until(lambda: len(given) == 2)
        assert given[-1] == [A, B]  # a name belongs to the source that comes first
        first.remove("a")
        await _until(lambda: len(given) == 3)
        assert {endpoint.name: endpoint.host for endpoint in given[-1]} == {"a": "elsewhere", "b": "10.0.0.2"}
        await hub.stop()

    run(test)


def test_the_last_good_set_of_a_source_that_is_down_stays() -> None:
    async def test() -> None:
        given: list[list[Endpoint]] = []
        source = Broken()
        hub = DiscoveryHub({"broken": source}, given.append, retry_s=0.02)
        hub.start()
        await _until(lambda: len(given) == 2)
        assert given == [[A], [B]]
        assert source.num_asked == 2
        await hub.stop()

    run(test)


def test_a_fleet_that_cannot_take_a_set_does_not_end_the_source(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        given: list[list[Endpoint]] = []

        def refuse_once(endpoints: list[Endpoint]) -> None:
            given.append(endpoints)
            if len(given) == 1:
                raise RuntimeError("out of order")

        source = StaticSource([A])
        hub = DiscoveryHub({"s": source}, refuse_once, retry_s=0.02)
        hub.start()
        await _until(lambda: given)
        source.add(B)
        await _until(lambda: [A, B] in given)
        await hub.stop()

    run(test)
    assert "out of order" in caplog.text


async def _until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)
