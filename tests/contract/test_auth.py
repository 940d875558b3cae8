"""Who is let in, over HTTP and by the official clients: keys, tokens, roles, and TLS."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import httpx
import jwt
import openai
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.contract.asks import ASK, chat
from tests.contract.process import Server, headrace, serving, simulated

SECRET = "a secret of more than thirty-two bytes"


@dataclass(frozen=True)
class Guarded:
    """A server that wants to know who asks. Attributes: user, admin: keys. private: signs RS256 tokens."""

    server: Server
    user: str
    admin: str
    private: rsa.RSAPrivateKey

    def status(self, path: str, key: str | None, header: str = "authorization") -> int:
        headers = {} if key is None else {header: f"Bearer {key}" if header == "authorization" else key}
        return self.server.get(path, headers=headers).status_code


def new_key(folder: Path, name: str, role: str) -> str:
    command = headrace("key", "new", name, "--role", role, "--file", str(folder / "keys.txt"))
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def token(key: Any = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    return jwt.encode({"sub": "mira", "exp": time.time() + 600, **claims}, key, algorithm=algorithm)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("keys")
    user, admin = new_key(folder, "mira", "user"), new_key(folder, "root", "admin")
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (folder / "public.pem").write_bytes(pem(private))
    flags = ["--api-keys-file", str(folder / "keys.txt"), "--jwt-public-key-file", str(folder / "public.pem")]
    with serving("builtin", *simulated(), *flags, environment={"HEADRACE_JWT_SECRET": SECRET}) as server:
        yield Guarded(server, user, admin, private)


def test_what_is_open_and_what_is_not(guarded: Guarded) -> None:
    for path in ("/health", "/health/live", "/health/ready", "/version", "/openapi.json"):
        assert guarded.status(path, None) == 200
    for path in ("/v1/models", "/v1/models/builtin", "/load", "/metrics", "/admin/state"):
        assert guarded.status(path, None) == 401
        assert guarded.status(path, "hr-wrong") == 401


def test_roles(guarded: Guarded) -> None:
    for header in ("authorization", "x-api-key"):
        assert guarded.status("/v1/models", guarded.user, header) == 200
        assert guarded.status("/admin/state", guarded.user, header) == 403
        assert guarded.status("/admin/state", guarded.admin, header) == 200


def test_tokens(guarded: Guarded) -> None:
    signed = token(guarded.private, "RS256")
    assert guarded.status("/v1/models", token()) == 200
    assert guarded.status("/v1/models", signed) == 200
    assert guarded.status("/admin/state", signed) == 403
    assert guarded.status("/admin/state", token(role="admin")) == 200
    for wrong in (
        token(exp=time.time() - 60),
        token("another secret of more than thirty-two bytes"),
        token(rsa.generate_private_key(public_exponent=65537, key_size=2048), "RS256"),
        token(role="root"),
        token()[:-2],
        jwt.encode({"sub": "mira", "exp": time.time() + 600}, None, algorithm="none"),
        jwt.encode({"sub": "mira"}, SECRET, algorithm="HS256"),
    ):
        assert guarded.status("/v1/models", wrong) == 401


def test_the_official_clients(guarded: Guarded) -> None:
    url = guarded.server.url
    good = openai.OpenAI(base_url=f"{url}/v1", api_key=guarded.user, max_retries=0)
    assert chat(good, max_tokens=4).usage.completion_tokens == 4
    bad = openai.OpenAI(base_url=f"{url}/v1", api_key="hr-wrong", max_retries=0)
    for stream in (False, True):
        with pytest.raises(openai.AuthenticationError) as caught:
            chat(bad, stream=stream)
        assert (caught.value.code, caught.value.type) == ("unauthorized", "authentication_error")
        assert "hr-wrong" not in str(caught.value)
    ask: Any = {"model": "builtin", "max_tokens": 4, "messages": ASK}
    assert anthropic.Anthropic(base_url=url, api_key=guarded.user).messages.create(**ask).usage.output_tokens == 4
    with pytest.raises(anthropic.AuthenticationError):
        anthropic.Anthropic(base_url=url, api_key="hr-wrong", max_retries=0).messages.create(**ask)


def test_a_refusal_comes_before_the_body_is_read(guarded: Guarded) -> None:
    answer = guarded.server.post("/v1/chat/completions", {"messages": 3})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


def test_keys_are_not_in_the_log(guarded: Guarded) -> None:
    guarded.status("/v1/models", guarded.user)
    log = guarded.server.log
    assert guarded.user not in log
    assert SECRET not in log


def test_others_may_only_connect_with_a_key() -> None:
    command = headrace("serve", "builtin", "--host", "0.0.0.0", "--port", "0", *simulated())
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 2
    assert "key" in found.stderr


@pytest.mark.slow
def test_limits_of_a_key(tmp_path: Path) -> None:
    """One answer at a time: the second is told so, and the third may come when the first has ended."""
    flags = ["--max-streams-per-key", "1", *simulated(step_s=0.01)]
    with serving("builtin", *flags) as server:
        body = {"messages": ASK, "max_tokens": 5000, "stream": True}
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=30) as first:
            # Kept: a generator that is let go closes the connection.
            lines = first.iter_lines()
            next(lines)
            second = server.post("/v1/chat/completions", {"messages": ASK, "max_tokens": 1})
            assert (second.status_code, second.json()["error"]["code"]) == (429, "too_many_streams")
        deadline = time.monotonic() + 5
        while server.post("/v1/chat/completions", {"messages": ASK, "max_tokens": 1}).status_code != 200:
            assert time.monotonic() < deadline


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "cert.pem", folder / "key.pem"
    certificate_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


def test_tls(tmp_path: Path) -> None:
    certificate_file, key_file = certificate(tmp_path)
    flags = ["--tls-certificate", str(certificate_file), "--tls-key", str(key_file)]
    with serving("builtin", *simulated(), *flags) as server:
        assert server.url.startswith("https://127.0.0.1:")
        trusting = ssl.create_default_context(cafile=str(certificate_file))
        with (
            httpx.Client(verify=trusting) as http,
            openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", http_client=http, max_retries=0) as client,
        ):
            chunks = list(chat(client, max_tokens=6, stream=True))
            assert chunks[-1].choices[0].finish_reason == "length"
        with pytest.raises(httpx.ConnectError):
            server.get("/health")
        with pytest.raises(httpx.HTTPError):
            httpx.get(server.url.replace("https", "http") + "/health")
        assert server.get("/health", verify=trusting).status_code == 200


@pytest.mark.slow
def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    flags = ["--tls-certificate", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "cert.pem")]
    command = headrace("serve", "builtin", "--port", "0", *simulated(), *flags)
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 2
    assert "cert.pem" in found.stderr


@pytest.mark.slow
def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serving("builtin", *simulated(), "--uds", str(path)) as server:
        assert server.url.endswith(str(path))
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://headrace") as http:
            answer = http.post("/v1/chat/completions", json={"messages": ASK, "max_tokens": 2})
            assert answer.json()["usage"]["completion_tokens"] == 2
