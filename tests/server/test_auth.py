"""Who is let in: keys, tokens, and the ways to cheat with either."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from headrace.config import ServerConfig
from headrace.errors import ConfigError, Forbidden, Unauthorized
from headrace.server.auth import Authenticator, Identity
from headrace.server.keys import append_entry, new_key, read_keys_file

SECRET = "a secret of more than thirty-two bytes"


class RsaKeys(NamedTuple):
    private: rsa.RSAPrivateKey
    public_pem: bytes
    public_file: Path


def public_pem(private: Any) -> bytes:
    return private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.fixture(scope="module")
def rsa_keys(tmp_path_factory: pytest.TempPathFactory) -> RsaKeys:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path = tmp_path_factory.mktemp("keys") / "public.pem"
    path.write_bytes(public_pem(private))
    return RsaKeys(private, public_pem(private), path)


def claims(**changes: Any) -> dict[str, Any]:
    return {"sub": "mira", "exp": time.time() + 600, **changes}


def signed_by_hand(header: dict[str, Any], payload: dict[str, Any] | bytes, secret: bytes) -> str:
    """An HS256 token that no library would make."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (json.dumps(header).encode(), body)]
    signature = hmac.new(secret, b".".join(parts), hashlib.sha256).digest()
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def identity(config: ServerConfig, credential: str) -> Identity:
    return Authenticator(config).authenticate({"authorization": f"Bearer {credential}"})


def refusal(config: ServerConfig, credential: str) -> str:
    with pytest.raises(Unauthorized) as raised:
        identity(config, credential)
    assert credential not in str(raised.value)
    return str(raised.value)


def test_on_loopback_everybody_is_admin_and_with_no_auth_everybody_is_user() -> None:
    local = Authenticator(ServerConfig()).authenticate({"authorization": "Bearer whatever"})
    assert local == Identity("anonymous", "admin", "anonymous")
    local.require_admin()
    public = Authenticator(ServerConfig(host="0.0.0.0", no_auth=True)).authenticate({})
    with pytest.raises(Forbidden, match="anonymous has the role user"):
        public.require_admin()


def test_keys_from_a_file_the_settings_and_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    alice, entry = new_key("alice", "admin")
    append_entry(file, entry)
    bob, entry = new_key("bob")
    config = ServerConfig(api_keys_file=str(file), api_keys=(str(entry),), api_key="plain-key-of-someone")
    assert identity(config, alice) == Identity("alice", "admin", "key:alice")
    assert identity(config, bob) == Identity("bob", "user", "key:bob")
    assert identity(config, "plain-key-of-someone") == Identity("api-key", "user", "key:api-key")
    for wrong in (alice[:-1], alice + "x", alice.upper(), entry.digest.hex(), "alice", str(entry)):
        assert refusal(config, wrong) == "the API key is not valid"


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer KEY"},
        {"authorization": "bearer  KEY "},
        {"x-api-key": "KEY"},
        {"authorization": "Basic dXNlcjpwYXNz", "x-api-key": "KEY"},
    ],
)
def test_where_a_key_may_stand(headers: dict[str, str]) -> None:
    key, entry = new_key("alice")
    sent = {name: value.replace("KEY", key) for name, value in headers.items()}
    assert Authenticator(ServerConfig(api_keys=(str(entry),))).authenticate(sent).name == "alice"


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": ""}, {"authorization": "Bearer"}, {"authorization": "KEY"}, {"x-api-key": " "}]
)
def test_no_key_is_told_how_to_send_one(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthorized, match="Authorization: Bearer KEY"):
        Authenticator(ServerConfig(api_key="k" * 16)).authenticate(headers)


def test_digests_are_compared_whole_and_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return False

    monkeypatch.setattr("headrace.server.auth.hmac.compare_digest", compare)
    key, entry = new_key("alice")
    assert refusal(ServerConfig(api_keys=(str(entry),)), key)
    assert compared == [(entry.digest, hashlib.sha256(key.encode()).digest())]


