"""What operators use: ledgers made and listed, and whether the service lives and can do its work."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any
from urllib.parse import urlencode

import orjson
from fastapi import APIRouter, Query
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from factledger.core.encoding import parse_json
from factledger.core.errors import Category, Fault, LedgerError
from factledger.http import bodies, describing, problems, wire
from factledger.http.questions import LedgerName, LedgersQuery
from factledger.http.service import Service, serving
from factledger.store.engines import Database, is_durable
from factledger.store.migrating import current_and_latest

MAX_SETTINGS_BYTES = 64 * 1024

router = APIRouter(default_response_class=Response)


# --- ledgers


@router.get(
    "/v1/ledgers",
    summary="All ledgers",
    tags=["Ledgers"],
    responses={
        200: describing.answer("The ledgers, by name.", wire.LedgerList),
        **describing.refusals(422, 503),
    },
)
def ledgers(request: Request, query: Annotated[LedgersQuery, Query()]) -> Response:
    """Return the ledgers, by name, a page at a time."""
    service = serving(request)
    names = [name for name in service.ledgers.names() if query.after is None or name > query.after]
    shown = [service.open(name).describe() for name in names[: query.limit]]
    headers = {"Cache-Control": "no-cache"}
    link = None
    if len(names) > query.limit:
        link = f"/v1/ledgers?{urlencode({'limit': query.limit, 'after': names[query.limit - 1]})}"
        headers["Link"] = f'<{link}>; rel="next"'
    return _json({"ledgers": shown, "next": link}, headers=headers)


@router.get(
    "/v1/ledgers/{ledger}",
    summary="One ledger",
    tags=["Ledgers"],
    responses={
        200: describing.answer("The ledger.", wire.LedgerDescription, headers="Ledger-Size"),
        **describing.refusals(404, 422, 503),
    },
)
def ledger(request: Request, ledger: LedgerName) -> Response:
    """Return how much is recorded in a ledger, and the Merkle root over it."""
    return _described(serving(request), ledger, 200)


@router.put(
    "/v1/ledgers/{ledger}",
    summary="Create a ledger",
    tags=["Ledgers"],
    status_code=201,
    responses={
        200: describing.answer("It is there already.", wire.LedgerDescription, headers="Ledger-Size"),
        201: describing.answer("It is new.", wire.LedgerDescription, headers="Ledger-Size Location"),
        **describing.refusals(400, 409, 413, 415, 422, 503),
    },
    openapi_extra=describing.CREATE,
)
async def create(request: Request, ledger: LedgerName) -> Response:
    """Create a ledger; one that is there with the same settings is left as it is."""
    body = await bodies.read_body(request, MAX_SETTINGS_BYTES)
    settings = _settings(body, request) if body else wire.LedgerSettings()
    service = serving(request)

    def act() -> Response:
        new = service.ledgers.create(ledger, strict=settings.strict)
        return _described(service, ledger, 201 if new else 200)

    return await run_in_threadpool(act)


def _settings(body: bytes, request: Request) -> wire.LedgerSettings:
    if bodies.media_type(request.headers) != bodies.JSON:
        raise LedgerError(
            Category.UNSUPPORTED_MEDIA, "unsupported-media-type", f"The Content-Type must be {bodies.JSON}."
        )
    try:
        return wire.LedgerSettings.model_validate(parse_json(body), strict=True)
    except ValidationError as wrong:
        raise problems.invalid_request(*problems.faults(wrong.errors())) from None


def _described(service: Service, name: str, status: int) -> Response:
    shown = service.open(name).describe()
    headers = {"Ledger-Size": str(shown["size"]), "Cache-Control": "no-cache"}
    if status == 201:
        headers["Location"] = f"/v1/ledgers/{name}"
    return _json(shown, status, headers)


# --- the service itself


@router.get("/", summary="Where to go", tags=["Service"], responses={200: describing.answer("Links.", wire.Root)})
async def root() -> Response:
    """Return where things are."""
    links = {
        "description": "/v1/openapi.json",
        "ledgers": "/v1/ledgers",
        "main": "/v1/ledgers/main",
        "events": "/v1/ledgers/main/events",
        "alive": "/livez",
        "ready": "/readyz",
    }
    return _json({"service": "factledger", "version": version("factledger"), "links": links})


@router.get("/livez", summary="Alive?", tags=["Service"], responses={200: describing.answer("Alive.", wire.Alive)})
async def livez() -> Response:
    """Answer as long as the process can answer at all; asks neither the database nor any thread."""
    return _json({"status": "alive"}, headers={"Cache-Control": "no-store"})


@router.get(
    "/readyz",
    summary="Ready?",
    tags=["Service"],
    responses={200: describing.answer("Ready.", wire.Ready), **describing.refusals(503)},
)
def readyz(request: Request) -> Response:
    """Answer whether the service can do its work, and if not, what is wrong."""
    database = serving(request).ledgers.database
    found = [fault for check in _CHECKS if (fault := _checked(check, database)) is not None]
    if found:
        raise LedgerError(
            Category.UNAVAILABLE,
            "not-ready",
            "The service cannot do its work: " + "; ".join(f"{f.pointer[1:]} {f.detail}" for f in found),
            errors=found,
            retry_after=5,
        )
    return _json({"status": "ready"}, headers={"Cache-Control": "no-store"})


def _durability(database: Database) -> Fault | None:
    with database.writing() as connection:
        if is_durable(connection, database.dialect):
            return None
    return Fault("/durability", "is off: the database acknowledges commits that a power cut would lose")


def _migrations(database: Database) -> Fault | None:
    current, latest = current_and_latest(database)
    if current == latest:
        return None
    return Fault("/migrations", f"are at {current or 'none'}, and this version of the service needs {latest}")


_CHECKS: tuple[Callable[[Database], Fault | None], ...] = (_durability, _migrations)


def _checked(check: Callable[[Database], Fault | None], database: Database) -> Fault | None:
    try:
        return check(database)
    except LedgerError:
        return Fault("/database", "cannot be reached, or cannot be written")


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, "application/json")
