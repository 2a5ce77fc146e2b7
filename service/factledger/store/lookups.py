"""Look-ups: what the projections hold, each answered from one index range.

Every statement is built once and takes its values as parameters: building them would cost more than running them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from sqlalchemy import ColumnElement, Connection, Select, Table, bindparam, delete, func, select, tuple_

from factledger.core import events
from factledger.core.context import ContextEvent, ContextLog
from factledger.core.evidence import Assertion
from factledger.core.identity import Naming
from factledger.store import schema
from factledger.store.driver import insert_new_rows
from factledger.store.log import chunks

Slot = tuple[str, str]  # (subject as posted, predicate)


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


def _own(table: Table) -> ColumnElement[bool]:
    """Return the condition that a row belongs to the ledger and generation asked for."""
    return (table.c.ledger_id == bindparam("ledger_id")) & (table.c.generation == bindparam("generation"))


def _last(table: Table) -> Any:
    """Return the last position below a size in the slot that the outer statement is at."""
    return (
        select(func.max(table.c.position))
        .where(
            _own(table),
            table.c.subject == schema.slots.c.subject,
            table.c.predicate == schema.slots.c.predicate,
            table.c.position < bindparam("size"),
        )
        .scalar_subquery()
    )


_MATCHED = 10_000  # positions held at once


def _each_once(slots: Select[Any]) -> Select[Any]:
    """Return a query for up to `limit` different ones of these slots.

    The inner limit, which is none, keeps SQLite from walking the whole primary key for the sake of the order.
    """
    found = slots.limit(sys.maxsize).subquery()
    return select(found.c.subject, found.c.predicate).distinct().limit(bindparam("limit"))


_ASSERTIONS = schema.assertions

_CONTEXT = (
    select(schema.context.c.position, schema.context.c.type, schema.context.c.data, schema.context.c.targets)
    .where(
        _own(schema.context),
        schema.context.c.position >= bindparam("from_position"),
        schema.context.c.position < bindparam("size"),
    )
    .order_by(schema.context.c.position)
)
_NAMES = select(schema.names.c.entity, schema.names.c.position, schema.names.c.ordinal).where(
    _own(schema.names), schema.names.c.entity.in_(bindparam("entities", expanding=True))
)
# Sorted by whoever asks: to have it sorted, SQLite would walk all slots by predicate.
_SLOTS = select(schema.slots.c.subject, schema.slots.c.predicate, _last(_ASSERTIONS), _last(schema.touches)).where(
    _own(schema.slots),
    schema.slots.c.subject.in_(bindparam("subjects", expanding=True)),
    schema.slots.c.first_position < bindparam("size"),
)
_SUBJECTS = (
    select(schema.slots.c.subject)
    .distinct()
    .where(
        _own(schema.slots),
        schema.slots.c.subject > bindparam("after"),
        schema.slots.c.first_position < bindparam("size"),
    )
    .order_by(schema.slots.c.subject)
    .limit(bindparam("limit"))
)
_KNOWN_SUBJECTS = (
    select(schema.slots.c.subject)
    .distinct()
    .where(
        _own(schema.slots),
        schema.slots.c.subject.in_(bindparam("subjects", expanding=True)),
        schema.slots.c.first_position < bindparam("size"),
    )
)
_SLOT = (
    select(_ASSERTIONS.c.inputs)
    .where(
        _own(_ASSERTIONS),
        _ASSERTIONS.c.subject == bindparam("subject"),
        _ASSERTIONS.c.predicate == bindparam("predicate"),
        _ASSERTIONS.c.position >= bindparam("from_position"),
        _ASSERTIONS.c.position < bindparam("size"),
    )
    .order_by(_ASSERTIONS.c.position)
)
_ENTITY = (
    select(_ASSERTIONS.c.predicate, _ASSERTIONS.c.inputs)
    .where(
        _own(_ASSERTIONS),
        _ASSERTIONS.c.subject == bindparam("subject"),
        _ASSERTIONS.c.position < bindparam("size"),
    )
    .order_by(_ASSERTIONS.c.predicate, _ASSERTIONS.c.position)
)
_TOUCHED = (
    select(schema.touches.c.position)
    .where(
        _own(schema.touches),
        schema.touches.c.subject == bindparam("subject"),
        schema.touches.c.predicate == bindparam("predicate"),
        schema.touches.c.position < bindparam("size"),
    )
    .order_by(schema.touches.c.position)
)
_RETRACTED_BY = select(
    schema.retractions.c.target,
    schema.retractions.c.position,
    schema.retractions.c.by_subject,
    schema.retractions.c.by_predicate,
).where(
    _own(schema.retractions),
    schema.retractions.c.target.in_(bindparam("targets", expanding=True)),
    schema.retractions.c.position < bindparam("size"),
)
_ASSERTED = select(schema.events.c.data).where(
    schema.events.c.ledger_id == bindparam("ledger_id"),
    schema.events.c.position >= bindparam("from_position"),
    schema.events.c.position < bindparam("size"),
    schema.events.c.type == events.ASSERTION,
)
_REACHED = _each_once(
    select(schema.touches.c.subject, schema.touches.c.predicate).where(
        _own(schema.touches),
        schema.touches.c.position >= bindparam("from_position"),
        schema.touches.c.position < bindparam("size"),
    )
)
_TOUCHED_BY = select(schema.touches.c.position, schema.touches.c.subject, schema.touches.c.predicate).where(
    _own(schema.touches), schema.touches.c.position.in_(bindparam("positions", expanding=True))
)
_NAMING = {
    name: _each_once(
        select(_ASSERTIONS.c.subject, _ASSERTIONS.c.predicate).where(
            _own(_ASSERTIONS),
            _ASSERTIONS.c[name].in_(bindparam("ids", expanding=True)),
            _ASSERTIONS.c.position < bindparam("size"),
        )
    )
    for name in ("source", "outlet", "quoted", "value_entity")
}
_OF_PREDICATE = (  # of any size: the index has no position, and SQLite would rather walk all slots than look it up
    select(schema.slots.c.subject, schema.slots.c.predicate)
    .where(_own(schema.slots), schema.slots.c.predicate == bindparam("predicate"))
    .limit(bindparam("limit"))
)
_NEXT_SLOTS = (
    select(schema.slots.c.subject, schema.slots.c.predicate)
    .where(
        _own(schema.slots),
        tuple_(schema.slots.c.subject, schema.slots.c.predicate) > tuple_(bindparam("subject"), bindparam("predicate")),
        schema.slots.c.first_position < bindparam("size"),
    )
    .order_by(schema.slots.c.subject, schema.slots.c.predicate)
    .limit(bindparam("limit"))
)
_IN_SLOTS = (
    select(_ASSERTIONS.c.subject, _ASSERTIONS.c.inputs)
    .where(
        _own(_ASSERTIONS),
        _ASSERTIONS.c.subject.in_(bindparam("subjects", expanding=True)),
        _ASSERTIONS.c.predicate == bindparam("predicate"),
        _ASSERTIONS.c.position < bindparam("size"),
    )
    .order_by(_ASSERTIONS.c.subject, _ASSERTIONS.c.position)
)
_MEMOS = (
    select(
        schema.beliefs.c.predicate,
        schema.beliefs.c.size,
        schema.beliefs.c.from_us,
        schema.beliefs.c.to_us,
        schema.beliefs.c.basis,
        schema.beliefs.c.body,
    )
    .where(
        _own(schema.beliefs),
        schema.beliefs.c.entity == bindparam("entity"),
        schema.beliefs.c.predicate.in_(bindparam("predicates", expanding=True)),
        schema.beliefs.c.size <= bindparam("size"),
        schema.beliefs.c.from_us <= bindparam("instant"),
        schema.beliefs.c.to_us > bindparam("instant"),
    )
    .order_by(schema.beliefs.c.predicate, schema.beliefs.c.size)
)


def packed(assertion: Assertion) -> bytes:
    """Return an assertion as its row keeps it."""
    return orjson.dumps(tuple(assertion))


def _decoded(rows: Sequence[bytes]) -> list[Assertion]:
    """Return the assertions of a slot, parsed in one go."""
    return list(map(Assertion._make, orjson.loads(b"[" + b",".join(rows) + b"]")))


def _meeting(query: Select[Any], criteria: Mapping[str, Any], size: int) -> Select[Any]:
    """Return a query on assertions narrowed to what a bulk retraction's criteria match below a size."""
    table = _ASSERTIONS
    query = query.where(
        _own(table),
        table.c.position >= criteria.get("from_position", 0),
        table.c.position < min(size, criteria.get("to_position", size) + 1),
    )
    for name in ("source", "outlet", "document_uri", "run", "subject", "predicate"):
        if name in criteria:
            query = query.where(table.c[name] == criteria[name])
    if prefix := criteria.get("source_prefix"):
        query = query.where(table.c.source >= prefix, func.substr(table.c.source, 1, len(prefix)) == prefix)
    return query


