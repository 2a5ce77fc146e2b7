"""Fresh ids for events whose producer gives none."""

from __future__ import annotations

import secrets
import time
import uuid


def fresh_id() -> str:
    """Return an id that nobody else has made: ids made later sort later, which keeps the ledger's indexes compact.

    Source: RFC 9562, section 5.7 (UUIDv7).
    """
    stamp = time.time_ns() // 1_000_000 & (1 << 48) - 1
    number = stamp << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=number))
