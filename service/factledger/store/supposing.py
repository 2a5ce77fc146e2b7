"""Suppositions: look-ups as if further events had been projected, though nothing is written.

They answer from the rows below the size at which the events are supposed to be recorded and, above it, from what
projecting them would add.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from factledger.core import events
from factledger.core.context import ContextEvent
from factledger.core.entries import Entry, assertion_of, context_event
from factledger.core.evidence import Assertion
from factledger.core.identity import Naming
from factledger.store.engines import Connection
from factledger.store.lookups import Lookups, Slot, SlotState
from factledger.store.projections import slots_reached


class Supposition(Lookups):
    """The projection of a ledger at a size, followed by that of events which are not recorded."""

    def __init__(
        self, connection: Connection, ledger_id: str, generation: int, base: int, entries: Sequence[Entry]
    ) -> None:
        """Take the size at which the events are supposed to be recorded, and the events, from that position on."""
        super().__init__(connection, ledger_id, generation)
        self.base, self.size = base, base + len(entries)
        self.context: list[ContextEvent] = []
        self._assertions: dict[Slot, list[Assertion]] = {}
        self._names: dict[str, Naming] = {}
        self._retracted_by: dict[int, list[tuple[int, Slot | None]]] = {}
        self._touches: dict[Slot, list[int]] = {}
        for entry in entries:
            by: Slot | None = None
            if entry.type == events.ASSERTION:
                by = (entry.data["subject"], entry.data["predicate"])
                self._assertions.setdefault(by, []).append(assertion_of(entry))
            elif (added := context_event(entry)) is not None:
                self.context.append(added)
            for ordinal, name in enumerate(events.named_ids(entry.source, entry.data)):
                self._names.setdefault(name, (entry.position, ordinal))
            for target in entry.targets:
                self._retracted_by.setdefault(target.position, []).append((entry.position, by))
        aimed = [entry for entry in entries if entry.targets]
        before = super().touched_by(sorted({target.position for entry in aimed for target in entry.targets}))
        for position, slots in slots_reached(aimed, before).items():
            for slot in slots:
                self._touches.setdefault(slot, []).append(position)
        self._slots = sorted(self._assertions)
        self._of_subject: dict[str, set[Slot]] = {}
        for slot in (*self._assertions, *self._touches):
            self._of_subject.setdefault(slot[0], set()).add(slot)

    def first_named(self, entities: Iterable[str]) -> dict[str, Naming]:
        """Return where the log would first have named these ids, as far as it would."""
        wanted = set(entities)
        supposed = {name: self._names[name] for name in wanted if name in self._names}
        stored = {name: naming for name, naming in super().first_named(wanted).items() if naming[0] < self.base}
        return {**supposed, **stored}

    def slots(self, subjects: Sequence[str], size: int) -> list[SlotState]:
        """Return every slot that these subjects have below a size, by predicate, then subject."""
        found = {(state.subject, state.predicate): state for state in super().slots(subjects, min(size, self.base))}
        for slot in {slot for subject in subjects for slot in self._of_subject.get(subject, ())}:
            said = [row.position for row in self._assertions.get(slot, ()) if row.position < size]
            reached = [position for position in self._touches.get(slot, ()) if position < size]
            if said:
                found[slot] = SlotState(*slot, said[-1], found[slot].last_touch if slot in found else None)
            if reached:
                found[slot] = found[slot]._replace(last_touch=reached[-1])
        return sorted(found.values(), key=lambda state: (state.predicate, state.subject))

    def assertions(self, subject: str, predicate: str, from_position: int, size: int) -> list[Assertion]:
        """Return a slot's assertions at from_position .. size - 1, in order."""
        stored = []
        if from_position < self.base:
            stored = super().assertions(subject, predicate, from_position, min(size, self.base))
        return stored + [
            row for row in self._assertions.get((subject, predicate), ()) if from_position <= row.position < size
        ]

    def assertions_in(self, wanted: Iterable[Slot], size: int) -> dict[Slot, list[Assertion]]:
        """Return the assertions below a size of several slots, each in order."""
        slots = set(wanted)
        found = super().assertions_in(slots, min(size, self.base))
        for slot in slots & self._assertions.keys():
            added = [row for row in self._assertions[slot] if row.position < size]
            if added:
                found[slot] = found.get(slot, []) + added
        return found

    def touched(self, subject: str, predicate: str, size: int) -> list[int]:
        """Return the positions below a size whose retraction or correction reaches the slot, rising."""
        stored = super().touched(subject, predicate, min(size, self.base))
        return stored + [position for position in self._touches.get((subject, predicate), ()) if position < size]

    def retracted_by(self, targets: Sequence[int], size: int) -> list[tuple[int, int, Slot | None]]:
        """Return (target, position, slot of a correction) of what below a size targets these positions."""
        return super().retracted_by(targets, min(size, self.base)) + [
            (target, position, by)
            for target in targets
            for position, by in self._retracted_by.get(target, ())
            if position < size
        ]

    def slots_asserted(self, from_position: int, size: int) -> set[Slot]:
        """Return the slots of the assertions at from_position .. size - 1."""
        stored = super().slots_asserted(from_position, min(size, self.base)) if from_position < self.base else set()
        return stored | {
            slot for slot, rows in self._assertions.items() if any(from_position <= row.position < size for row in rows)
        }

    def slots_reached(self, from_position: int, size: int, limit: int) -> set[Slot]:
        """Return slots that the retractions and corrections at from_position .. size - 1 reach."""
        stored: set[Slot] = set()
        if from_position < self.base:
            stored = super().slots_reached(from_position, min(size, self.base), limit)
        return stored | {
            slot for slot, found in self._touches.items() if any(from_position <= position < size for position in found)
        }

    def slots_naming(self, ids: Iterable[str], roles: Iterable[str], size: int, limit: int) -> set[Slot]:
        """Return slots whose stored assertions name one of these ids in one of these roles."""
        return super().slots_naming(ids, roles, min(size, self.base), limit)

    def slots_of_predicate(self, predicate: str, limit: int) -> set[Slot]:
        """Return the slots of a predicate at any size, up to about a limit."""
        stored = super().slots_of_predicate(predicate, limit)
        return stored | {slot for slot in self._slots if slot[1] == predicate}

    def slots_after(self, last: Slot, size: int, limit: int) -> list[Slot]:
        """Return up to `limit` slots that follow a given one in order."""
        stored = super().slots_after(last, min(size, self.base), limit)
        supposed = self._slots[bisect_right(self._slots, last) :]
        return sorted({*stored, *supposed[:limit]})[:limit]
