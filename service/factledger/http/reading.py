"""What consumers and auditors use: believed state, why, what it was before, and the log itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from email.utils import formatdate
from threading import BoundedSemaphore
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import orjson
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from factledger.core import times
from factledger.core.errors import Category, LedgerError
from factledger.http import bodies, describing, wire
from factledger.http.envelopes import RecordedEvent
from factledger.http.questions import (
    DEFAULT_LIMIT,
    BeliefQuery,
    DiffQuery,
    EntityId,
    EventsQuery,
    HistoryQuery,
    KnownQuery,
    LedgerName,
    Position,
    ReceiptQuery,
    SlotQuery,
    SlotsQuery,
)
from factledger.http.service import serving
from factledger.ledger import SIGNED_WITHIN, Answer, Ledger, State
from factledger.reading import Question

STREAM_PAGE = 500
MAX_WAITING = 16  # each holds one of the threads that everybody's reads need
IMMUTABLE = "public, max-age=31536000, immutable"

_WAITING = BoundedSemaphore(MAX_WAITING)

router = APIRouter(
    prefix="/v1/ledgers/{ledger}",
    default_response_class=Response,
    responses=describing.NOT_MODIFIED | describing.refusals(400, 404, 422, 503),
)


# --- belief


def _described(meaning: str, model: Any) -> dict[str, Any]:
    return {
        "responses": {200: describing.answer(meaning, model, headers=describing.BELIEF_HEADERS)},
        "openapi_extra": describing.BELIEF_READ,
        "tags": ["Belief"],
    }


@router.get(
    "/entities/{entity}",
    summary="What is believed of an entity",
    **_described("What is believed, predicate by predicate.", wire.EntityAnswer),
)
def entity(request: Request, ledger: LedgerName, entity: EntityId, query: Annotated[BeliefQuery, Query()]) -> Response:
    """Return the believed state of an entity at one valid instant: values, best first, with both sides of each."""
    return _believed(request, ledger, query, lambda opened, question: opened.entity(entity, question, query.min_size))


@router.get(
    "/entities/{entity}/timeline",
    summary="Belief over valid time",
    **_described("Belief over valid time, in maximal segments.", wire.TimelineAnswer),
)
def timeline(request: Request, ledger: LedgerName, entity: EntityId, query: Annotated[SlotsQuery, Query()]) -> Response:
    """Return how belief changes along the time of the world, for one predicate or for each."""
    return _believed(
        request,
        ledger,
        query,
        lambda opened, question: opened.timeline(entity, query.predicate, question, query.min_size),
    )


@router.get(
    "/entities/{entity}/history",
    summary="Belief over known time",
    **_described("What changed belief, event by event.", wire.HistoryAnswer),
)
def history(
    request: Request, ledger: LedgerName, entity: EntityId, query: Annotated[HistoryQuery, Query()]
) -> Response:
    """Return how belief changed as the ledger learnt, for one predicate or for each."""
    return _believed(
        request,
        ledger,
        query,
        lambda opened, question: opened.history(
            entity,
            query.predicate,
            question,
            from_size=query.from_size,
            limit=query.limit,
            min_size=query.min_size,
        ),
        paged=True,
    )


@router.get(
    "/entities/{entity}/why",
    summary="Why something is believed",
    **_described("All evidence, what it weighs, and what does not count.", wire.WhyAnswer),
)
def why(request: Request, ledger: LedgerName, entity: EntityId, query: Annotated[SlotQuery, Query()]) -> Response:
    """Return every assertion that bears on one predicate of an entity, in its role."""
    return _believed(
        request,
        ledger,
        query,
        lambda opened, question: opened.why(entity, query.predicate, question, query.min_size),
    )


@router.get(
    "/receipt",
    summary="A belief with its proofs",
    responses={200: describing.answer("The receipt.", wire.ReceiptAnswer, headers="ETag Ledger-Size Cache-Control")},
    openapi_extra=describing.BELIEF_READ,
    tags=["Integrity"],
)
def receipt(request: Request, ledger: LedgerName, query: Annotated[ReceiptQuery, Query()]) -> Response:
    """Return a belief, every event that it rests on, and the proof of each against one checkpoint.

    `factledger verify --receipt` checks it without a server: signature, proofs, contents, and that the events make the
    belief.
    """
    opened = serving(request).open(ledger)
    question = query.question(request.headers)
    waits = _WAITING.acquire(blocking=False)
    patience = SIGNED_WITHIN if waits else 0
    try:
        answer = _asked(
            opened,
            query,
            lambda: opened.receipt(query.entity, query.predicate, question, query.min_size, patience),
        )
    finally:
        if waits:
            _WAITING.release()
    return _tagged(request, answer.body, answer.size, {"Vary": "Accept-Datetime", "Cache-Control": "no-cache"})


@router.get(
    "/diff",
    summary="Belief at two sizes",
    responses={200: describing.answer("Where belief differs.", wire.DiffAnswer, headers=describing.DIFF_HEADERS)},
    openapi_extra=describing.LOG_READ,
    tags=["Belief"],
)
def diff(request: Request, ledger: LedgerName, query: Annotated[DiffQuery, Query()]) -> Response:
    """Return the net difference in belief between two sizes or instants of the ledger, and what may have caused it."""
    return _believed(
        request,
        ledger,
        query,
        lambda opened, question: opened.diff(
            question,
            since=State(query.from_size, query.from_known_at),
            until=State(query.to_size, query.to_known_at),
            after=query.after,
            limit=query.limit,
            min_size=query.min_size,
        ),
        paged=True,
    )


def _believed(
    request: Request,
    ledger: str,
    query: BeliefQuery | DiffQuery,
    ask: Callable[[Ledger, Question], Answer],
    *,
    paged: bool = False,
) -> Response:
    """Answer a belief read, with everything that a cache or a citation needs."""
    service = serving(request)
    opened = service.open(ledger)
    question = query.question(request.headers)
    answer = _asked(opened, query, lambda: ask(opened, question))
    service.appender.keep_reads(opened)
    assert answer.permalink is not None
    links = [f'<{answer.permalink}>; rel="permalink"']
    headers = {"Content-Location": answer.permalink}
    if isinstance(query, BeliefQuery):
        headers["Vary"] = "Accept-Datetime"
    if question.known_at is not None and "known_at" not in request.query_params:
        known_at = orjson.loads(answer.body)["coordinates"]["known_at"]
        # Rounded up to a whole second, so that asking for it again leaves no event out.
        headers["Memento-Datetime"] = formatdate(-(-times.parse_instant(known_at) // 1_000_000), usegmt=True)
        original = quote(request.url.query, safe="%=&+:,/@!$'()*;?")
        links.append(f'<{request.scope["path"]}{original and "?" + original}>; rel="original timegate"')
    if paged and (following := orjson.loads(answer.body)["next"]) is not None:
        links.append(f'<{following}>; rel="next"')
    headers["Link"] = ", ".join(links)
    # Pinned by whoever asks, when nothing of the permalink was left to us.
    pins = {name for name, _ in parse_qsl(urlsplit(answer.permalink).query)}
    headers["Cache-Control"] = IMMUTABLE if pins <= request.query_params.keys() else "no-cache"
    return _tagged(request, answer.body, answer.size, headers)


def _asked(opened: Ledger, query: KnownQuery | DiffQuery, ask: Callable[[], Any]) -> Any:
    """Return what a ledger answers; its pointers at coordinates are to the query here.

    Raises:
        LedgerError: whatever the ledger refuses; `size-not-reached` at once if many wait for their size already.
    """
    waits = query.min_size is not None and opened.size() < query.min_size
    if waits and not _WAITING.acquire(blocking=False):
        raise LedgerError(
            Category.UNAVAILABLE,
            "size-not-reached",
            "The ledger has not reached `min_size`, and many wait for theirs already; try again.",
            retry_after=1,
        )
    try:
        return ask()
    except LedgerError as refusal:
        raise (refusal.at("/query") if refusal.errors else refusal) from None
    finally:
        if waits:
            _WAITING.release()


def _tagged(request: Request, body: bytes, size: int, headers: dict[str, str]) -> Response:
    """Answer with the digest of the body as its tag, or say that what is at hand still holds."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers |= {"ETag": tag, "Ledger-Size": str(size)}
    at_hand = {known.strip().removeprefix("W/") for known in request.headers.get("if-none-match", "").split(",")}
    if tag in at_hand or "*" in at_hand:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


