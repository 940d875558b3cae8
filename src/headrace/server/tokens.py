"""JSON Web Tokens, HS256 and RS256.

Each key belongs to one algorithm: the token's header only says which of them to try. So neither "none" nor an HS256
token that was signed with the public key as its secret can pass.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from headrace.config import ServerConfig
from headrace.errors import ConfigError, Unauthorized
from headrace.server.keys import ROLES, Role

_MIN_RSA_BITS = 2048
_MAX_SUBJECT_LENGTH = 64


class TokenVerifier:
    """Checks tokens: signature, exp (required), nbf, and aud and iss where the settings name them."""

    def __init__(self, config: ServerConfig) -> None:
        """Read the keys. Raises ConfigError for one that cannot be used."""
        self._keys: dict[str, Any] = {}
        if config.jwt_secret is not None:
            _check_secret(config.jwt_secret)
            self._keys["HS256"] = config.jwt_secret
        if config.jwt_public_key_file is not None:
            self._keys["RS256"] = _read_public_key(Path(config.jwt_public_key_file))
        self._audience = config.jwt_audience
        self._issuer = config.jwt_issuer
        self._leeway_s = config.jwt_leeway_s

    def verify(self, token: str) -> tuple[str, Role]:
        """The subject and the role (claim "role", default user) of a token. Raises Unauthorized."""
        claims = self._claims(token)
        role = claims.get("role", "user")
        if role not in ROLES:
            raise Unauthorized(f"the token's role is not one of {', '.join(ROLES)}")
        subject = str(claims.get("sub") or "token")
        if len(subject) > _MAX_SUBJECT_LENGTH:
            raise Unauthorized(f"the token's subject is longer than {_MAX_SUBJECT_LENGTH} characters")
        return subject, cast("Role", role)

    def _claims(self, token: str) -> dict[str, Any]:
        import jwt

        try:
            algorithm = jwt.get_unverified_header(token).get("alg")
            if algorithm not in self._keys:
                raise Unauthorized(f"the token's algorithm is not one of {', '.join(self._keys)}")
            return jwt.decode(
                token,
                self._keys[algorithm],
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway_s,
                options={"require": ["exp"], "verify_aud": self._audience is not None},
            )
        except Unauthorized:
            raise
        except jwt.ExpiredSignatureError:
            raise Unauthorized("the token has expired") from None
        except jwt.MissingRequiredClaimError as error:
            raise Unauthorized(f'the token has no "{error.claim}"') from None
        except jwt.InvalidAudienceError:
            raise Unauthorized("the token's \"aud\" is not this server's") from None
        except jwt.InvalidIssuerError:
            raise Unauthorized('the token\'s "iss" is not one that this server trusts') from None
        except jwt.ImmatureSignatureError:
            raise Unauthorized("the token is not valid yet") from None
        except Exception:  # whatever a sender makes a parser do (recursion, overflow), the token is not valid
            raise Unauthorized("the token is not valid") from None


def _check_secret(secret: str) -> None:
    from jwt.algorithms import HMACAlgorithm
    from jwt.exceptions import InvalidKeyError

    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except InvalidKeyError:
        raise ConfigError(
            "jwt_secret is a public key or certificate, which everybody may know: give it as jwt_public_key_file"
        ) from None


def _read_public_key(path: Path) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"jwt_public_key_file={str(path)!r} is no PEM public key: {error}") from error
    if not isinstance(key, RSAPublicKey) or key.key_size < _MIN_RSA_BITS:
        bits = getattr(key, "key_size", "no")
        raise ConfigError(
            f"jwt_public_key_file={str(path)!r} has a {type(key).__name__} of {bits} bits; RS256 needs an RSA key of "
            f"at least {_MIN_RSA_BITS} bits"
        )
    return key
