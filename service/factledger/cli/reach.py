"""How a command reaches a ledger: in its database, or through a server. Both answer with the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, urlencode

import httpx2
import orjson

from factledger.cli import terminal
from factledger.cli.options import At, Local, Where, unfit
from factledger.core import events
from factledger.core.errors import Category, Fault, LedgerError
from factledger.core.events import Draft

if TYPE_CHECKING:
    from factledger.ledger import Ledger, Ledgers

PAGE = 1_000
_SQLITE = ("sqlite:///", "sqlite+pysqlite:///")


@dataclass(frozen=True, slots=True)
class Line:
    """A valid event to append, as read and as parsed."""

    body: bytes
    draft: Draft


@dataclass(frozen=True, slots=True)
class Appended:
    """What happened to each line, whether it is new or why it was refused, and the ledger's size after them."""

    outcomes: Sequence[bool | LedgerError]
    size: int


class Reach(Protocol):
    """A ledger within reach. Answers are the JSON of the contract, byte for byte."""

    def entity(self, entity: str, at: At) -> bytes:
        """Return the believed state of an entity."""

    def timeline(self, entity: str, predicate: str | None, at: At) -> bytes:
        """Return belief over all of valid time."""

    def why(self, entity: str, predicate: str, at: At) -> bytes:
        """Return what a belief rests on."""

    def history(self, entity: str, predicate: str | None, at: At, from_size: int, limit: int) -> bytes:
        """Return how belief changed."""

    def pin(self, at: At) -> At:
        """Return the same coordinates with the size fixed, so that many reads agree."""

    def entities(self, at: At) -> Iterator[str]:
        """Yield the canonical id of every entity that anything was asserted about, in order."""

    def count(self, at: At) -> int | None:
        """Return how many `entities` yields, if that is cheap to know."""

    def append(self, lines: Sequence[Line]) -> Appended:
        """Record each line by itself: good ones are kept, whatever becomes of the others."""

    def preview(self, lines: Sequence[Line], after: str | None, limit: int) -> bytes:
        """Return what recording each line by itself would change; nothing is recorded."""

    def size(self) -> int:
        """Return how many events are recorded."""


@contextmanager
def reach(where: Where, *, create: bool = False) -> Iterator[Reach]:
    """Yield the ledger that the options name; `create` makes a database that is not there.

    Raises:
        LedgerError: `database-not-found`, `ledger-not-found`, `database-unavailable`, and of the options.
    """
    if where.server is None:
        with opened(where, create=create) as ledgers:
            yield InDatabase(ledgers.get(where.ledger))
        return
    if where.database is not None:
        raise unfit("--server", "and --database exclude each other")
    if not where.server.startswith(("http://", "https://")):
        raise unfit("--server", "must be a URL such as http://127.0.0.1:8000")
    with httpx2.Client(timeout=httpx2.Timeout(60, connect=5)) as client:
        yield BehindServer(client, where.server.rstrip("/"), where.ledger)


@contextmanager
def opened(where: Local, *, create: bool) -> Iterator[Ledgers]:
    """Yield the ledgers of the database that the options, or else the settings, name."""
    from factledger.settings import read_settings
    from factledger.wiring import open_ledgers  # here, since it loads the database's library

    url = database_url(where)
    path = sqlite_file(url)
    if not create and path is not None and not path.exists():
        raise LedgerError(
            Category.NOT_FOUND,
            "database-not-found",
            f"There is no database at {path}; `factledger init` makes one.",
        )
    settings = read_settings()
    ledgers = open_ledgers(url, settings=settings)
    try:
        if create and ledgers.sealer is not None:
            ledgers.sealer.start(lambda name, problem: _not_sealed(name, problem, json=where.json))
        try:
            yield ledgers
        finally:
            if ledgers.sealer is not None:
                ledgers.sealer.close()
    finally:
        # Not ledgers.close(): keeping the memo of a single read would make a reader a second writer.
        ledgers.database.close()


def _not_sealed(name: str, problem: Exception, *, json: bool) -> None:
    """Say that what is recorded is not signed yet; the next command or service that has the key tries again."""
    if isinstance(problem, LedgerError):
        terminal.report(problem, json=json, place=name)


def sign(ledgers: Ledgers) -> Path | None:
    """Make the key of a database that has none, sign every ledger as it is now, and return the key's file.

    None if there is no key and none may be made, since another has signed before.
    """
    from factledger.wiring import salt

    assert ledgers.sealer is not None
    ledgers.sealer.make_key(salt)
    if not ledgers.sealer.keeper.has_key:
        return None
    for name in ledgers.names():
        ledgers.sealer.seal(name)
    return ledgers.sealer.keeper.key_file.resolve()


