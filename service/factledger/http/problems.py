"""Problems: every refusal as RFC 9457 `application/problem+json`, by one table of categories and statuses.

A problem says what is wrong and where, as JSON pointers, and never repeats what was sent. Pointers into a body are
those of RFC 6901; `/query/NAME`, `/path/NAME` and `/headers/NAME` point at the rest of a request.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.responses import Response

from factledger.core.errors import Category, Fault, LedgerError
from factledger.core.facts import escape

MEDIA_TYPE = "application/problem+json"

STATUSES: Mapping[Category, int] = {
    Category.MALFORMED: 400,
    Category.INVALID: 422,
    Category.NOT_FOUND: 404,
    Category.CONFLICT: 409,
    Category.PRECONDITION: 412,
    Category.TOO_LARGE: 413,
    Category.UNSUPPORTED_MEDIA: 415,
    Category.FORBIDDEN: 403,
    Category.BUSY: 429,
    Category.UNAVAILABLE: 503,
    Category.NOT_IMPLEMENTED: 501,
    Category.CORRUPT: 500,
}

# What the framework refuses by itself, before any of our code is asked.
_FRAMEWORK = {
    404: ("route-not-found", "Nothing is at this path; / lists what there is."),
    405: ("method-not-allowed", "This path does not take this method; `Allow` names those that it takes."),
}


def problem(error: Exception) -> dict[str, Any]:
    """Return the problem that an error is shown as; of one that is no refusal nothing is shown."""
    if isinstance(error, LedgerError):
        return _problem(error.code, STATUSES[error.category], error.detail, error.errors)
    detail = "The service failed in a way that it should not have. The log tells more under this X-Request-Id."
    return _problem("internal-error", 500, detail)


def _problem(code: str, status: int, detail: str, errors: Sequence[Fault] = ()) -> dict[str, Any]:
    return {
        "type": f"/problems/{code}",
        "title": code.replace("-", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
        "errors": [{"pointer": fault.pointer, "detail": fault.detail} for fault in errors],
    }


def respond(error: Exception) -> Response:
    """Return the answer to a request that met an error."""
    headers = {}
    if isinstance(error, LedgerError) and error.category in (Category.BUSY, Category.UNAVAILABLE):
        headers["Retry-After"] = str(error.retry_after or 1)
    return _response(problem(error), headers)


def respond_of_framework(status: int, allowed: Iterable[str] = ()) -> Response:
    """Return the answer to a request that the framework refuses; `allowed` are the methods that the path takes."""
    code, detail = _FRAMEWORK.get(status, ("request-refused", HTTPStatus(status).phrase))
    return _response(_problem(code, status, detail), {"Allow": ", ".join(sorted(allowed))} if status == 405 else {})


def _response(shown: dict[str, Any], headers: dict[str, str]) -> Response:
    headers["Cache-Control"] = "no-store"
    return Response(orjson.dumps(shown), shown["status"], headers, MEDIA_TYPE)


def invalid_request(*faults: Fault) -> LedgerError:
    """Return the refusal of a request that is readable and breaks rules outside any event."""
    return LedgerError(
        Category.INVALID,
        "invalid-request",
        "The request does not meet the contract; see `errors` for each place and what belongs there.",
        errors=faults,
    )


def malformed_request(pointer: str, detail: str) -> LedgerError:
    """Return the refusal of a request of which a part cannot even be read."""
    return LedgerError(
        Category.MALFORMED,
        "malformed-request",
        "A part of the request cannot be read; see `errors` for where.",
        errors=[Fault(pointer, detail)],
    )


def of_validation(error: RequestValidationError) -> LedgerError:
    """Return the refusal of a path or query that is not as declared."""
    return invalid_request(*faults(error.errors()))


def faults(errors: Iterable[Mapping[str, Any]], prefix: str = "") -> list[Fault]:
    """Return Pydantic's findings as faults, without the input that they quote."""
    found = []
    for error in errors:
        detail = {"extra_forbidden": "is not known here", "missing": "is required"}.get(error["type"])
        pointer = prefix + "".join(f"/{escape(str(part))}" for part in error["loc"])
        found.append(Fault(pointer, detail or str(error["msg"]).removeprefix("Value error, ")))
    return found


def described(error: BaseException) -> dict[str, Any]:
    """Return what the log may say of an unexpected error: its kind and its trail; its message may quote content."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)[-12:]
    return {"error": type(error).__name__, "trail": [f"{f.filename}:{f.lineno} {f.name}" for f in frames]}
