"""The server's settings: ranges, and that a server which others can reach is never open by accident."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.config.server import ServerConfig, is_loopback
from headrace.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"port": -1}, "port=-1 must be 1 to 65535"),
        ({"max_body_bytes": 0}, "max_body_bytes=0"),
        ({"max_queue_size": 0}, "max_queue_size=0 must be at least 1, or none"),
        ({"max_queue_tokens": -1}, "max_queue_tokens=-1"),
        ({"max_streams_per_key": 0}, "max_streams_per_key=0"),
        ({"queue_timeout_s": 0.0}, "queue_timeout_s=0.0 must be more than 0"),
        ({"queue_timeout_s": float("nan")}, "queue_timeout_s=nan"),
        ({"drain_timeout_s": float("inf")}, "drain_timeout_s=inf"),
        ({"jwt_leeway_s": -1.0}, "jwt_leeway_s=-1.0"),
        ({"log_level": "loud"}, "log_level='loud' is not one of debug, info"),
        ({"log_format": "xml"}, "log_format='xml' is not one of text, json"),
        ({"tls_key": "k.pem"}, "tls_key='k.pem' needs tls_certificate too"),
        ({"tls_certificate": "c.pem"}, "tls_certificate='c.pem' needs tls_key too"),
        ({"jwt_secret": "short"}, "jwt_secret has 5 bytes; HS256 needs 32"),
        ({"jwt_audience": "a"}, "need jwt_secret or jwt_public_key_file"),
        ({"api_key": "short"}, "api_key has 5 characters; it needs 16"),
        ({"api_key": "schlüssel-schlüssel"}, "no HTTP header can carry"),
        ({"no_auth": True, "api_key": "k" * 16}, "no_auth=True contradicts"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        ServerConfig(**settings)
    assert message in str(raised.value)
    assert "short" not in str(raised.value), "secrets are never shown"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.2", "example.org", "::ffff:10.0.0.1"])
def test_an_address_that_others_can_reach_needs_authentication(host: str) -> None:
    with pytest.raises(ConfigError, match=r"headrace key new NAME.*no_auth to serve everybody"):
        ServerConfig(host=host)
    for way in ({"no_auth": True}, {"api_key": "k" * 16}, {"jwt_secret": "s" * 32}, {"api_keys_file": "keys.txt"}):
        assert not ServerConfig(host=host, **way).is_local
    assert ServerConfig(host=host, uds="/run/headrace.sock").is_local


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "::ffff:127.0.0.1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)
    assert not ServerConfig(host=host).has_credentials


def test_the_bound_of_waiting_tokens_follows_the_cache() -> None:
    assert ServerConfig().queue_tokens(1000) == 4000
    assert ServerConfig(max_queue_tokens=7).queue_tokens(1000) == 7