def database_url(where: Local) -> str:
    """Return the URL of the database: of the option, or else of the settings."""
    if where.database is not None:
        return where.database
    from factledger.settings import read_settings

    return read_settings().database_url


def sqlite_file(url: str) -> Path | None:
    """Return the file of a SQLite URL, or None for any other."""
    for prefix in _SQLITE:
        if url.startswith(prefix):
            return Path(url.removeprefix(prefix).partition("?")[0])
    return None


class InDatabase:
    """A ledger in a database that is open in this process."""

    def __init__(self, ledger: Ledger) -> None:
        """Take the door to the ledger."""
        self._ledger = ledger

    def entity(self, entity: str, at: At) -> bytes:
        """Return the believed state of an entity."""
        return self._ledger.entity(entity, at.question()).body

    def timeline(self, entity: str, predicate: str | None, at: At) -> bytes:
        """Return belief over all of valid time."""
        return self._ledger.timeline(entity, predicate, at.question()).body

    def why(self, entity: str, predicate: str, at: At) -> bytes:
        """Return what a belief rests on."""
        return self._ledger.why(entity, predicate, at.question()).body

    def history(self, entity: str, predicate: str | None, at: At, from_size: int, limit: int) -> bytes:
        """Return how belief changed."""
        return self._ledger.history(entity, predicate, at.question(), from_size=from_size, limit=limit).body

    def pin(self, at: At) -> At:
        """Return the same coordinates with the size fixed."""
        with self._ledger.snapshot(at.question()) as snapshot:
            return replace(at, known_at=None, at_size=snapshot.size)

    def entities(self, at: At) -> Iterator[str]:
        """Yield the canonical id of every entity that anything was asserted about, in bounded memory."""
        return self._ledger.entities(at.question())

    def count(self, at: At) -> int | None:
        """Return how many `entities` yields: the ids alone are read."""
        return sum(1 for _ in self.entities(at))

    def append(self, lines: Sequence[Line]) -> Appended:
        """Record each line by itself, all in one transaction."""
        from factledger.recording import Receipt, Request

        outcomes = self._ledger.append([Request([line.draft]) for line in lines])
        sizes = [outcome.size for outcome in outcomes if isinstance(outcome, Receipt)]
        return Appended(
            [outcome.results[0].recorded if isinstance(outcome, Receipt) else outcome for outcome in outcomes],
            sizes[-1] if sizes else self.size(),
        )

    def preview(self, lines: Sequence[Line], after: str | None, limit: int) -> bytes:
        """Return what recording each line by itself would change; nothing is recorded."""
        from factledger.http.problems import problem  # refusals look as a server shows them
        from factledger.recording import Request

        requests = [Request([line.draft]) for line in lines]
        return self._ledger.preview(requests, problem, after=after, limit=limit).body

    def size(self) -> int:
        """Return how many events are recorded."""
        return self._ledger.size()