def test_tokens_of_both_algorithms(rsa_keys: RsaKeys) -> None:
    config = ServerConfig(jwt_secret=SECRET, jwt_public_key_file=str(rsa_keys.public_file))
    mira = Identity("mira", "user", "jwt:mira")
    assert identity(config, jwt.encode(claims(), SECRET, "HS256")) == mira
    assert identity(config, jwt.encode(claims(), rsa_keys.private, "RS256")) == mira
    assert identity(config, jwt.encode(claims(role="admin"), SECRET, "HS256")).role == "admin"
    assert identity(config, jwt.encode({"exp": time.time() + 9}, SECRET, "HS256")).name == "token"


def test_audience_and_issuer_are_looked_at_where_they_are_set() -> None:
    token = jwt.encode(claims(aud=["headrace", "other"], iss="https://issuer"), SECRET, "HS256")
    assert identity(ServerConfig(jwt_secret=SECRET), token)
    assert identity(ServerConfig(jwt_secret=SECRET, jwt_audience="headrace", jwt_issuer="https://issuer"), token)
    assert "aud" in refusal(ServerConfig(jwt_secret=SECRET, jwt_audience="headr"), token)
    assert "iss" in refusal(ServerConfig(jwt_secret=SECRET, jwt_issuer="https://issue"), token)
    bare = jwt.encode(claims(), SECRET, "HS256")
    assert "aud" in refusal(ServerConfig(jwt_secret=SECRET, jwt_audience="headrace"), bare)
    assert "iss" in refusal(ServerConfig(jwt_secret=SECRET, jwt_issuer="headrace"), bare)


def test_the_clocks_of_issuer_and_server_may_differ_a_little() -> None:
    token = jwt.encode(claims(exp=time.time() - 30), SECRET, "HS256")
    assert identity(ServerConfig(jwt_secret=SECRET, jwt_leeway_s=60.0), token)
    assert refusal(ServerConfig(jwt_secret=SECRET, jwt_leeway_s=10.0), token) == "the token has expired"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exp": None}, 'has no "exp"'),
        ({"exp": 1}, "has expired"),
        ({"exp": "soon"}, "is not valid"),
        ({"exp": 1e400}, "is not valid"),
        ({"nbf": 9e9}, "is not valid yet"),
        ({"role": "root"}, "role is not one of user, admin"),
        ({"role": ["admin"]}, "role is not one of user, admin"),
        ({"role": None}, "role is not one of user, admin"),
        ({"sub": "x" * 65}, "longer than 64"),
        ({"sub": {"a": 1}}, "is not valid"),
    ],
)
def test_claims_that_do_not_hold(changes: dict[str, Any], message: str) -> None:
    token = signed_by_hand({"alg": "HS256", "typ": "JWT"}, claims(**changes), SECRET.encode())
    assert message in refusal(ServerConfig(jwt_secret=SECRET), token)


def unsigned(keys: RsaKeys) -> str:
    return jwt.encode(claims(role="admin"), None, "none")


def signed_with_the_public_key(keys: RsaKeys) -> str:
    return signed_by_hand({"alg": "HS256", "typ": "JWT"}, claims(role="admin"), keys.public_pem)


def signed_with_nothing(keys: RsaKeys) -> str:
    return signed_by_hand({"alg": "HS256", "typ": "JWT"}, claims(role="admin"), b"")


def signed_with_its_own_key(keys: RsaKeys) -> str:
    own = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(own.public_key()))
    return jwt.encode(claims(role="admin"), own, "RS256", headers={"jwk": jwk})


def changed_after_signing(keys: RsaKeys) -> str:
    head, body, signature = jwt.encode(claims(), keys.private, "RS256").split(".")
    changed = {**json.loads(base64.urlsafe_b64decode(body + "==")), "role": "admin"}
    return ".".join([head, base64.urlsafe_b64encode(json.dumps(changed).encode()).rstrip(b"=").decode(), signature])


def without_signature(keys: RsaKeys) -> str:
    return jwt.encode(claims(), keys.private, "RS256").rpartition(".")[0] + "."


def of_another_algorithm(keys: RsaKeys) -> str:
    return jwt.encode(claims(), keys.private, "RS512")


