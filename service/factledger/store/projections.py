"""The projections: the inputs of belief, kept insert-only by position.

No row depends on a later event, so nothing is ever rewritten: a rating, a merge or a retraction writes a row or
a few, and a read at any size ignores the rows at or above it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import orjson
from sqlalchemy import Connection, delete, select, update

from factledger.core import encoding, events, facts
from factledger.core.entries import Entry, Target, assertion_of, context_event
from factledger.core.identity import Naming
from factledger.store import schema
from factledger.store.driver import Row, insert_new_rows, insert_rows
from factledger.store.log import Recorded
from factledger.store.lookups import Lookups, Slot, packed

_NOWHERE = (None, None)


def target_of(event: Recorded) -> Target:
    """Return a stored event as a target."""
    if event.type != events.ASSERTION:
        return Target(event.position, event.type, None)
    data = event.content()
    return Target(event.position, event.type, (data["subject"], data["predicate"]))


class Known:
    """Names and slots of one generation that are on disk for sure: what need not be offered to the database again.

    Bounded, and right to forget anything at any time.
    """

    LIMIT = 100_000  # of each; about 25 MB

    def __init__(self) -> None:
        """Know nothing."""
        self.names: set[str] = set()
        self.slots: set[Slot] = set()

    def add(self, names: Iterable[str], slots: Iterable[Slot]) -> None:
        """Take in what has been committed."""
        for known in (self.names, self.slots):
            if len(known) >= self.LIMIT:
                known.clear()
        self.names.update(names)
        self.slots.update(slots)


def slots_reached(entries: Sequence[Entry], before: Mapping[int, set[Slot]]) -> dict[int, set[Slot]]:
    """Return, by position, every slot whose belief each of these retractions and corrections may change.

    That is the slots of its targets, and whatever those reached in turn (`before` them, or among them): a retraction
    that is retracted restores what it removed.
    """
    reached: dict[int, set[Slot]] = {}
    for entry in entries:
        slots = {target.slot for target in entry.targets if target.slot is not None}
        reached[entry.position] = slots.union(
            *(earlier.get(target.position, ()) for target in entry.targets for earlier in (before, reached))
        )
    return reached


class Projection:
    """The projection of one ledger in one generation: written within the caller's transaction."""

    def __init__(self, ledger_id: str, generation: int, known: Known | None = None) -> None:
        """Name the ledger and the generation whose rows are meant, and what is known of them."""
        self.ledger_id = ledger_id
        self.generation = generation
        self._known = known or Known()
        self._names: dict[str, Naming] = {}  # inserted, but perhaps not committed
        self._slots: dict[Slot, int] = {}

    def apply(self, connection: Connection, entries: Sequence[Entry]) -> None:
        """Project events in order, set by set; the cursor is the caller's to move, in the same transaction."""
        ledger, generation = self.ledger_id, self.generation
        assertions, context, retractions = list[Row](), list[Row](), list[Row]()
        slots, names = self._slots, self._names = {}, {}
        known_slots, known_names = self._known.slots, self._known.names
        for entry in entries:
            position, data = entry.position, entry.data
            for ordinal, name in enumerate(events.named_ids(entry.source, data)):
                if name not in names and name not in known_names:
                    names[name] = (position, ordinal)
            by: Slot | None = None
            if entry.type == events.ASSERTION:
                by = subject, predicate = data["subject"], data["predicate"]
                if by not in slots and by not in known_slots:
                    slots[by] = position
                kept = assertion_of(entry)
                found_by = (kept.source, kept.outlet, kept.document_uri, kept.run)
                quoted = None if kept.speaker == kept.outlet else kept.speaker
                points_at = facts.entity_in(data["value"])
                row = (ledger, generation, subject, predicate, position, *found_by, packed(kept), quoted, points_at)
                assertions.append(row)
            elif (added := context_event(entry)) is not None:
                declared = encoding.canonical_bytes(added.data)
                context.append((ledger, generation, position, added.type, declared, orjson.dumps(added.targets)))
            for target in entry.targets:
                slot_of_each = (*(target.slot or _NOWHERE), *(by or _NOWHERE))
                retractions.append((ledger, generation, target.position, position, *slot_of_each))
        insert_rows(connection, schema.assertions, assertions)
        insert_rows(connection, schema.context, context)
        insert_rows(connection, schema.retractions, retractions)
        insert_new_rows(
            connection,
            schema.slots,
            [(ledger, generation, *slot, position) for slot, position in sorted(slots.items())],
        )
        insert_new_rows(
            connection, schema.names, [(ledger, generation, name, *naming) for name, naming in sorted(names.items())]
        )
        self._touch(connection, [entry for entry in entries if entry.targets])

    def committed(self) -> None:
        """Take note that what was applied last is on disk."""
        self._known.add(self._names, self._slots)

    def _touch(self, connection: Connection, entries: Sequence[Entry]) -> None:
        """Record every slot that each of these events reaches."""
        table = schema.touches
        targets = sorted({target.position for entry in entries for target in entry.targets})
        reached = Lookups(connection, self.ledger_id, self.generation).touched_by(targets)
        rows = [
            (self.ledger_id, self.generation, *slot, position)
            for position, slots in slots_reached(entries, reached).items()
            for slot in sorted(slots)
        ]
        insert_rows(connection, table, rows)

    def drop(self, connection: Connection) -> None:
        """Delete every row of this generation, the memo's too."""
        for table in (*schema.PROJECTIONS, schema.beliefs):
            connection.execute(
                delete(table).where(table.c.ledger_id == self.ledger_id, table.c.generation == self.generation)
            )

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
                .execution_options(yield_per=1000)
            )
            whole.update(table.name.encode())
            for row in connection.execute(query):
                whole.update(repr(tuple(bytes(v) if isinstance(v, memoryview) else v for v in row)).encode())
        return whole.hexdigest()


def advance(connection: Connection, ledger_id: str, projected_size: int, generation: int) -> None:
    """Move the cursor of a ledger's projection, or swap the generation that is read."""
    connection.execute(
        update(schema.ledgers)
        .where(schema.ledgers.c.ledger_id == ledger_id)
        .values(projected_size=projected_size, generation=generation)
    )