class BehindServer:
    """A ledger that a server answers for."""

    def __init__(self, client: httpx2.Client, server: str, ledger: str) -> None:
        """Take a client, the server's URL and the ledger's name."""
        self._client, self._server = client, server
        self._ledger = f"/v1/ledgers/{quote(ledger, safe='')}"

    def entity(self, entity: str, at: At) -> bytes:
        """Return the believed state of an entity."""
        return self._get(_path(entity), at.query())

    def timeline(self, entity: str, predicate: str | None, at: At) -> bytes:
        """Return belief over all of valid time."""
        return self._get(_path(entity, "/timeline"), _of(predicate) | at.query())

    def why(self, entity: str, predicate: str, at: At) -> bytes:
        """Return what a belief rests on."""
        return self._get(_path(entity, "/why"), _of(predicate) | at.query())

    def history(self, entity: str, predicate: str | None, at: At, from_size: int, limit: int) -> bytes:
        """Return how belief changed."""
        page = {"from_size": str(from_size), "limit": str(limit)}
        return self._get(_path(entity, "/history"), _of(predicate) | page | at.query())

    def pin(self, at: At) -> At:
        """Return the same coordinates with the size fixed."""
        known = {name: text for name, text in at.query().items() if name in ("known_at", "at_size")}
        return replace(at, known_at=None, at_size=orjson.loads(self._get("/events", {"limit": "1"} | known))["size"])

    def entities(self, at: At) -> Iterator[str]:
        """Yield the canonical id of every entity that anything was asserted about; holds all ids at once."""
        subjects = set()
        page = self._ledger + "/events?" + urlencode({"type": events.ASSERTION, "limit": PAGE, "at_size": at.at_size})
        while page:
            answer = orjson.loads(self._ask("GET", page))
            subjects |= {event["data"]["subject"] for event in answer["events"]}
            page = answer["next"]
        yield from sorted({orjson.loads(self.entity(subject, at))["canonical"] for subject in subjects})

    def count(self, _at: At) -> int | None:
        """Return None: a server would have to be asked about each."""
        return None

    def append(self, lines: Sequence[Line]) -> Appended:
        """Record each line by itself.

        Raises:
            LedgerError: `answer-broken` if the server stopped halfway; the same lines may be sent again.
        """
        body = b"".join(line.body + b"\n" for line in lines)
        answer = self._ask(
            "POST", f"{self._ledger}/events", content=body, headers={"Content-Type": "application/x-ndjson"}
        )
        told = [orjson.loads(line) for line in answer.splitlines()]
        if len(told) != len(lines) + 1 or "summary" not in told[-1]:
            raise LedgerError(
                Category.UNAVAILABLE,
                "answer-broken",
                "The server's answer broke off; post the same events again: what is recorded is recognised.",
            )
        return Appended(
            [
                refusal_of(line["problem"]) if line["result"] == "rejected" else line["result"] == "recorded"
                for line in told[:-1]
            ],
            told[-1]["summary"]["size"],
        )

    def preview(self, lines: Sequence[Line], after: str | None, limit: int) -> bytes:
        """Return what recording each line by itself would change; nothing is recorded."""
        body = b"".join(line.body + b"\n" for line in lines)
        query = {"limit": str(limit), **({} if after is None else {"after": after})}
        headers = {"Content-Type": "application/x-ndjson"}
        return self._ask("POST", f"{self._ledger}/preview", params=query, content=body, headers=headers)

    def size(self) -> int:
        """Return how many events are recorded."""
        return int(orjson.loads(self._get("", {}))["size"])

    def _get(self, path: str, query: Mapping[str, str]) -> bytes:
        return self._ask("GET", self._ledger + path, params=dict(query) or None)

    def _ask(self, method: str, path: str, **request: Any) -> bytes:
        try:
            response = self._client.request(method, self._server + path, **request)
        except httpx2.InvalidURL:
            raise unfit("--server", "must be a URL such as http://127.0.0.1:8000") from None
        except httpx2.TransportError as failure:
            raise LedgerError(
                Category.UNAVAILABLE,
                "server-unavailable",
                f"The server at {self._server} cannot be reached, or did not answer.",
                retry_after=1,
            ) from failure
        if response.is_success:
            return response.content
        raise refusal_of(_problem_of(response))


def _of(predicate: str | None) -> dict[str, str]:
    return {} if predicate is None else {"predicate": predicate}


def _path(entity: str, view: str = "") -> str:
    return f"/entities/{quote(entity, safe=':')}{view}"


def _problem_of(response: httpx2.Response) -> dict[str, Any]:
    try:
        stated = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        stated = None
    found = stated if isinstance(stated, dict) else {}
    return {"status": response.status_code, **found}


_CATEGORIES = {
    400: Category.MALFORMED,
    401: Category.FORBIDDEN,
    403: Category.FORBIDDEN,
    404: Category.NOT_FOUND,
    409: Category.CONFLICT,
    412: Category.PRECONDITION,
    413: Category.TOO_LARGE,
    415: Category.UNSUPPORTED_MEDIA,
    422: Category.INVALID,
    429: Category.BUSY,
    501: Category.NOT_IMPLEMENTED,
}


def refusal_of(stated: Mapping[str, Any]) -> LedgerError:
    """Return the refusal that a problem object states."""
    status = int(stated.get("status", 500))
    code = str(stated.get("code", f"http-{status}"))
    fallback = Category.UNAVAILABLE if status >= 500 else Category.INVALID
    if status == 500 and code not in ("http-500", "internal-error"):
        fallback = Category.CORRUPT
    return LedgerError(
        _CATEGORIES.get(status, fallback),
        code,
        str(stated.get("detail") or stated.get("title") or f"The server answered with status {status}."),
        errors=[Fault(str(e.get("pointer", "")), str(e.get("detail", ""))) for e in stated.get("errors", ())],
    )