def of_an_algorithm_that_is_a_list(keys: RsaKeys) -> str:
    return signed_by_hand({"alg": ["HS256"], "typ": "JWT"}, claims(), SECRET.encode())


def of_brackets(keys: RsaKeys) -> str:
    return base64.urlsafe_b64encode(b"[" * 30_000).decode() + "." + "e30" + ".AAAA"


@pytest.mark.parametrize(
    "forge",
    [
        unsigned, signed_with_the_public_key, signed_with_nothing, signed_with_its_own_key, changed_after_signing,
        without_signature, of_another_algorithm, of_an_algorithm_that_is_a_list, of_brackets,
    ],
)  # fmt: skip
@pytest.mark.parametrize("with_secret", [False, True])
def test_forged_tokens(rsa_keys: RsaKeys, forge: Callable[[RsaKeys], str], with_secret: bool) -> None:
    config = ServerConfig(
        jwt_public_key_file=str(rsa_keys.public_file),
        jwt_secret="another secret of 32 or more bytes" * with_secret or None,
    )
    assert refusal(config, forge(rsa_keys)).startswith("the token")


@given(
    st.one_of(
        st.text(max_size=200), st.lists(st.text(alphabet="eyJhbGciOi_-.=", max_size=20), max_size=4).map(".".join)
    )
)
def test_garbage_is_unauthorized_and_nothing_else(text: str) -> None:
    authenticator = Authenticator(ServerConfig(jwt_secret=SECRET, api_key="k" * 16))
    for headers in ({"authorization": f"Bearer {text}"}, {"authorization": text}, {"x-api-key": text}):
        with pytest.raises(Unauthorized):
            authenticator.authenticate(headers)


def test_keys_that_cannot_verify_are_refused_at_the_start(rsa_keys: RsaKeys, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="jwt_secret is a public key"):
        Authenticator(ServerConfig(jwt_secret=rsa_keys.public_pem.decode()))
    small, curve, text = tmp_path / "small.pem", tmp_path / "curve.pem", tmp_path / "text.pem"
    small.write_bytes(public_pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)))
    curve.write_bytes(public_pem(ec.generate_private_key(ec.SECP256R1())))
    text.write_text("no key")
    for path, message in ((small, "1024 bits"), (curve, "needs an RSA key"), (text, "no PEM"), (tmp_path, "no PEM")):
        with pytest.raises(ConfigError, match=message):
            Authenticator(ServerConfig(jwt_public_key_file=str(path)))


def test_a_key_file_with_mistakes(tmp_path: Path) -> None:
    _, entry = new_key("alice")
    file = tmp_path / "keys.txt"
    for text, message in (
        (f"# keys\n\n{entry}\nhr-secret-in-the-wrong-place\n", r"keys.txt, line 4: an API key entry of 1 parts"),
        (f"{entry}\n{entry}\n", "two API keys with the name 'alice'"),
        (str(entry).replace("user", "root"), "line 1: role='root' is not one of user, admin"),
        (str(entry).replace("alice", "a b"), "line 1: an API key's name"),
        (str(entry)[:-1], "line 1: an API key entry of 4 parts"),
        (str(entry).replace("sha256", "md5"), "line 1"),
        ("# none\n", "has no API key"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=message) as raised:
            Authenticator(ServerConfig(api_keys_file=str(file)))
        assert "secret" not in str(raised.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        Authenticator(ServerConfig(api_keys_file=str(tmp_path / "none.txt")))


def test_a_new_key_is_kept_as_its_hash_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    alice, entry = new_key("alice")
    append_entry(file, entry)
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text(file.read_text().rstrip("\n"))  # an editor that leaves out the last line break
    bob, other = new_key("bob", "admin")
    append_entry(file, other)
    assert read_keys_file(file) == [entry, other]
    assert alice not in file.read_text() and bob not in file.read_text()
    assert alice != bob and len(alice) > 40
    with pytest.raises(ConfigError, match="two API keys with the name 'bob'"):
        append_entry(file, new_key("bob")[1])
    with pytest.raises(ConfigError, match="cannot be written"):
        append_entry(tmp_path / "nowhere" / "keys.txt", entry)
