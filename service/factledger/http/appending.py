"""What extractors use: events in, one by one, in batches, and in streams of any length."""

from __future__ import annotations

import re
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from factledger.core import times
from factledger.core.errors import Fault, LedgerError
from factledger.http import bodies, describing, wire
from factledger.http.problems import invalid_request, malformed_request, problem
from factledger.http.questions import LedgerName, PreviewQuery
from factledger.http.service import Service, serving
from factledger.http.streams import StreamedAppend, read_lines
from factledger.ledger import Answer, Ledger
from factledger.recording import Receipt, Request

ANONYMOUS = "anonymous"
READ_AT_ONCE_BYTES = 16 * 1024  # takes less than handing it to another thread

_ENTITY_TAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e]*)"')

router = APIRouter(prefix="/v1/ledgers/{ledger}", tags=["Append"])


@router.post(
    "/events",
    summary="Append events",
    status_code=201,
    response_class=Response,
    responses={
        200: describing.answer(
            "Every event was there already; or a stream, answered line by line.",
            wire.AppendAnswer,
            describing.STREAMED_APPEND,
        ),
        201: describing.answer("Recorded, and on disk.", wire.AppendAnswer, headers="Ledger-Size Location"),
        **describing.refusals(400, 404, 409, 412, 413, 415, 422, 429, 501, 503),
    },
    openapi_extra=describing.APPEND,
)
async def append(request: HttpRequest, ledger: LedgerName) -> Response:
    """Record one event, a batch (all or nothing), or a stream of lines (each by itself).

    The answer comes once everything is on disk. Repeating a request is safe: what is there already is answered as
    `duplicate`, with its position.
    """
    service = serving(request)
    kind = bodies.media_type(request.headers)
    if kind in bodies.LINES:
        if "if-match" in request.headers:
            raise invalid_request(Fault("/headers/if-match", "cannot be given with a stream; send a batch"))
        opened = await run_in_threadpool(service.open, ledger)
        return StreamedAppend(service.writer, opened, ANONYMOUS)
    body = await bodies.read_body(request, service.settings.max_body_bytes)
    if len(body) <= READ_AT_ONCE_BYTES and service.is_open(ledger):
        opened, wanted = _prepare(service, ledger, body, kind, request.headers)
    else:
        opened, wanted = await run_in_threadpool(_prepare, service, ledger, body, kind, request.headers)
    if any("where" in draft.data for draft in wanted.drafts):
        wanted = await run_in_threadpool(opened.tallied, wanted)
    outcome = (await service.writer.enqueue(opened, [wanted]))[0]
    if isinstance(outcome, Exception):
        raise outcome
    return _respond(ledger, outcome, request.headers)


@router.post(
    "/preview",
    summary="Try an append",
    response_class=Response,
    responses={
        200: describing.answer(
            "What an append would say, and what it would change.", wire.PreviewAnswer, headers="Ledger-Size Link"
        ),
        **describing.refusals(400, 404, 409, 412, 413, 415, 422, 501, 503),
    },
    openapi_extra=describing.PREVIEW,
)
async def preview(request: HttpRequest, ledger: LedgerName, query: Annotated[PreviewQuery, Query()]) -> Response:
    """Judge one event, a batch, or up to 10,000 lines as an append would, and say how belief would change.

    Nothing is recorded, ids neither, and nobody waits for it. What would be refused as an append is refused here.
    """
    service = serving(request)
    kind = bodies.media_type(request.headers)
    body = await bodies.read_body(request, service.settings.max_body_bytes)
    answer = await run_in_threadpool(_preview, service, ledger, body, kind, request.headers, query)
    headers = {"Ledger-Size": str(answer.size), "Cache-Control": "no-store"}
    if (following := orjson.loads(answer.body)["next"]) is not None:
        headers["Link"] = f'<{following}>; rel="next"'
    return Response(answer.body, 200, headers, "application/json")


def _preview(service: Service, ledger: str, body: bytes, kind: str, headers: Headers, query: PreviewQuery) -> Answer:
    try:
        if kind not in bodies.LINES:
            opened, wanted = _prepare(service, ledger, body, kind, headers)
            return opened.preview_one(wanted, after=query.after, limit=query.limit)
        if "if-match" in headers:
            raise invalid_request(Fault("/headers/if-match", "cannot be given with lines; send a batch"))
        opened = service.open(ledger)
        return opened.preview(read_lines(body, ANONYMOUS), problem, after=query.after, limit=query.limit)
    except LedgerError as refusal:
        raise (refusal.at("/query") if refusal.code == "page-unknown" else refusal) from None


def _prepare(service: Service, ledger: str, body: bytes, kind: str, headers: Headers) -> tuple[Ledger, Request]:
    opened = service.open(ledger)
    drafts, batch = bodies.read_drafts(body, kind, headers)
    return opened, Request(drafts, ANONYMOUS, _expected_size(headers), pointers=batch)


def _expected_size(headers: Headers) -> int | None:
    """Return the size that the ledger must be at; -1 stands for one that it can never be at."""
    condition = headers.get("if-match")
    if condition is None or condition.strip() == "*":
        return None
    match = _ENTITY_TAG.fullmatch(condition.strip())
    if match is None:
        raise malformed_request("/headers/if-match", 'must be one size in quotes, such as "42"')
    strong = re.fullmatch(r"0|[1-9][0-9]{0,15}", match[1]) and not condition.strip().startswith("W/")
    return int(match[1]) if strong else -1


def _respond(ledger: str, receipt: Receipt, asked: Headers) -> Response:
    recorded = sum(result.recorded for result in receipt.results)
    body: dict[str, Any] = {
        "results": [
            {
                "result": "recorded" if result.recorded else "duplicate",
                "position": result.position,
                "source": result.source,
                "id": result.id,
                "recorded_at": times.format_instant(result.recorded_at),
            }
            for result in receipt.results
        ],
        "recorded": recorded,
        "duplicate": len(receipt.results) - recorded,
        "size": receipt.size,
    }
    headers = {"Ledger-Size": str(receipt.size), "Cache-Control": "no-store"}
    if len(receipt.results) == 1:
        headers["Location"] = f"/v1/ledgers/{ledger}/events/{receipt.results[0].position}"
    if "respond-async" in asked.get("prefer", "").lower():
        headers["Preference-Applied"] = "respond-async"
    return Response(orjson.dumps(body), 201 if recorded else 200, headers, "application/json")
