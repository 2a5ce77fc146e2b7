"""Replay: a belief from events alone, without projections or anything else that is kept about them.

What a ledger's store keeps indexed for reading is worked out from the events at hand, which need not be the whole
log: those that bear on the belief suffice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from factledger.core import events, evidence
from factledger.core.belief import Coordinates, SlotBelief, believe
from factledger.core.context import Context, ContextEvent, Posted, Said, removals
from factledger.core.entries import Entry, assertion_of, context_event
from factledger.core.evidence import Assertion, Rules
from factledger.core.identity import Naming


@dataclass(frozen=True, slots=True)
class Replayed:
    """The belief in one slot, whose it is, and the context that it was weighed in."""

    canonical: str
    context: Context
    found: SlotBelief


def replay(entries: Sequence[Entry], entity: str, predicate: str, at: Coordinates) -> Replayed:
    """Return what these events, in order and with targets among themselves, say of a slot; `at` has a `valid_at`."""
    recorded = [entry for entry in entries if entry.position < at.size]
    context = _context(entries, at)
    canonical = context.canonical(entity)
    members = context.clusters.members(canonical)
    said: dict[int, Said] = {}
    removers: dict[int, list[tuple[int, bool]]] = {}
    rows: list[Assertion] = []
    for entry in recorded:
        corrects = entry.type == events.ASSERTION
        if corrects:
            row = assertion_of(entry)
            said[entry.position] = Said(Posted.of(entry.position, entry.source, entry.data), row.asserted_at)
            if entry.data["subject"] in members and entry.data["predicate"] == predicate:
                rows.append(row)
        for target in entry.targets:
            removers.setdefault(target.position, []).append((entry.position, corrects))
    before = at.asserted_before
    removed = removals(said, removers, context, before)
    heard = [row for row in rows if before is None or row.asserted_at < before]
    slot = evidence.prepare(
        (row for row in heard if row.position not in removed),
        (row for row in heard if row.position in removed),
        context,
        Rules.of(context.vocabulary(predicate), context.policy, at.method),
    )
    assert at.valid_at is not None
    decided = believe(slot, at.valid_at, at.weakest)
    removed_by = {row.position: removed[row.position] for row in rows if row.position in removed}
    return Replayed(canonical, context, SlotBelief(predicate, slot, decided, removed_by))


def _context(entries: Sequence[Entry], at: Coordinates) -> Context:
    first_named: dict[str, Naming] = {}
    for entry in entries:
        for ordinal, name in enumerate(events.named_ids(entry.source, entry.data)):
            first_named.setdefault(name, (entry.position, ordinal))
    found = [added for added in map(context_event, entries) if added is not None]

    def below(size: int) -> list[ContextEvent]:
        return [event for event in found if event.position < size]

    return Context(below(at.size), below(at.identity_at_size), first_named)
