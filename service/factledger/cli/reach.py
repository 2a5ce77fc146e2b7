"""How a command reaches a ledger: in its database, or through a server. Both answer with the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import orjson

from factledger.cli import terminal
from factledger.cli.options import At, Between, Local, Where, unfit
from factledger.client.errors import InvalidError
from factledger.client.posting import Posting, RejectedError
from factledger.client.service import Service, Waiting
from factledger.core import encoding, events
from factledger.core.errors import Category, LedgerError
from factledger.core.events import Draft

if TYPE_CHECKING:
    from factledger.ledger import Ledger, Ledgers
    from factledger.signing import Keeper
    from factledger.store.engines import Database

PAGE = 1_000
BATCH = 1_000  # events a transaction
Outcome = bool | LedgerError  # whether the event is new, or why it was refused

_SQLITE = ("sqlite:///", "sqlite+pysqlite:///")


class Reach(Protocol):
    """A ledger within reach. Answers are the JSON of the contract, byte for byte."""

    def entity(self, entity: str, at: At) -> bytes:
        """Return the believed state of an entity."""

    def timeline(self, entity: str, predicate: str | None, at: At) -> bytes:
        """Return belief over all of valid time."""

    def why(self, entity: str, predicate: str, at: At) -> bytes:
        """Return what a belief rests on."""

    def receipt(self, entity: str, predicate: str, at: At) -> bytes:
        """Return what a belief rests on, with proofs."""

    def history(self, entity: str, predicate: str | None, at: At, from_size: int, limit: int) -> bytes:
        """Return how belief changed."""

    def diff(self, between: Between, at: At, after: str | None, limit: int) -> bytes:
        """Return where belief differs between two states."""

    def pin(self, at: At) -> At:
        """Return the same coordinates with the size fixed, so that many reads agree."""

    def entities(self, at: At) -> Iterator[str]:
        """Yield the canonical id of every entity that anything was asserted about, in order."""

    def count(self, at: At) -> int | None:
        """Return how many `entities` yields, if that is cheap to know."""

    def append(self, lines: Iterator[bytes]) -> Iterator[tuple[Outcome, int]]:
        """Record each event, which is JSON on a line, by itself: good ones are kept, whatever becomes of the others.

        Yields for each, in order, what became of it and the ledger's size by then, in bounded memory.
        """

    def preview(self, lines: Sequence[bytes], after: str | None, limit: int) -> bytes:
        """Return what recording each event, which is one, by itself would change; nothing is recorded."""

    def describe(self) -> Mapping[str, Any]:
        """Return what the ledger is: its name, when it was created, its size."""

    def size(self) -> int:
        """Return how many events are recorded."""


def gathered(ask: Callable[[str | None, int], bytes], limit: int) -> dict[str, Any]:
    """Return the pages of an answer, each asked for by (after, limit), as one of about `limit` changes."""
    whole: dict[str, Any] = orjson.loads(ask(None, min(limit, PAGE)))
    lists = [name for name in ("changes", "survived") if name in whole]
    while whole["next"] is not None and (left := limit - sum(len(whole[name]) for name in lists)) > 0:
        (after,) = parse_qs(urlsplit(whole["next"]).query)["after"]
        page = orjson.loads(ask(after, min(left, PAGE)))
        for name in lists:
            whole[name] += page[name]
        whole["next"] = page["next"]
    return whole


@contextmanager
def reach(
    where: Where, *, create: bool = False, patience: float = 0, waiting: Waiting | None = None
) -> Iterator[Reach]:
    """Yield the ledger that the options name; `create` makes a database that is not there.

    Appending through a server that is busy or away goes on for `patience` seconds; `waiting` is told of each wait.

    Raises:
        LedgerError: `database-not-found`, `ledger-not-found`, `database-unavailable`, and of the options.
    """
    if where.server is None:
        with opened(where, create=create) as ledgers:
            yield InDatabase(ledgers.get(where.ledger))
        return
    with served(where, patience, waiting) as ledger:
        yield ledger


@contextmanager
def served(where: Where, patience: float = 0, waiting: Waiting | None = None) -> Iterator[BehindServer]:
    """Yield the ledger behind the server that the options name."""
    assert where.server is not None
    if where.database is not None:
        raise unfit("--server", "and --database exclude each other")
    try:
        service = Service(where.server, patience=0)
        patient = Service(where.server, patience=patience, waiting=waiting)
    except InvalidError:
        raise unfit("--server", "must be a URL such as http://127.0.0.1:8000") from None
    with closing(service), closing(patient):
        yield BehindServer(service, patient, where.ledger)


@contextmanager
def opened(where: Local, *, create: bool) -> Iterator[Ledgers]:
    """Yield the ledgers of the database that the options, or else the settings, name."""
    from factledger.settings import read_settings
    from factledger.wiring import open_ledgers  # here, since it loads the database's library

    url = database_url(where)
    if not create:
        _demand_file(url)
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


@contextmanager
def audited(where: Local) -> Iterator[tuple[Database, Keeper]]:
    """Yield the database that the options name as it is, and its keeper: nothing is made, migrated or signed."""
    from factledger.settings import read_settings
    from factledger.wiring import open_for_audit

    url = database_url(where)
    _demand_file(url)
    database, keeper = open_for_audit(url, read_settings())
    try:
        yield database, keeper
    finally:
        database.close()


def _demand_file(url: str) -> None:
    path = sqlite_file(url)
    if path is not None and not path.exists():
        raise LedgerError(
            Category.NOT_FOUND,
            "database-not-found",
            f"There is no database at {path}; `factledger init` makes one.",
        )


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

    def receipt(self, entity: str, predicate: str, at: At) -> bytes:
        """Return what a belief rests on, with proofs."""
        return self._ledger.receipt(entity, predicate, at.question()).body

    def history(self, entity: str, predicate: str | None, at: At, from_size: int, limit: int) -> bytes:
        """Return how belief changed."""
        return self._ledger.history(entity, predicate, at.question(), from_size=from_size, limit=limit).body

    def diff(self, between: Between, at: At, after: str | None, limit: int) -> bytes:
        """Return where belief differs between two states."""
        since, until = between.states()
        return self._ledger.diff(at.question(), since=since, until=until, after=after, limit=limit).body

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

    def append(self, lines: Iterator[bytes]) -> Iterator[tuple[Outcome, int]]:
        """Record each event by itself, many in one transaction."""
        from factledger.recording import Receipt, Request

        while batch := list(islice(lines, BATCH)):
            drafts = [draft_of(line) for line in batch]
            recorded = iter(self._ledger.append([Request([d]) for d in drafts if not isinstance(d, LedgerError)]))
            outcomes = [draft if isinstance(draft, LedgerError) else next(recorded) for draft in drafts]
            sizes = [outcome.size for outcome in outcomes if isinstance(outcome, Receipt)]
            size = sizes[-1] if sizes else self.size()
            for outcome in outcomes:
                yield outcome.results[0].recorded if isinstance(outcome, Receipt) else outcome, size

    def preview(self, lines: Sequence[bytes], after: str | None, limit: int) -> bytes:
        """Return what recording each event by itself would change."""
        from factledger.http.problems import problem  # refusals look as a server shows them
        from factledger.recording import Request

        requests = [Request([events.read_event(encoding.parse_json(line))]) for line in lines]
        return self._ledger.preview(requests, problem, after=after, limit=limit).body

    def describe(self) -> Mapping[str, Any]:
        """Return what the ledger is."""
        return self._ledger.describe()

    def size(self) -> int:
        """Return how many events are recorded."""
        return self._ledger.size()


def draft_of(line: bytes) -> Draft | LedgerError:
    """Return the event on a line, or why it is none."""
    try:
        return events.read_event(encoding.parse_json(line))
    except LedgerError as refusal:
        return refusal


class BehindServer:
    """A ledger that a server answers for."""

    def __init__(self, service: Service, patient: Service, ledger: str) -> None:
        """Take the service, the same with patience for what takes long, and the ledger's name."""
        self._service, self._patient = service, patient
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

    def receipt(self, entity: str, predicate: str, at: At) -> bytes:
        """Return what a belief rests on, with proofs."""
        return self._get("/receipt", {"entity": entity, "predicate": predicate} | at.query())

    def history(self, entity: str, predicate: str | None, at: At, from_size: int, limit: int) -> bytes:
        """Return how belief changed."""
        page = {"from_size": str(from_size), "limit": str(limit)}
        return self._get(_path(entity, "/history"), _of(predicate) | page | at.query())

    def diff(self, between: Between, at: At, after: str | None, limit: int) -> bytes:
        """Return where belief differs between two states."""
        page = {"limit": str(limit), **({} if after is None else {"after": after})}
        return self._get("/diff", between.query() | at.query() | page)

    def pin(self, at: At) -> At:
        """Return the same coordinates with the size fixed."""
        known = {name: text for name, text in at.query().items() if name in ("known_at", "at_size")}
        return replace(at, known_at=None, at_size=orjson.loads(self._get("/events", {"limit": "1"} | known))["size"])

    def entities(self, at: At) -> Iterator[str]:
        """Yield the canonical id of every entity that anything was asserted about; holds all ids at once."""
        subjects = set()
        page = self._ledger + "/events?" + urlencode({"type": events.ASSERTION, "limit": PAGE, "at_size": at.at_size})
        while page:
            answer = orjson.loads(self._service.get(page))
            subjects |= {event["data"]["subject"] for event in answer["events"]}
            page = answer["next"]
        yield from sorted({orjson.loads(self.entity(subject, at))["canonical"] for subject in subjects})

    def count(self, _at: At) -> int | None:
        """Return None: a server would have to be asked about each."""
        return None

    def append(self, lines: Iterator[bytes]) -> Iterator[tuple[Outcome, int]]:
        """Record each event by itself, sending again what is not answered."""
        posting = Posting(self._patient, f"{self._ledger}/events", lines)
        with suppress(RejectedError):  # each was told by itself
            for result in posting:
                yield result.refusal or result.result == "recorded", posting.summary.size or 0

    def preview(self, lines: Sequence[bytes], after: str | None, limit: int) -> bytes:
        """Return what recording each event by itself would change."""
        return self._service.ask(
            "POST",
            f"{self._ledger}/preview",
            params={"limit": str(limit), **({} if after is None else {"after": after})},
            content=b"".join(line.rstrip(b"\n") + b"\n" for line in lines),
            headers={"Content-Type": "application/x-ndjson"},
        )

    def describe(self) -> Mapping[str, Any]:
        """Return what the ledger is."""
        described: dict[str, Any] = orjson.loads(self._get("", {}))
        return described

    def size(self) -> int:
        """Return how many events are recorded."""
        return int(self.describe()["size"])

    def checkpoint(self) -> bytes | None:
        """Return the last checkpoint, or None if none was signed."""
        try:
            return self._get("/checkpoint", {})
        except LedgerError as refusal:
            if refusal.code != "checkpoint-not-found":
                raise
            return None

    def events(self, size: int, **criteria: str) -> Iterator[dict[str, Any]]:
        """Yield the events below a size in order, a page at a time."""
        page = f"{self._ledger}/events?" + urlencode({"limit": PAGE, "at_size": size, **criteria})
        while page:
            answer = orjson.loads(self._service.get(page))
            yield from answer["events"]
            page = answer["next"]

    def _get(self, path: str, query: Mapping[str, str]) -> bytes:
        return self._service.get(self._ledger + path, query)


def _of(predicate: str | None) -> dict[str, str]:
    return {} if predicate is None else {"predicate": predicate}


def _path(entity: str, view: str = "") -> str:
    return f"/entities/{quote(entity, safe=':')}{view}"