# --- the log


@router.get(
    "/events",
    summary="The log",
    tags=["Log"],
    responses={
        200: describing.answer(
            "Events in order.", wire.EventPage, describing.ref(RecordedEvent), headers="ETag Ledger-Size Link"
        )
    },
    openapi_extra=describing.LOG_READ,
)
def events(request: Request, ledger: LedgerName, query: Annotated[EventsQuery, Query()]) -> Response:
    """Return recorded events in order, a page at a time; `Accept: application/x-ndjson` streams all of them.

    All pages, and a whole stream, are of one size of the ledger, however it grows meanwhile.
    """
    opened = serving(request).open(ledger)
    question = query.question(request.headers)
    streamed = _wants_lines(request)
    limit = query.limit or (STREAM_PAGE if streamed else DEFAULT_LIMIT)
    page, following, size = _events(opened, question, query, query.from_, limit)
    if streamed:
        lines = _lines(opened, query, page, following if query.limit is None else None, size)
        headers = {"Ledger-Size": str(size), "Vary": "Accept", "Cache-Control": "no-store"}
        return StreamingResponse(lines, media_type=bodies.LINES[0], headers=headers)
    headers = {"Vary": "Accept", "Cache-Control": "no-cache"}
    link = None
    if following is not None:
        pinned = {**query.criteria(), "from": following, "limit": limit, "at_size": size}
        link = f"/v1/ledgers/{opened.name}/events?{urlencode(pinned)}"
        headers["Link"] = f'<{link}>; rel="next"'
    return _tagged(request, orjson.dumps({"events": page, "next": link, "size": size}), size, headers)


