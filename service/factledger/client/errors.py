"""What goes wrong, as types: by what a program can do about it. None of them carries what was posted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from factledger.core.errors import Category, Fault, LedgerError


class InvalidError(LedgerError):
    """What was sent breaks the contract: the same again is refused again."""


class NotFoundError(LedgerError):
    """There is no such ledger, entity or event, as of what was asked."""


class ConflictError(LedgerError):
    """It contradicts what is recorded."""


class ForbiddenError(LedgerError):
    """The key is missing, unknown, or not good for this."""


class UnavailableError(LedgerError):
    """The service is busy or not there, and stayed so for as long as the client was to be patient.

    Whether what was posted is recorded is unknown. To send the same again is safe.
    """


class ServiceError(LedgerError):
    """The service failed. To send the same again is safe."""


_Kind = tuple[type[LedgerError], Category]

_KINDS: Mapping[int, _Kind] = {
    400: (InvalidError, Category.MALFORMED),
    401: (ForbiddenError, Category.FORBIDDEN),
    403: (ForbiddenError, Category.FORBIDDEN),
    404: (NotFoundError, Category.NOT_FOUND),
    409: (ConflictError, Category.CONFLICT),
    412: (ConflictError, Category.PRECONDITION),
    413: (InvalidError, Category.TOO_LARGE),
    415: (InvalidError, Category.UNSUPPORTED_MEDIA),
    422: (InvalidError, Category.INVALID),
    429: (UnavailableError, Category.BUSY),
    501: (InvalidError, Category.NOT_IMPLEMENTED),
    502: (UnavailableError, Category.UNAVAILABLE),
    503: (UnavailableError, Category.UNAVAILABLE),
    504: (UnavailableError, Category.UNAVAILABLE),
}
_FAILED: _Kind = (ServiceError, Category.UNAVAILABLE)
_DAMAGED: _Kind = (ServiceError, Category.CORRUPT)
_OTHERWISE: _Kind = (InvalidError, Category.INVALID)


def stated(problem: Mapping[str, Any], retry_after: int | None = None) -> LedgerError:
    """Return the refusal that a problem object (RFC 9457) states."""
    status = int(problem.get("status", 500))
    code = str(problem.get("code", f"http-{status}"))
    failed = _FAILED if status != 500 or code in ("http-500", "internal-error") else _DAMAGED
    kind, category = _KINDS.get(status, failed if status >= 500 else _OTHERWISE)
    return kind(
        category,
        code,
        str(problem.get("detail") or problem.get("title") or f"The server answered with status {status}."),
        errors=[Fault(str(e.get("pointer", "")), str(e.get("detail", ""))) for e in problem.get("errors", ())],
        retry_after=retry_after,
    )
