"""The API's description (OpenAPI): what the routes say of themselves, and the shapes that they name."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, TypeAdapter

from factledger.http import bodies, envelopes, problems, wire

Json = dict[str, Any]

TITLE = "factledger"
DESCRIPTION = (
    "An event-sourced fact ledger: who said what, when, on whose word, and what to believe.\n\n"
    "Every refusal is a problem (RFC 9457) with a stable `code`. A query parameter that is unknown or given twice is "
    "refused. Answers to belief reads carry a `permalink`: the same question with everything pinned, and the same "
    "bytes for ever."
)

_REF = "#/components/schemas/{model}"

_MODELS: tuple[type[BaseModel], ...] = (
    wire.Alive,
    wire.AppendAnswer,
    wire.ConsistencyAnswer,
    wire.DiffAnswer,
    wire.EntityAnswer,
    wire.EventPage,
    wire.HistoryAnswer,
    wire.InclusionAnswer,
    wire.LedgerDescription,
    wire.LedgerList,
    wire.LedgerSettings,
    wire.PreviewAnswer,
    wire.Problem,
    wire.Ready,
    wire.ReceiptAnswer,
    wire.Root,
    wire.StreamedLine,
    wire.StreamedSummary,
    wire.TimelineAnswer,
    wire.WhyAnswer,
    envelopes.RecordedEvent,
)
_ADAPTERS: dict[str, TypeAdapter[Any]] = {
    "PostedEvent": envelopes.POSTED_EVENT,
    "PostedBatch": envelopes.POSTED_BATCH,
    "PostedData": envelopes.POSTED_DATA,
}

_MEANINGS = {
    400: "It cannot be read.",
    404: "There is nothing of this name.",
    409: "It contradicts what is recorded.",
    412: "The ledger is not at the size that the request demands.",
    413: "It is too large.",
    415: "It is of a type that is not taken.",
    422: "It can be read, and does not meet the contract.",
    429: "Too much is waiting already; come back later.",
    501: "This version cannot do it yet.",
    503: "The database, or the demanded size, is not there yet; come back later.",
}


def ref(name: str | type[BaseModel]) -> Json:
    """Return the reference to a shape, by its name or its model."""
    return {"$ref": _REF.format(model=name if isinstance(name, str) else name.__name__)}


def answer(meaning: str, model: type[BaseModel], lines: Json | None = None, *, headers: str = "") -> Json:
    """Return how a good answer is described; `lines` is the shape of each line of a streamed one."""
    content: Json = {"application/json": {"schema": ref(model)}}
    if lines is not None:
        content[bodies.LINES[0]] = {"schema": lines}
    described: Json = {"description": meaning, "content": content}
    if headers:
        described["headers"] = {name: _HEADERS[name] for name in headers.split()}
    return described


def refusals(*statuses: int) -> dict[int | str, Json]:
    """Return how refusals are described."""
    assert set(statuses) <= {*problems.STATUSES.values()}
    content = {problems.MEDIA_TYPE: {"schema": ref(wire.Problem)}}
    return {
        status: {
            "description": _MEANINGS[status],
            "content": content,
            **({"headers": {"Retry-After": _HEADERS["Retry-After"]}} if status in (429, 503) else {}),
        }
        for status in statuses
    }


def plain(meaning: str, media_type: str, *, binary: bool = False) -> Json:
    """Return how an answer that is no JSON is described."""
    return {
        "description": meaning,
        "content": {media_type: {"schema": {"type": "string", **({"format": "binary"} if binary else {})}}},
        "headers": {"Cache-Control": _HEADERS["Cache-Control"]},
    }


NOT_MODIFIED: dict[int | str, Json] = {304: {"description": "The answer that is at hand still holds."}}


def _text(meaning: str) -> Json:
    return {"description": meaning, "schema": {"type": "string"}}


_HEADERS: dict[str, Json] = {
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}},
    "ETag": _text("Changes if and only if the answer does."),
    "Ledger-Size": {"description": "How many events it rests on.", "schema": {"type": "integer"}},
    "Link": _text("`permalink`: the same question, all pinned. `next`: the page after this."),
    "Content-Location": _text("The permalink."),
    "Cache-Control": _text("`immutable` for what stays the same for ever, else `no-cache` or `no-store`."),
    "Memento-Datetime": _text("With Accept-Datetime: when the last of the events was recorded (RFC 7089)."),
    "Location": _text("Where to read it."),
}

DIFF_HEADERS = "ETag Ledger-Size Link Content-Location Cache-Control"
BELIEF_HEADERS = "ETag Ledger-Size Link Content-Location Cache-Control Memento-Datetime"


def _header(name: str, meaning: str, **schema: Any) -> Json:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": meaning,
        "schema": {"type": "string", **schema},
    }


IF_NONE_MATCH = _header("If-None-Match", "The `ETag` of an answer that is at hand: 304 if it still holds.")
ACCEPT_DATETIME = _header(
    "Accept-Datetime",
    "An HTTP date, as `known_at` (RFC 7089); a query that says what was known goes before it.",
    examples=["Tue, 07 Sep 2021 10:02:11 GMT"],
)
BELIEF_READ: Json = {"parameters": [IF_NONE_MATCH, ACCEPT_DATETIME]}
LOG_READ: Json = {"parameters": [IF_NONE_MATCH]}

_LINES: Json = {"type": "string", "description": "One event a line, each recorded by itself."}
_IF_MATCH = _header("If-Match", "The size in quotes that the ledger must be at.", examples=['"42"'])
_BINARY_MODE = [
    _header(f"ce-{name}", f"Binary mode: the event's `{name}`, percent-encoded; the body is its data.")
    for name in ("specversion", "type", "source", "id", "time")
]
APPEND: Json = {
    "parameters": [
        _IF_MATCH,
        _header("Prefer", "`respond-async`: do not wait for the projection, which never lags behind here."),
        *_BINARY_MODE,
    ],
    "requestBody": {
        "required": True,
        "content": {
            bodies.STRUCTURED: {"schema": ref("PostedEvent")},
            bodies.BATCH: {"schema": ref("PostedBatch")},
            bodies.JSON: {"schema": {"anyOf": [ref("PostedEvent"), ref("PostedBatch"), ref("PostedData")]}},
            **{kind: {"schema": _LINES} for kind in bodies.LINES},
        },
    },
}
PREVIEW: Json = {"parameters": [_IF_MATCH, *_BINARY_MODE], "requestBody": APPEND["requestBody"]}
CREATE: Json = {"requestBody": {"required": False, "content": {bodies.JSON: {"schema": ref(wire.LedgerSettings)}}}}
STREAMED_APPEND: Json = {"anyOf": [ref(wire.StreamedLine), ref(wire.StreamedSummary)]}


def complete(description: Json) -> Json:
    """Return the framework's description of the routes with every shape that they name."""
    adapters = _ADAPTERS | {model.__name__: TypeAdapter(model) for model in _MODELS}
    tops, shared = TypeAdapter.json_schemas(
        [(name, "validation", adapter) for name, adapter in adapters.items()], ref_template=_REF
    )
    shapes = dict(shared["$defs"])
    for (name, _), schema in tops.items():
        if name in _ADAPTERS:
            shapes[str(name)] = schema
    description.setdefault("components", {})["schemas"] = dict(sorted(shapes.items()))
    return description
