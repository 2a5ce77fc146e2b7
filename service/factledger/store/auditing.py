"""Auditing: stored rows as they are, for whoever holds them against what they should be. It only reads.

Rows that cannot be read are a finding too: whatever the database or its driver says of them becomes
`database-corrupt`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
)
from sqlalchemy.exc import SQLAlchemyError

from factledger.core import events
from factledger.core.errors import Category, LedgerError
from factledger.store import schema
from factledger.store.log import chunks

Row = tuple[Any, ...]

_LOG = schema.events
_EVENTS = (
    select(
        _LOG.c.position,
        _LOG.c.type,
        _LOG.c.source,
        _LOG.c.id,
        _LOG.c.recorded_at_us,
        _LOG.c.envelope,
        _LOG.c.data,
        _LOG.c.salt,
    )
    .where(
        _LOG.c.ledger_id == bindparam("ledger_id"),
        _LOG.c.position >= bindparam("begin"),
        _LOG.c.position < bindparam("end"),
    )
    .order_by(_LOG.c.position)
)
_BEYOND = select(func.count(), func.min(_LOG.c.position)).where(
    _LOG.c.ledger_id == bindparam("ledger_id"),
    or_(_LOG.c.position < 0, _LOG.c.position >= bindparam("size")),
)
_ERASURES = (
    select(_LOG.c.position, _LOG.c.data)
    .where(
        _LOG.c.ledger_id == bindparam("ledger_id"),
        _LOG.c.type == events.ERASURE,
        _LOG.c.type != events.ASSERTION,  # lets the planner use the partial index
    )
    .order_by(_LOG.c.position)
)
_HEAD = select(schema.ledgers).where(schema.ledgers.c.ledger_id == bindparam("ledger_id"))
_SUBTREES = select(schema.subtrees.c.level, schema.subtrees.c.number, schema.subtrees.c.hash).where(
    schema.subtrees.c.ledger_id == bindparam("ledger_id")
)


def _own(table: Table) -> ColumnElement[bool]:
    return (table.c.ledger_id == bindparam("ledger_id")) & (table.c.generation == bindparam("generation"))


def _within(column: Any) -> ColumnElement[bool]:
    return and_(column >= bindparam("begin"), column < bindparam("end"))


def _columns(table: Table) -> list[Any]:
    return [column for column in table.c if column.name not in ("ledger_id", "generation")]


_A, _N, _R, _T, _C = schema.assertions, schema.names, schema.retractions, schema.touches, schema.context
# Each by an index that leads to the rows that a run of events should have left.
_OF_EVENTS: Mapping[Table, Any] = {
    _A: select(*_columns(_A)).where(
        _own(_A), _A.c.source.in_(bindparam("keys", expanding=True)), _within(_A.c.position)
    ),
    _R: select(*_columns(_R)).where(
        _own(_R), _R.c.target.in_(bindparam("keys", expanding=True)), _within(_R.c.position)
    ),
    _T: select(*_columns(_T)).where(_own(_T), _within(_T.c.position)),
    _C: select(*_columns(_C)).where(_own(_C), _within(_C.c.position)),
}
_NAMED = select(_N.c.entity, _N.c.position, _N.c.ordinal).where(
    _own(_N), _N.c.entity.in_(bindparam("keys", expanding=True))
)
_COUNTS = {table: select(func.count()).select_from(table).where(_own(table)) for table in schema.PROJECTIONS}
# What an event left can only be there twice if one of the two says that it is of another event.
_STRAYS = {
    table: select(func.min(table.c.position)).where(
        _own(table), or_(table.c.position < 0, table.c.position >= bindparam("size"))
    )
    for table in (_A, _N, _R, _T, _C)
}
_FIRSTS = (
    select(_A.c.subject, _A.c.predicate, func.min(_A.c.position).label("first"))
    .where(_own(_A))
    .group_by(_A.c.subject, _A.c.predicate)
    .subquery()
)
_S = schema.slots
# Slots are what assertions make them: those that are missing, or begin elsewhere.
_WRONG_SLOTS = (
    select(_FIRSTS.c.first, _S.c.first_position)
    .select_from(
        _FIRSTS.outerjoin(_S, and_(_own(_S), _S.c.subject == _FIRSTS.c.subject, _S.c.predicate == _FIRSTS.c.predicate))
    )
    .where(or_(_S.c.first_position.is_(None), _S.c.first_position != _FIRSTS.c.first))
    .order_by(literal_column("1"))
    .limit(bindparam("limit"))
)
_SLOT_COUNT = select(func.count()).select_from(_FIRSTS)
_B = schema.beliefs
_MEMOS = (
    select(_B.c.entity, _B.c.predicate, _B.c.size, _B.c.from_us, _B.c.to_us, _B.c.basis, _B.c.body)
    .where(
        _own(_B),
        or_(
            _B.c.entity > bindparam("entity"),
            and_(_B.c.entity == bindparam("entity"), _B.c.predicate > bindparam("predicate")),
            and_(
                _B.c.entity == bindparam("entity"),
                _B.c.predicate == bindparam("predicate"),
                or_(
                    _B.c.size > bindparam("size"),
                    and_(_B.c.size == bindparam("size"), _B.c.from_us > bindparam("from_us")),
                ),
            ),
        ),
    )
    .order_by(_B.c.entity, _B.c.predicate, _B.c.size, _B.c.from_us)
    .limit(bindparam("limit"))
)


_LOST_MEMOS = (
    select(func.count())
    .select_from(_B)
    .where(
        or_(
            and_(_B.c.ledger_id == bindparam("ledger_id"), _B.c.generation != bindparam("generation")),
            _B.c.ledger_id.not_in(select(schema.ledgers.c.ledger_id)),
        )
    )
)


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Refuse what the database or its driver cannot read within: `database-corrupt`."""
    try:
        yield
    except (SQLAlchemyError, ValueError, TypeError) as problem:
        raise LedgerError(Category.CORRUPT, "database-corrupt", f"Rows of {what} cannot be read.") from problem