def _events(
    opened: Ledger, question: Question, query: EventsQuery, from_position: int, limit: int
) -> tuple[list[dict[str, Any]], int | None, int]:
    def ask() -> tuple[list[dict[str, Any]], int | None, int]:
        _wait(opened, query)
        return opened.events(question, from_position=from_position, limit=limit, criteria=query.criteria())

    found: tuple[list[dict[str, Any]], int | None, int] = _asked(opened, query, ask)
    return found


def _lines(
    opened: Ledger, query: EventsQuery, page: list[dict[str, Any]], following: int | None, size: int
) -> Iterator[bytes]:
    """Yield events as lines, a page at a time, all as of one size."""
    pinned = Question(at_size=size)
    while True:
        yield b"".join(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE) for event in page)
        if following is None:
            return
        page, following, _ = _events(opened, pinned, query, following, STREAM_PAGE)


@router.get(
    "/events/{position}",
    summary="One event",
    tags=["Log"],
    responses={200: describing.answer("The event.", RecordedEvent, headers="ETag Ledger-Size")},
    openapi_extra=describing.LOG_READ,
)
def event(request: Request, ledger: LedgerName, position: Position, query: Annotated[KnownQuery, Query()]) -> Response:
    """Return one event as it was recorded, and whether it is in force as of the read."""
    opened = serving(request).open(ledger)
    question = query.question(request.headers)

    def ask() -> Answer:
        _wait(opened, query)
        return opened.event(position, question)

    answer = _asked(opened, query, ask)
    return _tagged(request, answer.body, answer.size, {"Cache-Control": "no-cache"})


def _wait(opened: Ledger, query: KnownQuery) -> None:
    if query.min_size is not None:
        with opened.snapshot(Question(), query.min_size):
            pass


def _wants_lines(request: Request) -> bool:
    """Tell whether the client names a media type of lines among those that it takes."""
    named = {part.split(";")[0].strip().lower() for part in request.headers.get("accept", "").split(",")}
    return not named.isdisjoint(bodies.LINES)
