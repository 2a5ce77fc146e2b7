"""The projections: the inputs of belief, kept insert-only by position, and the memo of its answers.

No row depends on a later event, so nothing is ever rewritten: a rating, a merge or a retraction writes a row or
a few, and a read at any size ignores the rows at or above it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, Table, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from factledger.core import encoding, events, facts, times
from factledger.core.context import ContextEvent, ContextLog
from factledger.core.evidence import Assertion
from factledger.core.identity import Naming
from factledger.store import schema
from factledger.store.log import Recorded, chunks

Slot = tuple[str, str]  # (subject as posted, predicate)


@dataclass(frozen=True, slots=True)
class Target:
    """What a retraction or correction points at: a position and, if it is an assertion, its slot."""

    position: int
    type: str
    slot: Slot | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A recorded event with its content parsed and its targets resolved: all that projecting needs."""

    position: int
    recorded_at: int
    type: str
    source: str
    time: str | None
    data: Mapping[str, Any]
    targets: tuple[Target, ...] = ()


def target_of(event: Recorded) -> Target:
    """Return a stored event as a target."""
    if event.type != events.ASSERTION:
        return Target(event.position, event.type, None)
    data = event.content()
    return Target(event.position, event.type, (data["subject"], data["predicate"]))


def context_event(entry: Entry) -> ContextEvent | None:
    """Return what an event adds to the context, or None: assertions, and retractions of assertions only."""
    if entry.type == events.ASSERTION:
        return None
    beyond = tuple(target.position for target in entry.targets if target.slot is None)
    if entry.type == events.RETRACTION and not beyond and "where" not in entry.data:
        return None
    return ContextEvent(entry.position, entry.type, entry.data, beyond)


def assertion_of(entry: Entry) -> Assertion:
    """Return an assertion as the projection keeps it."""
    data, provenance = entry.data, entry.data["provenance"]
    asserted_at = events.asserted_at(data, entry.time, entry.recorded_at)
    span = times.resolve_span(data.get("valid"), asserted_at)
    speakers = provenance.get("speakers")
    return Assertion(
        entry.position,
        data.get("polarity", "affirms") == "affirms",
        facts.value_key(data["value"]),
        speakers[0] if speakers else provenance["outlet"],
        provenance["outlet"],
        entry.source,
        asserted_at,
        int(span.start_kind),
        span.starts_earliest,
        span.starts_latest,
        int(span.end_kind),
        span.ends_earliest,
        span.ends_latest,
        events.CERTAINTIES.index(data.get("certainty", "certain")),
        float(data.get("confidence", 1)),
        provenance.get("document", {}).get("uri"),
        provenance.get("method", {}).get("run"),
        data.get("valid"),
    )


_ASSERTION_COLUMNS = (
    schema.assertions.c.position,
    schema.assertions.c.affirms,
    schema.assertions.c.value_key,
    schema.assertions.c.speaker,
    schema.assertions.c.outlet,
    schema.assertions.c.source,
    schema.assertions.c.asserted_at_us,
    schema.assertions.c.start_kind,
    schema.assertions.c.starts_earliest_us,
    schema.assertions.c.starts_latest_us,
    schema.assertions.c.end_kind,
    schema.assertions.c.ends_earliest_us,
    schema.assertions.c.ends_latest_us,
    schema.assertions.c.certainty,
    schema.assertions.c.confidence,
    schema.assertions.c.document_uri,
    schema.assertions.c.run,
    schema.assertions.c.valid,
)
_ASSERTION_NAMES = [column.name for column in _ASSERTION_COLUMNS]


