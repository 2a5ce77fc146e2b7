"""History: how belief in an entity's slots changed over known time, event by event.

Only events that can touch a slot are tried: its own assertions, retractions that reach it, and what says
something of the agents, entities, vocabulary or policy that it rests on. Belief before and after each is
compared over all of valid time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import merge
from typing import NamedTuple

from factledger.comparing import Held, Piece, differences, pieces
from factledger.core import facts
from factledger.reading import Snapshot

MAX_TRIED = 2_000  # events tried for one page: a page may end early, and says where to go on


@dataclass(frozen=True, slots=True)
class Change:
    """A slot's belief over one span of valid time, before and after the event at a position."""

    position: int
    predicate: str
    begins: int
    ends: int
    before: Held
    after: Held


@dataclass(frozen=True, slots=True)
class Page:
    """Changes in the order of positions, and the position to go on from, if there may be more."""

    changes: list[Change]
    following: int | None


def changes(
    snapshot: Snapshot,
    entity: str,
    predicate: str | None,
    *,
    from_size: int,
    limit: int,
    valid_at: int | None = None,
) -> Page:
    """Return the changes of belief in an entity's slots by the events at from_size and later.

    A page holds all changes of each of its positions, so it may exceed `limit`. With `valid_at`, only changes
    that hold at that instant are given.
    """
    subjects = snapshot.related({entity})
    candidates = [
        [(position, name) for position in _positions(snapshot, subjects, name, from_size)]
        for name in snapshot.states(sorted(subjects))
        if predicate in (None, name)
    ]
    found: list[Change] = []
    last: dict[str, list[Piece]] = {}
    current = -1
    for tried, (position, name) in enumerate(merge(*candidates)):
        if position != current:
            if len(found) >= limit or tried >= MAX_TRIED:
                return Page(found, position)
            current = position
        before = last.get(name)
        if before is None:
            before = _pieces(snapshot, entity, name, position)
        after = last[name] = _pieces(snapshot, entity, name, position + 1)
        for begins, ends, old, new in differences(before, after):
            if valid_at is None or begins <= valid_at < ends:
                found.append(Change(position, name, begins, ends, old, new))
    return Page(found, None)


def bearing(snapshot: Snapshot, members: Sequence[str], predicate: str) -> set[int]:
    """Return the positions of all events from which the belief in a cluster's slot can be worked out again.

    What was said in it, what reaches that and takes it back, the context that it is weighed in, and the events that
    first named whoever is judged to be the same: that decides by which id a cluster goes.
    """
    at, contexts = snapshot.coordinates, snapshot.contexts
    size = max(at.size, at.identity_at_size)
    said = _own(snapshot, members, predicate)
    context = contexts.touching(set(members), predicate, said.agents, said.entities, size, corrected=said.corrected)
    wanted = said.positions.union(context)
    judged = {entity for event in contexts.judgements(wanted) for entity in event.data["entities"]}
    return wanted | {contexts.first_named[entity][0] for entity in judged}


def _positions(snapshot: Snapshot, subjects: set[str], predicate: str, from_size: int) -> list[int]:
    """Return the positions that may change a slot, rising, each once."""
    said = _own(snapshot, sorted(subjects), predicate)
    context = snapshot.context_positions(subjects, predicate, said.agents, said.entities, corrected=said.corrected)
    own = said.positions.union(context)
    return sorted(position for position in own if from_size <= position < snapshot.size)


class _Own(NamedTuple):
    """What the assertions in a slot, and what takes them back, name."""

    positions: set[int]
    agents: set[str]
    entities: set[str]
    corrected: bool


def _own(snapshot: Snapshot, subjects: Sequence[str], predicate: str) -> _Own:
    own, agents, entities = set[int](), set[str](), set[str]()
    corrected = False
    for state in snapshot.states(subjects).get(predicate, ()):
        for row in snapshot.rows(state):
            own.add(row.position)
            agents.update((row.speaker, row.outlet, row.source))
            if (value := facts.entity_of(row.value_key)) is not None:
                entities.add(value)
        reached = snapshot.lookups.touched(state.subject, predicate, snapshot.size)
        corrected = corrected or bool(reached)
        own.update(reached)
    return _Own(own, agents, entities, corrected)


def _pieces(snapshot: Snapshot, entity: str, predicate: str, size: int) -> list[Piece]:
    """Return the belief in a slot over valid time as of a size."""
    return pieces(snapshot.at(size).slot_of(entity, predicate), snapshot.coordinates.weakest)
