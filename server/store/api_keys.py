"""API keys: their text, the digest that is stored, when one is valid. No store, no HTTP, no clock.

A key reads `sb_live_<id>_<secret><checksum>`: 12 hexadecimal digits that name it, 40 letters and digits (238 bits) that
nobody can guess, and the CRC-32 of all that as 6 more. The checksum tells a slip of the pen from a wrong key without a
look-up, and lets scanners that look for leaked secrets be sure (GitHub's tokens end in the same way). Whoever writes a
rule for one: `sb_live_[0-9a-f]{12}_[0-9A-Za-z]{46}`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from collections.abc import Iterable
from typing import Final, Literal, get_args

import msgspec

__all__ = ["ALL_SCOPES", "KEY_PREFIX", "ApiKey", "KeyState", "Scope", "digest_of", "id_in", "new_key", "rotated"]

KEY_PREFIX: Final = "sb_live_"

_ID_BYTES: Final = 6
_SECRET_LENGTH: Final = 40
_CHECKSUM_LENGTH: Final = 6
_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_TEXT: Final = re.compile(rb"(sb_live_([0-9a-f]{12})_[0-9A-Za-z]{40})([0-9A-Za-z]{6})")

Scope = Literal["generate", "read", "metrics", "admin"]
"""What a key may do: ask for pictures, look, read the metrics, or everything and for every key."""

ALL_SCOPES: Final[frozenset[Scope]] = frozenset(get_args(Scope))

KeyState = Literal["active", "expired", "revoked"]


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored of a key. Its text is not: that is shown once, when the key is made."""

    id: str
    """12 hexadecimal digits; whose jobs are asked for and shown."""
    name: str
    """What people call it."""
    digest: bytes
    """SHA-256 of its text. No salt and no slow hash: nobody can try 2^238 texts."""
    scopes: frozenset[Scope]
    created_at: float
    """Unix seconds, as every time here."""
    expires_at: float | None = None
    """From when on it is not taken any more."""
    revoked_at: float | None = None
    """Since when it is not taken any more."""
    last_used_at: float | None = None
    """To the minute."""
    old_digest: bytes | None = None
    """Of the text that it had before it was rotated."""
    old_until: float | None = None
    """Until when that one is taken as well."""

    def __repr__(self) -> str:
        # Not even the digest: what a log holds should help nobody to recognize a key.
        return f"ApiKey(id={self.id!r}, name={self.name!r})"

    def state(self, at: float) -> KeyState:
        """What it is good for at Unix seconds `at`: only an active key is taken."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and at >= self.expires_at else "active"

    def digest_meant(self, digest: bytes, at: float) -> bytes:
        """The one of its two digests that `digest` is to be compared with: the old one only while that is taken."""
        # The first bytes tell which. They help nobody: the secret has far more bits than a digest could betray so.
        old, until = self.old_digest, self.old_until
        if old is not None and until is not None and at < until and old[:4] == digest[:4]:
            return old
        return self.digest


def new_key(
    name: str, scopes: Iterable[Scope], *, created_at: float, expires_at: float | None = None
) -> tuple[ApiKey, str]:
    """A new key: what is kept of it, and its text, which is kept nowhere."""
    key_id = secrets.token_hex(_ID_BYTES)
    text = _new_text(key_id)
    key = ApiKey(
        id=key_id,
        name=name,
        digest=digest_of(text.encode()),
        scopes=frozenset(scopes),
        created_at=created_at,
        expires_at=expires_at,
    )
    return key, text


def rotated(key: ApiKey, *, old_until: float) -> tuple[ApiKey, str]:
    """The same key with a new text; the text that it had until now is taken until `old_until` (Unix seconds)."""
    text = _new_text(key.id)
    digest = digest_of(text.encode())
    return msgspec.structs.replace(key, digest=digest, old_digest=key.digest, old_until=old_until), text


def digest_of(text: bytes) -> bytes:
    """What is kept of a key's text, and compared."""
    return hashlib.sha256(text).digest()


def id_in(text: bytes) -> str | None:
    """The id of the key that a text is, if it is one at all: of the right form, and with a true checksum."""
    found = _TEXT.fullmatch(text)
    if found is None or _checksum(found[1]) != found[3].decode():
        return None
    return found[2].decode()


def _new_text(key_id: str) -> str:
    secret = "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))
    text = f"{KEY_PREFIX}{key_id}_{secret}"
    return text + _checksum(text.encode())


def _checksum(text: bytes) -> str:
    rest = zlib.crc32(text)
    digits = ""
    for _ in range(_CHECKSUM_LENGTH):
        rest, digit = divmod(rest, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