class Audit:
    """The stored rows of one ledger within one snapshot; every method raises `database-corrupt` for unreadable ones."""

    def __init__(self, connection: Connection, ledger_id: str) -> None:
        """Name the ledger."""
        self._connection = connection
        self._own: dict[str, Any] = {"ledger_id": ledger_id}

    def head(self) -> dict[str, Any]:
        """Return the head row as it is; the rows of its generation are those that the others return.

        Raises:
            LedgerError: `ledger-not-found`.
        """
        with readable("ledgers"):
            row = self._connection.execute(_HEAD, self._own).mappings().one_or_none()
            if row is not None:
                head = dict(row)
                numbers = ("created_at_us", "size", "recorded_at_us", "projected_size", "generation")
                head |= {name: int(head[name]) for name in numbers} | {"frontier": bytes(head["frontier"])}
                self._own["generation"] = head["generation"]
                return head
        raise LedgerError(Category.NOT_FOUND, "ledger-not-found", "There is no ledger of this name.")

    def _all(self, what: str, statement: Any, **parameters: Any) -> Sequence[Any]:
        with readable(what):
            return self._connection.execute(statement, {**self._own, **parameters}).all()

    # --- the log

    def events(self, begin: int, end: int) -> Sequence[Any]:
        """Return (position, type, source, id, recorded_at_us, envelope, data, salt) of the events in a range."""
        return self._all("events", _EVENTS, begin=begin, end=end)

    def beyond(self, size: int) -> tuple[int, int | None]:
        """Return how many events are at no position below a size, and the first of their positions."""
        ((count, first),) = self._all("events", _BEYOND, size=size)
        return count, first

    def erasures(self) -> Sequence[Any]:
        """Return (position, data) of every erasure."""
        return self._all("events", _ERASURES)

    def subtrees(self) -> Iterator[Row]:
        """Yield (level, number, hash) of every kept root, in no order."""
        with readable("subtrees"):
            yield from self._connection.execute(_SUBTREES.execution_options(yield_per=1_000), self._own)

    # --- projections

    def left_by(self, table: Table, begin: int, end: int, keys: Sequence[Any] = ()) -> Iterator[Row]:
        """Yield the rows of a projection that the events in a range left; `keys` are the sources or the targets."""
        statement = _OF_EVENTS[table]
        for some in chunks(keys) if table in (_A, _R) else [()]:
            yield from self._all(table.name, statement, begin=begin, end=end, **({"keys": some} if some else {}))

    def named(self, entities: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Return (position, ordinal) by id, as far as the names have them."""
        return {
            entity: (position, ordinal)
            for some in chunks(entities)
            for entity, position, ordinal in self._all("names", _NAMED, keys=some)
        }

    def count(self, table: Table) -> int:
        """Return how many rows a projection has."""
        return int(self._all(table.name, _COUNTS[table])[0][0])

    def stray(self, table: Table, size: int) -> int | None:
        """Return a position below which and above which no event can have left rows, if a row says so."""
        found: int | None = self._all(table.name, _STRAYS[table], size=size)[0][0]
        return found

    def wrong_slots(self, limit: int) -> Sequence[Any]:
        """Return (first position by the assertions, stored one or None) of slots where the two differ."""
        return self._all("slots", _WRONG_SLOTS, limit=limit)

    def slot_count(self) -> int:
        """Return how many slots the assertions make."""
        return int(self._all("assertions", _SLOT_COUNT)[0][0])

    def lost_memos(self) -> int:
        """Return how many rows the memo has of another generation, or of no ledger."""
        return int(self._all("beliefs", _LOST_MEMOS)[0][0])

    def damage(self) -> Sequence[str]:
        """Return what SQLite itself finds wrong with its file: pages, and indexes against their tables."""
        if self._connection.dialect.name != "sqlite":
            return ()
        with readable("the database"):
            found = self._connection.exec_driver_sql("PRAGMA integrity_check(20)").scalars().all()
            return [str(line) for line in found if line != "ok"]

    def memos(self, page: int) -> Iterator[Sequence[Any]]:
        """Yield the memo in pages: (entity, predicate, size, from_us, to_us, basis, body)."""
        last: Row = ("", "", -1, 0)
        while True:
            after = dict(zip(("entity", "predicate", "size", "from_us"), last, strict=True))
            found = self._all("beliefs", _MEMOS, **after, limit=page)
            if found:
                yield found
            if len(found) < page:
                return
            last = tuple(found[-1])[:4]
