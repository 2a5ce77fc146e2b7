"""The application: routes, lifespan, and what stands around every request."""

from __future__ import annotations

import re
import string
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from time import perf_counter
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from factledger import wiring
from factledger.appender import Appender
from factledger.core.errors import LedgerError
from factledger.http import appending, describing, operating, problems, proving, reading
from factledger.http.questions import given_twice
from factledger.http.service import Service
from factledger.ledger import Ledgers
from factledger.settings import Settings

_log = structlog.get_logger(__name__)

_SANE_ID = re.compile(r"[A-Za-z0-9._~+/=-]{1,128}")
_UNESCAPED = "!$&'()*+,;=:@-._~"  # what RFC 3986 lets stand in a segment of a path
_PLAIN_PATH = (string.ascii_letters + string.digits + _UNESCAPED + "/").encode()
_ROUTERS = (appending.router, reading.router, proving.router, operating.router)


def create_app(ledgers: Ledgers, settings: Settings) -> FastAPI:
    """Return the service over open ledgers; it closes them when it shuts down."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        appender = Appender(settings.append_queue)
        app.state.service = Service(ledgers, appender, settings)
        if ledgers.sealer is not None:
            ledgers.sealer.start()
        try:
            yield
        finally:
            await run_in_threadpool(appender.close)
            if ledgers.sealer is not None:
                await run_in_threadpool(ledgers.sealer.close)
            await run_in_threadpool(ledgers.close)

    app = _Application(
        title=describing.TITLE,
        description=describing.DESCRIPTION,
        version=version("factledger"),
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
        exception_handlers={
            LedgerError: _on_refusal,
            RequestValidationError: _on_unfit,
            HTTPException: _on_no_route,
        },
    )
    for router in _ROUTERS:
        app.include_router(router)
    app.add_middleware(Gate, new_id=lambda: wiring.salt()[:12].hex())
    return app


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Return the API's description, complete with the shapes that the routes name."""
        if self.openapi_schema is None:
            self.openapi_schema = describing.complete(super().openapi())
        return self.openapi_schema


async def _on_refusal(_request: Request, error: Exception) -> Response:
    return problems.respond(error)


async def _on_unfit(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problems.respond(problems.of_validation(error))


async def _on_no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    taken: set[str] = set()
    for router in _ROUTERS:
        for route in router.routes:
            if isinstance(route, APIRoute) and route.path_regex.match(request.scope["path"]):
                taken |= route.methods or set()
    return problems.respond_of_framework(error.status_code, taken | {"HEAD"} if "GET" in taken else taken)


class CutOffError(Exception):
    """The answer had begun when the request failed: the connection is closed, so that nobody takes it for whole."""


class Gate:
    """Around every request: its id, its path with the escapes kept, HEAD as GET, and one line in the log.

    A query that gives a parameter twice is refused here, whatever it asks.

    Whatever fails in a way that nobody thought of is answered with 500, and neither the answer nor the log repeats
    what the failure says, since it may quote content.
    """

    def __init__(self, app: ASGIApp, new_id: Callable[[], str]) -> None:
        """Take what lies within, and the maker of ids for requests that come without."""
        self._app, self._new_id = app, new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        request_id = _given_id(scope) or self._new_id()
        extra = [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]
        # To a HEAD the server sends what it is given as to a GET, but for the body.
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        inner = {**scope, "path": _escaped_path(scope), "method": method}
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        refusal = given_twice(scope["query_string"]) if scope["query_string"] else None
        app = problems.respond(refusal) if refusal else self._app
        try:
            await app(inner, receive, answer)
        except ClientDisconnect:
            pass
        except Exception as error:  # noqa: BLE001 - this is where whatever nobody thought of ends
            _log.error("request failed", request_id=request_id, **problems.described(error))
            if status:
                raise CutOffError from None
            await problems.respond(error)(inner, receive, answer)
        finally:
            _log.info(
                "request",
                request_id=request_id,
                method=scope["method"],
                route=getattr(inner.get("route"), "path", None),
                status=status or None,
                duration_ms=round((perf_counter() - began) * 1000, 2),
            )


def _given_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text = value.decode("latin-1")
            return text if _SANE_ID.fullmatch(text) else None
    return None


def _escaped_path(scope: Scope) -> str:
    """Return the path with its escapes, in their one normal form, so that an id may hold a slash."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    if not raw.translate(None, _PLAIN_PATH):
        return raw.decode("ascii")
    return "/".join(quote(unquote_to_bytes(segment), safe=_UNESCAPED) for segment in raw.split(b"/"))
