"""The log: one totally ordered, append-only sequence of events a ledger.

Positions come from the ledger's head row under its lock, never from a sequence, so that no position is skipped
and none becomes visible before a smaller one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, Select, select, update

from factledger.core import encoding, events, merkle
from factledger.core.errors import Category, LedgerError
from factledger.store import schema
from factledger.store.driver import execute, insert_new_rows, insert_rows

CHUNK = 500  # parameters in one IN list


@dataclass(frozen=True, slots=True)
class Head:
    """The head row of a ledger: how much there is, and what the next append continues from."""

    ledger_id: str
    strict: bool
    created_at: int
    size: int
    recorded_at: int  # of the last event, or of the ledger's creation
    frontier: merkle.Frontier
    projected_size: int
    generation: int


class Recorded(NamedTuple):
    """An event as it is stored: envelope and data are the canonical bytes that were hashed."""

    position: int
    type: str
    source: str
    id: str
    recorded_at: int
    envelope: bytes
    data: bytes
    salt: bytes

    def content(self) -> dict[str, Any]:
        """Return the data, parsed."""
        parsed: dict[str, Any] = orjson.loads(self.data)
        return parsed

    def attributes(self) -> dict[str, Any]:
        """Return the envelope, parsed: all but data, datasalt and inforce."""
        parsed: dict[str, Any] = orjson.loads(self.envelope)
        return parsed


_COLUMNS = (
    schema.events.c.position,
    schema.events.c.type,
    schema.events.c.source,
    schema.events.c.id,
    schema.events.c.recorded_at_us,
    schema.events.c.envelope,
    schema.events.c.data,
    schema.events.c.salt,
)


_HEAD_COLUMNS = "ledger_id, strict, created_at_us, size, recorded_at_us, frontier, projected_size, generation"
_HEAD = f"SELECT {_HEAD_COLUMNS} FROM ledgers WHERE ledger_id = ?"  # noqa: S608
_LOCKED = {"sqlite": _HEAD, "postgresql": _HEAD + " FOR UPDATE"}  # SQLite has one writer, and this is it
_MOVE_HEAD = "UPDATE ledgers SET size = ?, recorded_at_us = ?, frontier = ?, projected_size = ? WHERE ledger_id = ?"


def create(connection: Connection, ledger_id: str, *, strict: bool, created_at: int) -> bool:
    """Record a new, empty ledger unless there is one of that name; tell whether it is new."""
    # A size of -1 is never committed: the update below is what only its maker does.
    insert_new_rows(connection, schema.ledgers, [(ledger_id, strict, created_at, -1, created_at, b"", 0, 1)])
    own = (schema.ledgers.c.ledger_id == ledger_id) & (schema.ledgers.c.size == -1)
    return connection.execute(update(schema.ledgers).where(own).values(size=0)).rowcount == 1


def head(connection: Connection, ledger_id: str, *, lock: bool = False) -> Head:
    """Return the head of a ledger; with `lock`, no other append can move it until the transaction ends.

    Raises:
        LedgerError: `ledger-not-found`.
    """
    rows = execute(connection, _LOCKED[connection.dialect.name] if lock else _HEAD, (ledger_id,))
    if not rows:
        raise LedgerError(Category.NOT_FOUND, "ledger-not-found", "There is no ledger of this name.")
    return _head(*rows[0])


def heads(connection: Connection) -> list[Head]:
    """Return the heads of all ledgers, by name."""
    return [_head(*row) for row in execute(connection, f"SELECT {_HEAD_COLUMNS} FROM ledgers ORDER BY ledger_id", ())]  # noqa: S608


def _head(ledger: str, strict: int, created_at: int, size: int, recorded_at: int, frontier: bytes, *rest: int) -> Head:
    edge = merkle.Frontier.from_bytes(size, frontier)
    return Head(ledger, bool(strict), created_at, size, recorded_at, edge, *rest)


def seal(
    draft: events.Draft,
    data_bytes: bytes,
    *,
    ledger_id: str,
    position: int,
    recorded_at: int,
    recorded_at_text: str,
    recorded_by: str,
    salt: bytes,
) -> Recorded:
    """Return the event as it will be stored: its envelope commits to position, times and salted content."""
    envelope = {
        **draft.attributes,
        "ledger": ledger_id,
        "position": position,
        "recordedat": recorded_at_text,
        "recordedby": recorded_by,
        "datasha256": encoding.data_sha256(salt, data_bytes),
    }
    return Recorded(
        position,
        draft.type,
        draft.source,
        draft.id,
        recorded_at,
        encoding.canonical_bytes(envelope),
        data_bytes,
        salt,
    )


def append(connection: Connection, before: Head, recorded: Sequence[Recorded]) -> None:
    """Store events at the positions that follow the locked head, and move the head.

    The projection is as far as the log once the transaction commits, for it is written in the same. A failed call
    leaves the transaction to be rolled back: nothing is stored.
    """
    insert_rows(
        connection,
        schema.events,
        [
            (before.ledger_id, e.position, e.source, e.id, e.type, e.recorded_at, e.envelope, e.data, e.salt)
            for e in recorded
        ],
    )
    frontier = before.frontier.extended(merkle.leaf_hash(event.envelope) for event in recorded)
    size, recorded_at = frontier.size, recorded[-1].recorded_at
    execute(connection, _MOVE_HEAD, (size, recorded_at, frontier.to_bytes(), size, before.ledger_id))


def chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield the items in runs that fit one IN list."""
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


