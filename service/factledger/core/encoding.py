"""Bytes: strict JSON in, canonical JSON out; the only place that says what is hashed.

Canonical bytes are RFC 8785 (JCS). `datasha256` is SHA-256(salt || canonical bytes of data); the leaf of an
event is the RFC 6962 leaf hash of the canonical bytes of its envelope (contract.md, section 3).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any, NoReturn

import orjson
import rfc8785

from factledger.core.errors import Category, Fault, LedgerError

MAX_DEPTH = 32
MAX_INTEGER = 2**53 - 1


def _malformed(detail: str, pointer: str = "") -> LedgerError:
    return LedgerError(
        Category.MALFORMED,
        "malformed-json",
        f"The body is not strict JSON: it {detail}.",
        errors=[Fault(pointer, detail)],
    )


class _RejectedError(ValueError):
    """Raised inside the parser's hooks, where no pointer is known."""


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _RejectedError("has an object with the same key twice")
    return members


def _integer(digits: str) -> int:
    # Digits are counted before they are converted: the conversion itself refuses thousands of them.
    if len(digits) > 17 or abs(int(digits)) > MAX_INTEGER:
        raise _RejectedError("has an integer beyond ±(2^53-1); give it as a string")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _RejectedError("has a number too large for a double")
    if MAX_INTEGER < abs(number) < 1e21:
        # Its canonical form is a row of digits, which would be refused when the event is posted again as read.
        raise _RejectedError("has an integer beyond ±(2^53-1); give it as a string")
    return number


def _constant(_name: str) -> NoReturn:
    raise _RejectedError("has NaN or Infinity")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_members, parse_int=_integer, parse_float=_float, parse_constant=_constant
)


_UNSURE_NUMBER = re.compile(rb"[0-9](?:[eE]|[0-9]{15})")


def parse_json(body: bytes) -> Any:
    """Return the value of a strict JSON text.

    Strict: UTF-8 without byte order mark, no duplicate keys, no NaN or Infinity, no NUL and no lone surrogate in
    any string, integers within ±(2^53-1), at most 32 levels deep.

    Raises:
        LedgerError: `malformed-json`, with a pointer where one is known.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _parse_carefully(body)
    return value if _is_surely_strict(body, value) else _parse_carefully(body)


def _is_surely_strict(body: bytes, value: Any) -> bool:
    """Tell whether a text that orjson takes, and its value, need no closer look.

    What orjson lets pass: keys given twice, NUL, numbers that a double cannot hold, and greater depth. Outside its
    strings, a JSON text has its numbers and brackets only; and as many strings as its value, if no key repeats.
    """
    escapes = b"\\" in body
    if escapes and b"\\u0000" in body:
        return False
    parts = (_without_escapes(body) if escapes else body).split(b'"')
    outside = b"".join(parts[::2])
    if outside.count(b"{") + outside.count(b"[") > MAX_DEPTH or _UNSURE_NUMBER.search(outside):
        return False
    again = orjson.dumps(value)
    return len(parts) == (_without_escapes(again) if escapes else again).count(b'"') + 1


def _without_escapes(text: bytes) -> bytes:
    """Return a JSON text without escaped quotes, so that every quote left begins or ends a string."""
    return text.replace(b"\\\\", b"").replace(b'\\"', b"")


def _parse_carefully(body: bytes) -> Any:
    if body.startswith(b"\xef\xbb\xbf"):
        raise _malformed("starts with a byte order mark")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise _malformed(f"is not UTF-8 at byte {problem.start}") from None
    try:
        value = _DECODER.decode(text)
    except _RejectedError as problem:
        raise _malformed(str(problem)) from None
    except json.JSONDecodeError as problem:
        raise _malformed(f"does not parse at line {problem.lineno}, column {problem.colno}") from None
    except RecursionError:
        raise _malformed(f"is nested deeper than {MAX_DEPTH} levels") from None
    # Only an escape can bring in a NUL or a surrogate: raw ones fail to decode or to parse.
    suspicious = "\\u" in text
    if suspicious or text.count("{") + text.count("[") > MAX_DEPTH:
        _check_tree(value, "", 1, strings=suspicious)
    return value


def _check_tree(value: Any, pointer: str, depth: int, *, strings: bool) -> None:
    if isinstance(value, str):
        if strings:
            _check_text(value, pointer)
    elif isinstance(value, dict | list):
        if depth > MAX_DEPTH:
            raise _malformed(f"is nested deeper than {MAX_DEPTH} levels", pointer)
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, member in items:
            if strings and isinstance(name, str):
                _check_text(name, pointer)
            below = f"{pointer}/{str(name)[:64].replace('~', '~0').replace('/', '~1')}"
            _check_tree(member, below, depth + 1, strings=strings)


def _check_text(text: str, pointer: str) -> None:
    if "\x00" in text:
        raise _malformed("has a NUL character in a string", pointer)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _malformed("has a lone surrogate in a string", pointer) from None


def canonical_bytes(value: Any) -> bytes:
    """Return the RFC 8785 bytes of a JSON value that `parse_json` could have returned."""
    if _is_plain(value):
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return rfc8785.dumps(value)


def _is_plain(value: Any) -> bool:
    """Tell whether orjson's bytes are RFC 8785's: ASCII keys, and decimals that both write the same way."""
    kind = type(value)
    if kind is dict:
        if not all(map(str.isascii, value)):
            return False
        members = value.values()
    elif kind is list:
        members = value
    else:
        members = (value,)
    for member in members:
        kind = type(member)
        if kind is str or kind is int or kind is bool or member is None:
            continue
        if kind is float:
            if not 1e-3 <= abs(member) < 1e9 or member.is_integer():
                return False
        elif not _is_plain(member):
            return False
    return True


def data_sha256(salt: bytes, data: bytes) -> str:
    """Return the commitment to an event's content: lower-case hex of SHA-256(salt || canonical bytes of data)."""
    return hashlib.sha256(salt + data).hexdigest()