class Lookups:
    """The projection of one ledger in one generation, read within one database snapshot."""

    def __init__(self, connection: Connection, ledger_id: str, generation: int) -> None:
        """Name the ledger and the generation whose rows are meant."""
        self._connection = connection
        self._own = {"ledger_id": ledger_id, "generation": generation}

    def _rows(self, statement: Any, **parameters: Any) -> Sequence[Any]:
        return self._connection.execute(statement, {**self._own, **parameters}).all()

    # --- the context

    def extend_context(self, log: ContextLog, size: int) -> None:
        """Bring a context log up to a size."""
        if log.size >= size:
            return
        with log.lock:
            if log.size >= size:
                return
            added = [
                ContextEvent(position, kind, orjson.loads(data), tuple(orjson.loads(targets)))
                for position, kind, data, targets in self._rows(_CONTEXT, from_position=log.size, size=size)
            ]
            judged = {entity for event in added if event.type == events.IDENTITY for entity in event.data["entities"]}
            log.extend(size, added, self.first_named(judged - log.first_named.keys()))

    def first_named(self, entities: Iterable[str]) -> dict[str, Naming]:
        """Return where the log first named these ids, as far as it did."""
        return {
            entity: (position, ordinal)
            for some in chunks(sorted(entities))
            for entity, position, ordinal in self._rows(_NAMES, entities=some)
        }

    # --- slots

    def slots(self, subjects: Sequence[str], size: int) -> list[SlotState]:
        """Return every slot that these subjects have below a size, by predicate, then subject.

        Each comes with the last assertion in it, and the last retraction or correction that reaches it.
        """
        found = map(SlotState._make, self._rows(_SLOTS, subjects=subjects, size=size))
        return sorted(found, key=lambda state: (state.predicate, state.subject))

    def subjects(self, after: str, size: int, limit: int) -> list[str]:
        """Return up to `limit` subjects as posted that follow a given one in order, and have a slot."""
        return [row[0] for row in self._rows(_SUBJECTS, after=after, size=size, limit=limit)]

    def known_subjects(self, subjects: Sequence[str], size: int) -> set[str]:
        """Return those of these subjects that have a slot."""
        return {row[0] for some in chunks(subjects) for row in self._rows(_KNOWN_SUBJECTS, subjects=some, size=size)}

    def assertions(self, subject: str, predicate: str, from_position: int, size: int) -> list[Assertion]:
        """Return a slot's assertions at from_position .. size - 1, in order: one range of the primary key."""
        rows = self._rows(_SLOT, subject=subject, predicate=predicate, from_position=from_position, size=size)
        return _decoded([inputs for (inputs,) in rows])

    def assertions_about(self, subject: str, size: int) -> dict[str, list[Assertion]]:
        """Return all of a subject's assertions below a size by predicate: one range of the primary key."""
        packed: dict[str, list[bytes]] = {}
        for predicate, inputs in self._rows(_ENTITY, subject=subject, size=size):
            packed.setdefault(predicate, []).append(inputs)
        return {predicate: _decoded(rows) for predicate, rows in packed.items()}

    def touched(self, subject: str, predicate: str, size: int) -> list[int]:
        """Return the positions below a size whose retraction or correction reaches the slot, rising."""
        return [row[0] for row in self._rows(_TOUCHED, subject=subject, predicate=predicate, size=size)]

    def retracted_by(self, targets: Sequence[int], size: int) -> list[tuple[int, int, Slot | None]]:
        """Return (target, position, slot of a correction) of what below a size targets these positions."""
        return [
            (target, position, None if subject is None else (subject, predicate))
            for some in chunks(targets)
            for target, position, subject, predicate in self._rows(_RETRACTED_BY, targets=some, size=size)
        ]

    def matching(self, criteria: Mapping[str, Any], from_position: int, size: int) -> Iterator[Sequence[int]]:
        """Yield, many at a time, the positions of the assertions that a bulk retraction's criteria match, rising.

        Only those at from_position .. size - 1.
        """
        query = _meeting(select(_ASSERTIONS.c.position), criteria, size)
        query = query.where(_ASSERTIONS.c.position >= from_position).order_by(_ASSERTIONS.c.position)
        found = self._connection.execute(query.execution_options(yield_per=_MATCHED), self._own)
        for rows in found.partitions():
            yield [position for (position,) in rows]

    # --- which slots an event may touch

    def slots_asserted(self, from_position: int, size: int) -> set[Slot]:
        """Return the slots of the assertions at from_position .. size - 1."""
        rows = self._rows(_ASSERTED, from_position=from_position, size=size)
        contents = orjson.loads(b"[" + b",".join(data for (data,) in rows if data is not None) + b"]")
        return {(data["subject"], data["predicate"]) for data in contents}

    def slots_reached(self, from_position: int, size: int, limit: int) -> set[Slot]:
        """Return the slots that the retractions and corrections at from_position .. size - 1 reach, up to a limit."""
        rows = self._rows(_REACHED, from_position=from_position, size=size, limit=limit)
        return {(subject, predicate) for subject, predicate in rows}

    def touched_by(self, positions: Sequence[int]) -> dict[int, set[Slot]]:
        """Return, by position, the slots that these retractions and corrections reach."""
        reached: dict[int, set[Slot]] = {}
        for some in chunks(positions):
            for position, subject, predicate in self._rows(_TOUCHED_BY, positions=some):
                reached.setdefault(position, set()).add((subject, predicate))
        return reached

    def slots_naming(self, ids: Iterable[str], roles: Iterable[str], size: int, limit: int) -> set[Slot]:
        """Return the slots with an assertion below a size that names one of these ids in one of these roles.

        Roles: source, outlet, quoted (a speaker who is not the outlet), value_entity. If as many as `limit` are
        returned there may be more.
        """
        found: set[Slot] = set()
        for some in chunks(sorted(ids)):
            for role in roles:
                rows = self._rows(_NAMING[role], ids=some, size=size, limit=limit)
                found.update((subject, predicate) for subject, predicate in rows)
                if len(found) >= limit:
                    return found
        return found

    def slots_of_predicate(self, predicate: str, limit: int) -> set[Slot]:
        """Return the slots of a predicate at any size, up to a limit."""
        rows = self._rows(_OF_PREDICATE, predicate=predicate, limit=limit)
        return {(subject, predicate) for subject, predicate in rows}

    def slots_matching(self, criteria: Mapping[str, Any], size: int, limit: int) -> set[Slot]:
        """Return the slots with an assertion that a bulk retraction's criteria match, and what those had corrected.

        If as many as `limit` are returned there may be more.
        """
        table, touches = _ASSERTIONS, schema.touches
        matched = select(table.c.subject, table.c.predicate)
        corrected = select(touches.c.subject, touches.c.predicate).join(
            table, _own(touches) & (touches.c.position == table.c.position)
        )
        found: set[Slot] = set()
        for query in (matched, corrected):
            rows = self._rows(_each_once(_meeting(query, criteria, size)), limit=limit)
            found.update((subject, predicate) for subject, predicate in rows)
        return found

    def slots_after(self, last: Slot, size: int, limit: int) -> list[Slot]:
        """Return up to `limit` slots that follow a given one in order."""
        rows = self._rows(_NEXT_SLOTS, subject=last[0], predicate=last[1], size=size, limit=limit)
        return [(subject, predicate) for subject, predicate in rows]

    def assertions_in(self, wanted: Iterable[Slot], size: int) -> dict[Slot, list[Assertion]]:
        """Return the assertions below a size of several slots, each in order."""
        packed: dict[Slot, list[bytes]] = {}
        by_predicate: dict[str, list[str]] = {}
        for subject, predicate in sorted(wanted):
            by_predicate.setdefault(predicate, []).append(subject)
        for predicate, subjects in by_predicate.items():  # pairs in one list would not be looked up by SQLite's index
            for some in chunks(subjects):
                for subject, inputs in self._rows(_IN_SLOTS, subjects=some, predicate=predicate, size=size):
                    packed.setdefault((subject, predicate), []).append(inputs)
        return {slot: _decoded(rows) for slot, rows in packed.items()}

    # --- the memo

    def remembered(self, entity: str, predicates: Sequence[str], size: int, instant: int) -> dict[str, Remembered]:
        """Return, by predicate, the newest memo at or below a size whose piece of valid time holds the instant."""
        return {
            predicate: Remembered(*memo)
            for some in chunks(predicates)
            for predicate, *memo in self._rows(_MEMOS, entity=entity, predicates=some, size=size, instant=instant)
        }


class Memo:
    """The memo of one ledger in one generation, written in the caller's transaction."""

    def __init__(self, connection: Connection, ledger_id: str, generation: int) -> None:
        """Name the ledger and the generation whose memos are meant."""
        self._connection = connection
        self._own = {"ledger_id": ledger_id, "generation": generation}

    def remember(self, memos: Sequence[tuple[str, str, Remembered]]) -> None:
        """Keep beliefs by (canonical entity, predicate), each in place of what the slot's memo was."""
        table = schema.beliefs
        one_slot = _own(table) & (table.c.entity == bindparam("of")) & (table.c.predicate == bindparam("in"))
        self._connection.execute(delete(table).where(one_slot), [{**self._own, "of": e, "in": p} for e, p, _ in memos])
        owner = (self._own["ledger_id"], self._own["generation"])
        rows = [(*owner, e, p, m.size, m.valid_from, m.valid_to, m.basis, m.body) for e, p, m in memos]
        insert_new_rows(self._connection, table, rows)

    def forget(self) -> None:
        """Drop every memo; answers stay the same, only slower for a while."""
        self._connection.execute(delete(schema.beliefs).where(_own(schema.beliefs)), self._own)
