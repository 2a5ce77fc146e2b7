"""Bodies: bytes within bounds, and what events they are, by content type.

Nothing here is parsed by the framework, whose parser takes NaN, lone surrogates and keys given twice.
Source: CloudEvents 1.0.2, HTTP protocol binding and JSON event format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers
from starlette.requests import Request

from factledger.core import encoding, events
from factledger.core.errors import Category, Fault, LedgerError, invalid
from factledger.core.events import Draft
from factledger.http import problems
from factledger.recording import MAX_BATCH, batch_too_large

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
JSON = "application/json"
LINES = ("application/x-ndjson", "application/jsonl")

_MEDIA_TYPE = re.compile(r"\s*([\w.+!#$&^-]+/[\w.+!#$&^-]+)\s*(?:;(.*))?", re.ASCII)
_CHARSET = re.compile(r"\s*charset\s*=\s*\"?utf-?8\"?\s*", re.ASCII | re.IGNORECASE)
_JSON_SUFFIX = re.compile(r"[a-z]+/([a-z0-9.+-]+\+)?json")
_REQUIRED_HEADERS = ("ce-specversion", "ce-type", "ce-source", "ce-id")


def media_type(headers: Headers) -> str:
    """Return the media type of a body, in lower case, without parameters.

    Raises:
        LedgerError: `unsupported-media-type` if there is none, or the body is compressed or in another charset.
    """
    match = _MEDIA_TYPE.fullmatch(headers.get("content-type", ""))
    if match is None:
        raise unsupported_media_type()
    for parameter in (match[2] or "").split(";"):
        if "charset" in parameter.lower() and not _CHARSET.fullmatch(parameter):
            raise unsupported_media_type()
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise unsupported_media_type()
    return match[1].lower()


def unsupported_media_type() -> LedgerError:
    """Return the refusal of a body of a type that is not taken."""
    return LedgerError(
        Category.UNSUPPORTED_MEDIA,
        "unsupported-media-type",
        f"The Content-Type must be {JSON}, {STRUCTURED}, {BATCH}, or {' or '.join(LINES)} for a stream; in UTF-8 "
        "and not compressed.",
    )


async def read_body(request: Request, limit: int) -> bytes:
    """Return the whole body of a request, holding at most `limit` bytes and one more chunk of it.

    Raises:
        LedgerError: `body-too-large`.
    """
    declared = request.headers.get("content-length", "")
    parts: list[bytes] = []
    size = int(declared) if re.fullmatch(r"[0-9]{1,18}", declared) else 0
    if size <= limit:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                break
            parts.append(chunk)
    if size > limit:
        raise LedgerError(
            Category.TOO_LARGE,
            "body-too-large",
            f"The body may have at most {limit} bytes; send more events as application/x-ndjson.",
        )
    return b"".join(parts)


def is_binary_mode(headers: Headers) -> bool:
    """Tell whether the headers carry a CloudEvent's attributes, and the body its data alone."""
    return any(name in headers for name in _REQUIRED_HEADERS)


def read_drafts(body: bytes, kind: str, headers: Headers) -> tuple[list[Draft], bool]:
    """Return the events of a body, and whether it is a batch.

    Raises:
        LedgerError: `unsupported-media-type`, `malformed-json`, `malformed-request`, `invalid-event`,
            `event-too-large`, `batch-too-large`.
    """
    if kind == STRUCTURED:
        return [events.read_event(encoding.parse_json(body))], False
    if kind == BATCH:
        return _batch(encoding.parse_json(body)), True
    if is_binary_mode(headers) and _JSON_SUFFIX.fullmatch(kind):
        return [_binary(body, kind, headers)], False
    if kind != JSON:
        raise unsupported_media_type()
    parsed = encoding.parse_json(body)
    return (_batch(parsed), True) if isinstance(parsed, list) else ([events.read_event(parsed)], False)


def _batch(parsed: Any) -> list[Draft]:
    if not isinstance(parsed, list):
        raise invalid([Fault("", "must be a batch: a JSON array of CloudEvents")])
    if len(parsed) > MAX_BATCH:
        raise batch_too_large()
    drafts: list[Draft] = []
    faults: list[Fault] = []
    for index, event in enumerate(parsed):
        try:
            drafts.append(events.read_event(event))
        except LedgerError as refusal:
            moved = refusal.at(f"/{index}")
            if refusal.category is not Category.INVALID:
                raise moved from None
            faults += moved.errors
            if len(faults) >= 50:
                break
    if faults:
        raise invalid(faults[:50])
    return drafts


def _binary(body: bytes, kind: str, headers: Headers) -> Draft:
    """Return the event whose attributes are `ce-` headers and whose data is the body."""
    event: dict[str, Any] = {}
    for name, value in _attributes(headers.raw):
        if name in event or name in ("data", "datacontenttype"):
            raise malformed_attribute(name, "is given twice, or by what HTTP has for it already")
        event[name] = value
    # JSON is what an event without this attribute has, so both modes carry the same event.
    if kind != JSON:
        event["datacontenttype"] = kind
    event["data"] = encoding.parse_json(body)
    return events.read_event(event)


def _attributes(raw: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[str, str]]:
    for header, value in raw:
        if header.startswith(b"ce-"):
            name = header[3:].decode("latin-1")
            text = value.strip()
            if len(text) > 1 and text.startswith(b'"') and text.endswith(b'"'):
                text = re.sub(rb"\\(.)", rb"\1", text[1:-1])
            try:
                unescaped = unquote_to_bytes(text).decode("utf-8")
            except UnicodeDecodeError:
                raise malformed_attribute(name, "is not UTF-8, percent-encoded") from None
            if "\x00" in unescaped:
                raise malformed_attribute(name, "has a NUL character")
            yield name, unescaped


def malformed_attribute(name: str, detail: str) -> LedgerError:
    """Return the refusal of a `ce-` header."""
    return problems.malformed_request(f"/headers/ce-{name[:64]}", detail)
