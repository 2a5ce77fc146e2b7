"""Requests to a service: one at a time, tried again while it is busy or away, and refused as typed errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
import orjson
import tenacity

from factledger.client.errors import InvalidError, UnavailableError, stated
from factledger.core.errors import Category, LedgerError

CONNECT_SECONDS = 5.0
MAX_WAIT_SECONDS = 15.0

Answer = TypeVar("Answer")
Waiting = Callable[[LedgerError, float], None]  # why, and for how many seconds

_backoff = tenacity.wait_random_exponential(multiplier=0.2, max=MAX_WAIT_SECONDS)


class Service:
    """A service by its URL. Not for two threads at once."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        patience: float = 60.0,
        waiting: Waiting | None = None,
    ) -> None:
        """Take where it is; see `Ledger` for the rest. `waiting` is told of every wait before it begins.

        Raises:
            InvalidError: `invalid-url`.
        """
        if not _is_url(url):
            raise _not_a_url()
        self.url = url.rstrip("/")
        self._patience, self._waiting = patience, waiting
        self._http = httpx2.Client(
            timeout=httpx2.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)),
            headers={} if key is None else {"Authorization": f"Bearer {key}"},
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> bytes:
        """Return the body of an answer; what is None is left out of the query."""
        given = {name: str(value) for name, value in (query or {}).items() if value is not None}
        return self.ask("GET", path, params=given or None)

    def ask(self, method: str, path: str, **request: Any) -> bytes:
        """Return the body of an answer, however often it takes to get one.

        Raises:
            LedgerError: as the service refuses it; `server-unavailable`.
        """
        return self.trying(lambda: self._once(method, path, request))

    def trying(self, attempt: Callable[[], Answer]) -> Answer:
        """Return what an attempt returns, trying again after each UnavailableError while patience lasts."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._worthwhile),
            stop=tenacity.stop_after_delay(self._patience),
            wait=_wait,
            before_sleep=self._tell,
            reraise=True,
        )
        return retrying(attempt)

    @contextmanager
    def answer(self, method: str, path: str, **request: Any) -> Iterator[httpx2.Response]:
        """Yield a successful answer whose body is yet to be read.

        Raises:
            LedgerError: as the service refuses it; `server-unavailable`, also if the body breaks off.
        """
        try:
            with self._http.stream(method, self.url + path, **request) as response:
                if not response.is_success:
                    response.read()
                    raise _refused(response)
                yield response
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol):
            raise _not_a_url() from None
        except httpx2.TransportError as failure:
            raise UnavailableError(
                Category.UNAVAILABLE,
                "server-unavailable",
                f"The server at {self.url} cannot be reached, or did not answer.",
            ) from failure

    def _once(self, method: str, path: str, request: Mapping[str, Any]) -> bytes:
        with self.answer(method, path, **request) as response:
            return response.read()

    def _worthwhile(self, failure: BaseException) -> bool:
        return isinstance(failure, UnavailableError) and (failure.retry_after or 0) <= self._patience

    def _tell(self, state: tenacity.RetryCallState) -> None:
        failure = state.outcome and state.outcome.exception()
        if self._waiting is not None and isinstance(failure, LedgerError):
            self._waiting(failure, state.upcoming_sleep)


def _wait(state: tenacity.RetryCallState) -> float:
    """Return for how many seconds to wait: what the service asks for if it does, and a random part of more and more."""
    failure = state.outcome and state.outcome.exception()
    asked = failure.retry_after if isinstance(failure, LedgerError) else None
    return (asked or 0) + _backoff(state)


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and not re.search(r"\s", url)
    except ValueError:
        return False


def _not_a_url() -> InvalidError:
    return InvalidError(Category.INVALID, "invalid-url", "The URL must be one such as http://127.0.0.1:8000.")


def _refused(response: httpx2.Response) -> LedgerError:
    try:
        problem = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        problem = None
    after = response.headers.get("Retry-After", "")
    return stated(
        {**(problem if isinstance(problem, dict) else {}), "status": response.status_code},
        int(after) if after.isdecimal() else None,
    )
