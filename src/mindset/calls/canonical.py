"""One spelling of a JSON value, and the hash of it: what is equal has the same bytes, whoever wrote it down.

Keys sorted, no spaces, UTF-8, no NaN. The hash is BLAKE2b with 20 bytes, in hexadecimal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mindset.errors import DataError

__all__ = ["Json", "canonical", "digest", "node_hash", "spelled_node_hash"]

Json = Any
"""None, a bool, a number, text, a list of such, or a mapping from text to such."""
HASH_BYTES = 20
_SPELLING = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical(value: Json) -> bytes:
    """The bytes of a JSON value; equal values have equal bytes."""
    try:
        return _SPELLING.encode(value).encode()
    except (TypeError, ValueError) as error:
        raise DataError(f"this cannot be written as JSON: {error}") from error


def digest(value: Json) -> str:
    """The hash of a JSON value, 40 hexadecimal digits."""
    return _hash(canonical(value))


def node_hash(kind: str, content: Mapping[str, Json], parent: str | None) -> str:
    """What a node of the dialog tree is called by: its kind, its content, and where it hangs."""
    return spelled_node_hash(kind, canonical(dict(content)), parent)


def spelled_node_hash(kind: str, content: bytes, parent: str | None) -> str:
    """The same for a content that is spelled canonically already."""
    return _hash(b"[%b,%b,%b]" % (canonical(kind), content, canonical(parent)))


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=HASH_BYTES).hexdigest()