def _seeks(condition: Mapping[str, str]) -> dict[str, str]:
    """Return, by dialect, the statement that seeks an event for each item of one JSON list.

    One parameter however many are sought: a statement of its own for each number would have to be made, and planned.
    """
    lists = {"sqlite": "json_each(?)", "postgresql": "jsonb_array_elements(?::jsonb)"}
    columns = ", ".join(f"e.{column.name}" for column in _COLUMNS)
    return {
        # SQLite keeps the order of a CROSS JOIN: first the list, then one seek for each of its items.
        dialect: f"SELECT {columns} FROM {lists[dialect]} AS w CROSS JOIN events AS e "  # noqa: S608
        f"WHERE e.ledger_id = ? AND {condition[dialect]}"
        for dialect in lists
    }


_AT_POSITIONS = _seeks(
    {"sqlite": "e.position = w.value", "postgresql": "e.position = CAST(CAST(w.value AS text) AS bigint)"}
)
_BY_KEYS = _seeks(
    {
        "sqlite": "e.source = json_extract(w.value, '$[0]') AND e.id = json_extract(w.value, '$[1]')",
        "postgresql": "e.source = w.value ->> 0 AND e.id = w.value ->> 1",
    }
)


def _sought(
    connection: Connection, statements: Mapping[str, str], ledger_id: str, wanted: Collection[Any]
) -> list[Recorded]:
    if not wanted:
        return []
    listed = orjson.dumps(sorted(wanted)).decode()
    return [Recorded(*row) for row in execute(connection, statements[connection.dialect.name], (listed, ledger_id))]


def at_positions(connection: Connection, ledger_id: str, positions: Collection[int]) -> dict[int, Recorded]:
    """Return the events at these positions, as far as they exist."""
    return {e.position: e for e in _sought(connection, _AT_POSITIONS, ledger_id, positions)}


def by_keys(
    connection: Connection, ledger_id: str, keys: Collection[tuple[str, str]]
) -> dict[tuple[str, str], Recorded]:
    """Return the events that producers know by these (source, id), as far as they exist."""
    return {(e.source, e.id): e for e in _sought(connection, _BY_KEYS, ledger_id, keys)}


def scan(connection: Connection, ledger_id: str, from_position: int, to_position: int) -> list[Recorded]:
    """Return the events at from_position .. to_position - 1, in order."""
    query = (
        select(*_COLUMNS)
        .where(
            schema.events.c.ledger_id == ledger_id,
            schema.events.c.position >= from_position,
            schema.events.c.position < to_position,
        )
        .order_by(schema.events.c.position)
    )
    return [Recorded(*row) for row in connection.execute(query)]


def find(
    connection: Connection,
    ledger_id: str,
    generation: int,
    *,
    from_position: int,
    to_position: int,
    limit: int,
    criteria: Mapping[str, str],
) -> list[Recorded]:
    """Return up to `limit` events from a position on that meet all criteria, in order.

    Criteria on what only assertions have (subject, predicate, outlet, document_uri) are answered from their
    projection, by its indexes.
    """
    log, slots = schema.events, schema.assertions
    query: Select[Any] = select(*_COLUMNS).where(log.c.ledger_id == ledger_id)
    position = log.c.position
    of_assertions = {name: value for name, value in criteria.items() if name not in ("type", "source")}
    if of_assertions:
        position = slots.c.position
        query = query.join(slots, (slots.c.ledger_id == log.c.ledger_id) & (slots.c.position == log.c.position)).where(
            slots.c.ledger_id == ledger_id, slots.c.generation == generation
        )
        for name, value in of_assertions.items():
            query = query.where(slots.c[name] == value)
    if "source" in criteria:
        query = query.where((slots if of_assertions else log).c.source == criteria["source"])
    if "type" in criteria:
        query = query.where(log.c.type == criteria["type"])
        if criteria["type"] != events.ASSERTION:  # lets the planner use the partial index
            query = query.where(log.c.type != events.ASSERTION)
    query = query.where(position >= from_position, position < to_position)
    return [Recorded(*row) for row in connection.execute(query.order_by(position).limit(limit))]


def size_known_at(connection: Connection, before: Head, instant: int) -> int:
    """Return the largest n whose events were all recorded at or before an instant, by bisection."""

    def recorded_after(position: int) -> bool:
        query = select(schema.events.c.recorded_at_us).where(
            schema.events.c.ledger_id == before.ledger_id, schema.events.c.position == position
        )
        return int(connection.execute(query).scalar_one()) > instant

    return bisect_left(range(before.size), True, key=recorded_after)
