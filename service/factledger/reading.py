"""Reading: coordinates to a consistent snapshot, slots to belief, and the caches in between.

A cache here never decides an answer: every entry is keyed by, or checked against, what it rests on.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import orjson
from cachetools import LRUCache

from factledger.core import events, evidence, facts
from factledger.core.belief import Coordinates, SlotBelief, believe
from factledger.core.context import ContextEvent, ContextLog, Posted, Said, removals
from factledger.core.errors import Category, Fault, LedgerError
from factledger.core.evidence import Assertion, Rules
from factledger.store import log
from factledger.store.engines import Connection
from factledger.store.lookups import Lookups, Remembered, Slot, SlotState
from factledger.store.supposing import Supposition

MAX_NAMED_VOICES = 64  # a memo that rests on more is not checked against later ratings, but made anew


@dataclass(frozen=True, slots=True)
class Question:
    """Read coordinates as asked: None where the default is meant. Instants are microseconds."""

    valid_at: int | None = None
    known_at: int | None = None
    at_size: int | None = None
    asserted_before: int | None = None
    identity_at_size: int | None = None
    method: str | None = None
    when: str = "possible"


class Caches:
    """What is kept decoded, bounded by the number of assertions held: for a ledger and process, or for one answer."""

    def __init__(self, held: int = 300_000) -> None:
        """Start empty; rows and slots each hold at most so many assertions."""
        self.held = held
        self.rows: LRUCache[Any, tuple[int, list[Assertion]]] = LRUCache(held, lambda kept: 1 + len(kept[1]))
        self.slots: LRUCache[Any, evidence.Slot] = LRUCache(held, _weight)
        self.memos: LRUCache[Any, Remembered] = LRUCache(50_000)
        self.unsaved: dict[tuple[int, str, str], Remembered] = {}
        self.lock = Lock()


def _weight(slot: evidence.Slot) -> int:
    return 1 + len(slot.evidence) + len(slot.muted) + len(slot.retracted)


class Snapshot:
    """One ledger as of resolved coordinates, read within one database snapshot."""

    def __init__(
        self,
        connection: Connection,
        head: log.Head,
        contexts: ContextLog,
        caches: Caches,
        question: Question,
        now: int,
    ) -> None:
        """Resolve the question against the head.

        Raises:
            LedgerError: `size-out-of-range` when it names a size that the ledger has not reached.
        """
        self.connection, self.head, self.contexts, self._caches = connection, head, contexts, caches
        self.lookups = Lookups(connection, head.ledger_id, head.generation)
        size = head.projected_size
        if question.at_size is not None:
            size = within(question.at_size, size, "at_size")
        elif question.known_at is not None:
            size = min(size, log.size_known_at(connection, head, question.known_at))
        judged = size
        if question.identity_at_size is not None:
            judged = within(question.identity_at_size, head.projected_size, "identity_at_size")
        self.lookups.extend_context(contexts, head.projected_size)
        self.context = contexts.at(size, judged)
        self.size = size
        self.found_states: dict[tuple[str, ...], dict[str, list[SlotState]]] = {}
        self._asked_method = question.method
        known_at = head.recorded_at if size else None
        if 0 < size < head.size:
            known_at = log.at_positions(connection, head.ledger_id, [size - 1])[size - 1].recorded_at
        self.instant = now if question.valid_at is None else question.valid_at
        self.coordinates = Coordinates(
            head.ledger_id,
            self.instant,
            size,
            known_at,
            question.asserted_before,
            judged,
            question.method or self.context.policy.method,
            question.when,
        )

    def at(self, size: int) -> Snapshot:
        """Return the same question as of a smaller size; identity, unless it was pinned, moves along."""
        clone = copy(self)
        pinned = self.coordinates.identity_at_size
        judged = size if pinned == self.size else pinned
        clone.size = size
        clone.found_states = {}
        clone.context = self.contexts.at(size, judged)
        clone.coordinates = replace(self.coordinates, size=size, known_at=None, identity_at_size=judged)
        return clone

    def supposing(self, supposed: Supposition) -> Snapshot:
        """Return the same question with events recorded next that are not; nothing remembers what it answers."""
        clone = copy(self)
        clone.size, clone.lookups, clone.found_states = supposed.size, supposed, {}
        judged = {e for event in supposed.context if event.type == events.IDENTITY for e in event.data["entities"]}
        named = supposed.first_named(judged)
        clone.contexts = self.contexts.followed_by(self.size, supposed.context, supposed.size, named)
        clone.context = clone.contexts.at(clone.size)
        clone.coordinates = replace(
            self.coordinates,
            size=clone.size,
            known_at=None,
            identity_at_size=clone.size,
            method=self._asked_method or clone.context.policy.method,
        )
        return clone

    # --- entities and slots

    def members(self, entity: str) -> tuple[str, tuple[str, ...]]:
        """Return the canonical id and all ids of an entity's cluster.

        Raises:
            LedgerError: `entity-not-found` if nothing below the size names it.
        """
        canonical = self.context.canonical(entity)
        members = self.context.clusters.members(canonical)
        if len(members) == 1 and self.states(members):
            return canonical, members  # a slot of its own names it
        named = self.lookups.first_named([entity]).get(entity)
        if named is None or named[0] >= self.size:
            raise LedgerError(
                Category.NOT_FOUND, "entity-not-found", "Nothing recorded up to this size names this entity."
            )
        return canonical, members

    def related(self, entities: set[str]) -> set[str]:
        """Return all ids that any judgement below the size, in force or not, ever joined with these."""
        return self.contexts.related(entities, max(self.size, self.coordinates.identity_at_size))

    def context_positions(
        self, subjects: set[str], predicate: str, agents: set[str], entities: set[str], *, corrected: bool
    ) -> list[int]:
        """Return the positions of context events below the size that may touch such a slot, rising."""
        return self.contexts.touching(subjects, predicate, agents, entities, self.size, corrected=corrected)

    def context_events(self, from_size: int) -> Iterator[tuple[int, ContextEvent]]:
        """Yield the context events from a size on, and what each takes back or restores, with its position."""
        for event in self.contexts.events(from_size, self.size):
            for meant in self.contexts.meant(event):
                yield event.position, meant

    def merged(self) -> dict[str, list[str]]:
        """Return, for every cluster of several ids, those of them that something was asserted about."""
        clusters = self.context.clusters.merged()
        wanted = sorted(member for members in clusters.values() for member in members)
        known = self.lookups.known_subjects(wanted, self.size)
        return {canonical: [m for m in members if m in known] for canonical, members in clusters.items()}

    def decode(self, slots: Iterable[tuple[str, str]]) -> None:
        """Read what several slots, each (entity, predicate), were posted with in a few queries, not a few a slot."""
        by_members: dict[tuple[str, ...], set[str]] = {}
        for entity, predicate in slots:
            members = self.context.clusters.members(self.context.canonical(entity))
            by_members.setdefault(members, set()).add(predicate)
        of = {member: members for members in by_members for member in members}
        self.found_states = {members: {} for members in by_members}
        missing = []
        for some in log.chunks(sorted(of)):
            for state in self.lookups.slots(some, self.size):
                members = of[state.subject]
                self.found_states[members].setdefault(state.predicate, []).append(state)
                if state.predicate in by_members[members]:
                    key = (self.head.generation, state.subject, state.predicate)
                    if self._caches.rows.get(key, (0, []))[0] <= state.last_assertion:
                        missing.append((state.subject, state.predicate))
        found = self.lookups.assertions_in(missing, self.size)
        with self._caches.lock:
            for (subject, predicate), rows in found.items():
                self._keep((self.head.generation, subject, predicate), rows)

    def slot_of(self, entity: str, predicate: str) -> evidence.Slot | None:
        """Return an entity's slot as of this size, or None if nothing was asserted in it."""
        members = self.context.clusters.members(self.context.canonical(entity))
        states = self.states(members).get(predicate)
        return None if states is None else self.slot(predicate, states)

    def states(self, members: Sequence[str]) -> dict[str, list[SlotState]]:
        """Return the slots of a cluster by predicate."""
        key = tuple(members)
        found = self.found_states.get(key)
        if found is None:
            found = self.found_states[key] = {}
            for state in self.lookups.slots(members, self.size):
                found.setdefault(state.predicate, []).append(state)
        return found

    def rules(self, predicate: str) -> Rules:
        """Return what decides in the slots of a predicate."""
        return Rules.of(self.context.vocabulary(predicate), self.context.policy, self._asked_method)

    def slot(self, predicate: str, states: Sequence[SlotState]) -> evidence.Slot:
        """Return a slot of a cluster, ready to be weighed at any valid instant."""
        changed = tuple((state.subject, state.last_assertion, state.last_touch) for state in states)
        coordinates = self.coordinates
        key = (
            self.head.generation,
            predicate,
            changed,
            self.contexts.count(self.size),
            self.contexts.count(coordinates.identity_at_size),
            coordinates.asserted_before,
            self._asked_method,
        )
        with self._caches.lock:
            kept = self._caches.slots.get(key)
        if kept is None:
            rows = [(s.subject, row) for s in states for row in self.rows(s)]
            removed = self.removed(rows, predicate, looked_up=any(s.last_touch is not None for s in states))
            before = coordinates.asserted_before
            said = [row for _, row in rows if before is None or row.asserted_at < before]
            kept = evidence.prepare(
                (row for row in said if row.position not in removed) if removed else said,
                (row for row in said if row.position in removed) if removed else (),
                self.context,
                self.rules(predicate),
            )
            if _weight(kept) <= self._caches.held:
                with self._caches.lock:
                    self._caches.slots[key] = kept
        return kept

    def rows(self, state: SlotState) -> list[Assertion]:
        """Return a slot's assertions as posted, below the size; what is decoded already is not read again."""
        key = (self.head.generation, state.subject, state.predicate)
        with self._caches.lock:
            upto, rows = self._caches.rows.get(key, (0, []))
        if upto <= state.last_assertion:
            added = self.lookups.assertions(state.subject, state.predicate, upto, self.size)
            rows = [*rows, *added]
            with self._caches.lock:
                self._keep(key, rows)
        if rows and rows[-1].position >= self.size:
            return rows[: bisect_left(rows, self.size, key=lambda row: row.position)]
        return rows

    def _keep(self, key: tuple[int, str, str], rows: list[Assertion]) -> None:
        self._caches.rows.pop(key, None)
        if len(rows) < self._caches.held:
            self._caches.rows[key] = (self.size, rows)

    # --- in force

    def removed(
        self, rows: Iterable[tuple[str, Assertion]], predicate: str, *, looked_up: bool = True
    ) -> dict[int, int]:
        """Return those assertions, each given with its subject, that are not in force: by position, what removes it.

        They need not be `looked_up` where no retraction or correction of single events has reached the slot.
        """
        said = {row.position: Said(as_posted(subject, predicate, row), row.asserted_at) for subject, row in rows}
        return self._removals(said, looked_up=looked_up)

    def in_force(self, recorded: Sequence[log.Recorded]) -> set[int]:
        """Return the positions of those of these events that are in force, looked up together."""
        said = {}
        for event in recorded:
            if event.type == events.ASSERTION:
                data = event.content()
                asserted_at = events.asserted_at(data, event.attributes().get("time"), event.recorded_at)
                said[event.position] = Said(Posted.of(event.position, event.source, data), asserted_at)
        gone = self.context.dead | self._removals(said, looked_up=True).keys()
        return {event.position for event in recorded} - gone

    def _removals(self, said: Mapping[int, Said], *, looked_up: bool) -> dict[int, int]:
        """Return, of these assertions, those not in force, each with the first position that removes it.

        Follows corrections of corrections through whatever slots they lie in, a query for each step away from
        these; then one backward pass decides, since whatever removes lies later than what it removes.
        """
        known = dict(said)
        removers: dict[int, list[tuple[int, bool]]] = {}
        pending = sorted(known) if looked_up else []
        while pending:
            further: dict[Slot, set[int]] = {}
            for target, by, correction in self.lookups.retracted_by(pending, self.size):
                removers.setdefault(target, []).append((by, correction is not None))
                if correction is not None and by not in known:
                    further.setdefault(correction, set()).add(by)
            pending = sorted(position for positions in further.values() for position in positions)
            for (subject, predicate), positions in further.items():
                for position in positions:
                    row = self.lookups.assertions(subject, predicate, position, position + 1)[0]
                    known[position] = Said(as_posted(subject, predicate, row), row.asserted_at)
        removed = removals(known, removers, self.context, self.coordinates.asserted_before)
        return {position: by for position, by in removed.items() if position in said}

    # --- belief

    def believe(self, entity: str, predicate: str) -> tuple[str, tuple[str, ...], SlotBelief]:
        """Return canonical id, members and the belief in one slot, with what is behind it."""
        canonical, members = self.members(entity)
        states = self.states(members).get(predicate, [])
        slot = self.slot(predicate, states)
        decided = believe(slot, self.instant, self.coordinates.weakest)
        return canonical, members, SlotBelief(predicate, slot, decided, self.removed_by(predicate, states, slot))

    def removed_by(self, predicate: str, states: Sequence[SlotState], slot: evidence.Slot) -> Mapping[int, int]:
        """Return what removed each assertion of a slot that is not in force."""
        if not slot.retracted:
            return {}
        rows = [(s.subject, row) for s in states for row in self.rows(s)]
        return self.removed(rows, predicate)

    def facts(self, members: Sequence[str], canonical: str, render: Any) -> Iterator[tuple[str, bytes]]:
        """Yield (predicate, JSON of the belief in it), from the memo where it holds.

        `render(Belief)` makes the JSON-ready object of a slot. Only the ledger's own method and the default
        coordinates besides valid_at and size are remembered.
        """
        coordinates = self.coordinates
        plain = (
            self._asked_method is None
            and coordinates.asserted_before is None
            and coordinates.identity_at_size == self.size
            and coordinates.when == "possible"
        )
        states = self.states(members)
        last = {name: max(max(s.last_assertion, s.last_touch or 0) for s in slots) for name, slots in states.items()}
        memos = self._recall(canonical, members, last) if plain else {}
        self._prefetch([s for name, slots in states.items() if name not in memos for s in slots])
        for predicate, slots in states.items():
            if predicate in memos:
                yield predicate, memos[predicate].body
                continue
            slot = self.slot(predicate, slots)
            body = orjson.dumps(render(believe(slot, self.instant, coordinates.weakest)))
            if plain:
                self._remember(canonical, members, predicate, slot, body)
            yield predicate, body

    def _prefetch(self, states: Sequence[SlotState]) -> None:
        """Decode the slots of a subject in one go where none is yet: one range instead of one a slot."""
        by_subject: dict[str, list[SlotState]] = {}
        for state in states:
            if (self.head.generation, state.subject, state.predicate) not in self._caches.rows:
                by_subject.setdefault(state.subject, []).append(state)
        for subject, wanted in by_subject.items():
            if len(wanted) < 2:
                continue
            found = self.lookups.assertions_about(subject, self.size)
            with self._caches.lock:
                for state in wanted:
                    self._keep((self.head.generation, subject, state.predicate), found[state.predicate])

    def _recall(self, canonical: str, members: Sequence[str], last_changes: Mapping[str, int]) -> dict[str, Remembered]:
        """Return the memos that still hold: nothing in the slot changed since, nor anything that it rests on."""
        generation, instant = self.head.generation, self.instant

        def fits(memo: Remembered | None, predicate: str) -> bool:
            return (
                memo is not None
                and last_changes[predicate] < memo.size <= self.size
                and memo.valid_from <= instant < memo.valid_to
            )

        with self._caches.lock:
            kept = {name: self._caches.memos.get((generation, canonical, name)) for name in last_changes}
        missing = [name for name in last_changes if not fits(kept[name], name)]
        if missing:
            kept.update(dict.fromkeys(missing))
            kept.update(self.lookups.remembered(canonical, missing, self.size, instant))
        held = {
            name: memo
            for name, memo in kept.items()
            if memo is not None and fits(memo, name) and self._still_rests(memo, members, name)
        }
        with self._caches.lock:
            for name in missing:
                if name in held:
                    self._caches.memos[generation, canonical, name] = held[name]
        return held

    def _still_rests(self, memo: Remembered, members: Sequence[str], predicate: str) -> bool:
        """Tell whether the context says the same about all that a memo rests on as when it was made."""
        if self.contexts.count(memo.size) == self.contexts.count(self.size):
            return True
        basis = orjson.loads(memo.basis)
        if basis is None:
            return False
        voices = [tuple(voice) for voice in basis["voices"]]
        return bool(basis["digest"] == self._digest(members, predicate, voices, basis["values"]))

    def memo(self, entity: str, predicate: str, render: Any) -> Remembered | None:
        """Return what a memo made at these coordinates says, without looking at any; None where none is made."""
        canonical = self.context.canonical(entity)
        members = self.context.clusters.members(canonical)
        states = self.states(members).get(predicate)
        if canonical != entity or states is None:
            return None
        slot = self.slot(predicate, states)
        body = orjson.dumps(render(believe(slot, self.instant, self.coordinates.weakest)))
        return self._memo(members, predicate, slot, body)

    def _remember(
        self, canonical: str, members: Sequence[str], predicate: str, slot: evidence.Slot, body: bytes
    ) -> None:
        memo = self._memo(members, predicate, slot, body)
        key = (self.head.generation, canonical, predicate)
        with self._caches.lock:
            self._caches.memos[key] = memo
            if len(self._caches.unsaved) < 10_000:
                self._caches.unsaved[key] = memo

    def _memo(self, members: Sequence[str], predicate: str, slot: evidence.Slot, body: bytes) -> Remembered:
        begins, ends = slot.piece(self.instant)
        voices = sorted({said[:3] for said in slot.voices})
        values = sorted({e.assertion.value_key for e in slot.everything() if e.value.startswith(facts.ENTITY_KEY)})
        basis = None
        if len(voices) + len(values) <= MAX_NAMED_VOICES:
            digest = self._digest(members, predicate, voices, values)
            basis = {"voices": voices, "values": values, "digest": digest}
        return Remembered(self.size, begins, ends, orjson.dumps(basis), body)

    def _digest(
        self,
        members: Sequence[str],
        predicate: str,
        voices: Iterable[tuple[str, ...]],
        values: Iterable[str],
    ) -> str:
        """Return a digest of all that the context says about what a slot rests on."""
        context = self.context
        # What corrects an assertion of the slot may lie in any other slot, and be retracted there.
        touched = any(state.last_touch is not None for state in self.states(members).get(predicate, ()))
        rules = context.bulk_retractions
        rests_on = (
            members,
            repr(context.vocabulary(predicate)),
            repr(context.policy),
            [
                (
                    context.origin(speaker),
                    context.reliability(context.origin(speaker)),
                    context.canonical(outlet),
                    context.fidelity(outlet),
                    context.fidelity(source),
                )
                for speaker, outlet, source in voices
            ],
            [evidence.canonical_value(value, context) for value in values],
            rules.positions() if touched else rules.reaching(members, predicate),
        )
        return hashlib.sha256(repr(rests_on).encode()).hexdigest()


def as_posted(subject: str, predicate: str, row: Assertion) -> Posted:
    """Return what a bulk retraction looks at of an assertion as its slot keeps it."""
    return Posted(row.position, subject, predicate, row.source, row.outlet, row.document_uri, row.run)


def within(asked: int, size: int, name: str) -> int:
    """Return a size that is asked for by this name, if it is none beyond `size`.

    Raises:
        LedgerError: `size-out-of-range`.
    """
    if not 0 <= asked <= size:
        raise LedgerError(
            Category.INVALID,
            "size-out-of-range",
            f"`{name}` must be a size that the ledger has reached: 0 to {size}.",
            errors=[Fault(f"/{name}", f"must be an integer from 0 to {size}")],
        )
    return asked