class Projection:
    """The projection of one ledger in one generation: writing within the caller's transaction, and reading."""

    def __init__(self, ledger_id: str, generation: int) -> None:
        """Name the ledger and the generation whose rows are meant."""
        self.ledger_id = ledger_id
        self.generation = generation
        self._key = {"ledger_id": ledger_id, "generation": generation}

    # --- writing

    def apply(self, connection: Connection, entries: Sequence[Entry]) -> None:
        """Project events in order, set by set, and move the cursor; the transaction is the caller's."""
        rows: dict[Table, list[dict[str, Any]]] = {table: [] for table in schema.PROJECTIONS}
        slots: dict[Slot, int] = {}
        names: dict[str, Naming] = {}
        for entry in entries:
            for ordinal, name in enumerate(events.named_ids(entry.source, entry.data)):
                names.setdefault(name, (entry.position, ordinal))
            by: Slot | None = None
            if entry.type == events.ASSERTION:
                by = (entry.data["subject"], entry.data["predicate"])
                slots.setdefault(by, entry.position)
                columns = dict(zip(_ASSERTION_NAMES, assertion_of(entry), strict=True))
                rows[schema.assertions].append({**self._key, "subject": by[0], "predicate": by[1], **columns})
            elif (added := context_event(entry)) is not None:
                rows[schema.context].append(
                    {
                        **self._key,
                        "position": added.position,
                        "type": added.type,
                        "data": encoding.canonical_bytes(added.data),
                        "targets": orjson.dumps(added.targets),
                    }
                )
            for target in entry.targets:
                rows[schema.retractions].append(
                    {
                        **self._key,
                        "target": target.position,
                        "position": entry.position,
                        "target_subject": target.slot and target.slot[0],
                        "target_predicate": target.slot and target.slot[1],
                        "by_subject": by and by[0],
                        "by_predicate": by and by[1],
                    }
                )
        for table in (schema.assertions, schema.context, schema.retractions):
            if rows[table]:
                connection.execute(insert(table), rows[table])
        self._insert_first(
            connection,
            schema.slots,
            [
                {**self._key, "subject": subject, "predicate": predicate, "first_position": position}
                for (subject, predicate), position in sorted(slots.items())
            ],
        )
        self._insert_first(
            connection,
            schema.names,
            [
                {**self._key, "entity": name, "position": position, "ordinal": ordinal}
                for name, (position, ordinal) in sorted(names.items())
            ],
        )
        for entry in entries:
            if entry.targets:
                self._touch(connection, entry)

    def _insert_first(self, connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
        """Insert rows whose key is not there yet: the first naming of an id stands for ever."""
        if rows:
            dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
            connection.execute(dialect.insert(table).on_conflict_do_nothing(), rows)

    def _touch(self, connection: Connection, entry: Entry) -> None:
        """Record every slot whose belief an event with targets may change, through chains of retractions."""
        table = schema.retractions
        reached: set[Slot] = set()
        met: set[int] = set()
        pending = list(entry.targets)
        while pending:
            reached.update(target.slot for target in pending if target.slot is not None)
            positions = [target.position for target in pending if target.position not in met]
            met.update(positions)
            pending = []
            for some in chunks(positions):
                query = select(table.c.target, table.c.target_subject, table.c.target_predicate).where(
                    table.c.ledger_id == self.ledger_id,
                    table.c.generation == self.generation,
                    table.c.position.in_(some),
                )
                for position, subject, predicate in connection.execute(query):
                    pending.append(Target(position, "", None if subject is None else (subject, predicate)))
        rows = [
            {**self._key, "subject": subject, "predicate": predicate, "position": entry.position}
            for subject, predicate in sorted(reached)
        ]
        if rows:
            connection.execute(insert(schema.touches), rows)

    def drop(self, connection: Connection) -> None:
        """Delete every row of this generation, the memo's too."""
        for table in (*schema.PROJECTIONS, schema.beliefs):
            connection.execute(
                delete(table).where(table.c.ledger_id == self.ledger_id, table.c.generation == self.generation)
            )

    # --- reading

    def extend_context(self, connection: Connection, log: ContextLog, size: int) -> None:
        """Bring a context log up to a size."""
        with log.lock:
            self._extend(connection, log, size)

    def _extend(self, connection: Connection, log: ContextLog, size: int) -> None:
        if log.size >= size:
            return
        table = schema.context
        query = (
            select(table.c.position, table.c.type, table.c.data, table.c.targets)
            .where(
                table.c.ledger_id == self.ledger_id,
                table.c.generation == self.generation,
                table.c.position >= log.size,
                table.c.position < size,
            )
            .order_by(table.c.position)
        )
        added = [
            ContextEvent(position, kind, orjson.loads(data), tuple(orjson.loads(targets)))
            for position, kind, data, targets in connection.execute(query)
        ]
        judged = {entity for event in added if event.type == events.IDENTITY for entity in event.data["entities"]}
        log.extend(size, added, self.first_named(connection, judged - log.first_named.keys()))

    def first_named(self, connection: Connection, entities: Iterable[str]) -> dict[str, Naming]:
        """Return where the log first named these ids, as far as it did."""
        table = schema.names
        found: dict[str, Naming] = {}
        for some in chunks(sorted(entities)):
            query = select(table.c.entity, table.c.position, table.c.ordinal).where(
                table.c.ledger_id == self.ledger_id,
                table.c.generation == self.generation,
                table.c.entity.in_(some),
            )
            found.update((entity, (position, ordinal)) for entity, position, ordinal in connection.execute(query))
        return found

    def slots(self, connection: Connection, subjects: Sequence[str], size: int) -> list[SlotState]:
        """Return every slot that these subjects have below a size, by predicate, then subject.

        Each comes with the last assertion in it, and the last retraction or correction that reaches it.
        """
        table, own, reached = schema.slots, schema.assertions, schema.touches

        def last(other: Table) -> Any:
            return (
                select(func.max(other.c.position))
                .where(
                    other.c.ledger_id == self.ledger_id,
                    other.c.generation == self.generation,
                    other.c.subject == table.c.subject,
                    other.c.predicate == table.c.predicate,
                    other.c.position < size,
                )
                .scalar_subquery()
            )

        query = (
            select(table.c.subject, table.c.predicate, last(own), last(reached))
            .where(
                table.c.ledger_id == self.ledger_id,
                table.c.generation == self.generation,
                table.c.subject.in_(subjects),
                table.c.first_position < size,
            )
            .order_by(table.c.predicate, table.c.subject)
        )
        return [SlotState._make(row) for row in connection.execute(query)]

    def subjects(self, connection: Connection, after: str, size: int, limit: int) -> list[str]:
        """Return up to `limit` subjects as posted that follow a given one in order, and have a slot."""
        table = schema.slots
        query = (
            select(table.c.subject)
            .distinct()
            .where(
                table.c.ledger_id == self.ledger_id,
                table.c.generation == self.generation,
                table.c.subject > after,
                table.c.first_position < size,
            )
            .order_by(table.c.subject)
            .limit(limit)
        )
        return list(connection.execute(query).scalars())

    def known_subjects(self, connection: Connection, subjects: Sequence[str], size: int) -> list[str]:
        """Return those of these subjects that have a slot."""
        table = schema.slots
        found: list[str] = []
        for some in chunks(subjects):
            query = (
                select(table.c.subject)
                .distinct()
                .where(
                    table.c.ledger_id == self.ledger_id,
                    table.c.generation == self.generation,
                    table.c.subject.in_(some),
                    table.c.first_position < size,
                )
            )
            found.extend(connection.execute(query).scalars())
        return found

    def assertions(
        self, connection: Connection, subject: str, predicate: str, from_position: int, size: int
    ) -> list[Assertion]:
        """Return a slot's assertions at from_position .. size - 1, in order: one range of the primary key."""
        table = schema.assertions
        query = (
            select(*_ASSERTION_COLUMNS)
            .where(
                table.c.ledger_id == self.ledger_id,
                table.c.generation == self.generation,
                table.c.subject == subject,
                table.c.predicate == predicate,
                table.c.position >= from_position,
                table.c.position < size,
            )
            .order_by(table.c.position)
        )
        return [Assertion._make(row) for row in connection.execute(query)]

    def touched(self, connection: Connection, subject: str, predicate: str, size: int) -> list[int]:
        """Return the positions below a size whose retraction or correction reaches the slot."""
        table = schema.touches
        query = (
            select(table.c.position)
            .where(
                table.c.ledger_id == self.ledger_id,
                table.c.generation == self.generation,
                table.c.subject == subject,
                table.c.predicate == predicate,
                table.c.position < size,
            )
            .order_by(table.c.position)
        )
        return list(connection.execute(query).scalars())

    def retracted_by(
        self, connection: Connection, targets: Sequence[int], size: int
    ) -> list[tuple[int, int, Slot | None]]:
        """Return (target, position, slot of a correction) of what below a size targets these positions."""
        table = schema.retractions
        found: list[tuple[int, int, Slot | None]] = []
        for some in chunks(targets):
            query = select(table.c.target, table.c.position, table.c.by_subject, table.c.by_predicate).where(
                table.c.ledger_id == self.ledger_id,
                table.c.generation == self.generation,
                table.c.target.in_(some),
                table.c.position < size,
            )
            for target, position, subject, predicate in connection.execute(query):
                found.append((target, position, None if subject is None else (subject, predicate)))
        return found

    def matching(self, connection: Connection, criteria: Mapping[str, Any], size: int) -> Iterator[int]:
        """Yield the positions below a size of the assertions that a bulk retraction's criteria match, rising."""
        table = schema.assertions
        query = select(table.c.position).where(
            table.c.ledger_id == self.ledger_id,
            table.c.generation == self.generation,
            table.c.position >= criteria.get("from_position", 0),
            table.c.position < min(size, criteria.get("to_position", size) + 1),
        )
        for name in ("source", "outlet", "document_uri", "run", "subject", "predicate"):
            if name in criteria:
                query = query.where(table.c[name] == criteria[name])
        if prefix := criteria.get("source_prefix"):
            query = query.where(table.c.source >= prefix, func.substr(table.c.source, 1, len(prefix)) == prefix)
        streamed = connection.execution_options(yield_per=10_000)
        yield from streamed.execute(query.order_by(table.c.position)).scalars()

    def digest(self, connection: Connection, size: int) -> str:
        """Return a SHA-256 over every row that events below a size left, table by table in key order."""
        whole = hashlib.sha256()
        for table in schema.PROJECTIONS:
            columns = [c for c in table.c if c.name not in ("ledger_id", "generation")]
            position = table.c["first_position" if table is schema.slots else "position"]
            keys = [c for c in table.primary_key.columns if c.name not in ("ledger_id", "generation")]
            query = (
                select(*columns)
                .where(
                    table.c.ledger_id == self.ledger_id,
                    table.c.generation == self.generation,
                    position < size,
                )
                .order_by(*keys)
            )
            whole.update(table.name.encode())
            for row in connection.execution_options(yield_per=1000).execute(query):
                whole.update(repr(tuple(bytes(v) if isinstance(v, memoryview) else v for v in row)).encode())
        return whole.hexdigest()

    # --- the memo

    def remembered(
        self, connection: Connection, entity: str, predicate: str, size: int, instant: int
    ) -> Remembered | None:
        """Return the newest memo of a slot at or below a size whose piece of valid time holds the instant."""
        table = schema.beliefs
        query = (
            select(table.c.size, table.c.from_us, table.c.to_us, table.c.basis, table.c.body)
            .where(
                table.c.ledger_id == self.ledger_id,
                table.c.generation == self.generation,
                table.c.entity == entity,
                table.c.predicate == predicate,
                table.c.size <= size,
                table.c.from_us <= instant,
                table.c.to_us > instant,
            )
            .order_by(table.c.size.desc())
            .limit(1)
        )
        row = connection.execute(query).one_or_none()
        return None if row is None else Remembered(*row)

    def remember(self, connection: Connection, memos: Iterable[tuple[str, str, Remembered]]) -> None:
        """Keep beliefs by (canonical entity, predicate); what is already there stays as it is."""
        self._insert_first(
            connection,
            schema.beliefs,
            [
                {
                    **self._key,
                    "entity": entity,
                    "predicate": predicate,
                    "size": memo.size,
                    "from_us": memo.valid_from,
                    "to_us": memo.valid_to,
                    "basis": memo.basis,
                    "body": memo.body,
                }
                for entity, predicate, memo in memos
            ],
        )

    def forget(self, connection: Connection) -> None:
        """Drop every memo; answers stay the same, only slower for a while."""
        table = schema.beliefs
        connection.execute(
            delete(table).where(table.c.ledger_id == self.ledger_id, table.c.generation == self.generation)
        )


class SlotState(NamedTuple):
    """A slot as posted, and the positions that last changed it below some size."""

    subject: str
    predicate: str
    last_assertion: int
    last_touch: int | None


@dataclass(frozen=True, slots=True)
class Remembered:
    """A memo: the belief in one slot as of a size, over valid times in [valid_from, valid_to)."""

    size: int
    valid_from: int
    valid_to: int
    basis: bytes
    body: bytes


def advance(connection: Connection, ledger_id: str, projected_size: int, generation: int) -> None:
    """Move the cursor of a ledger's projection, or swap the generation that is read."""
    connection.execute(
        update(schema.ledgers)
        .where(schema.ledgers.c.ledger_id == ledger_id)
        .values(projected_size=projected_size, generation=generation)
    )
