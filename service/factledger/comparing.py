"""Comparing: where belief in two states of one ledger differs over valid time, and what may have made it so.

Only slots that something between the two states can touch are weighed. They are taken in the order of (entity,
predicate), so that a page can go on where another ended, and nothing is held but a bounded set of slots.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import NamedTuple

from factledger.core import events, facts
from factledger.core.context import Context, Where
from factledger.core.evidence import Assertion, Evidence
from factledger.core.evidence import Slot as Weighed
from factledger.core.timeline import Intervals, counting, segments, union
from factledger.core.times import BEGINNING, FOREVER
from factledger.reading import Snapshot, as_posted
from factledger.store import log
from factledger.store.lookups import Slot

Held = tuple[str, tuple[tuple[str, str, float], ...]]  # status, and (value, status, probability) best first
Piece = tuple[int, int, Held]

UNKNOWN: Held = ("unknown", ())
_VOICES = ("source", "outlet", "quoted")
FIRST: Slot = ("", "")  # comes before every slot
MAX_GATHERED = 20_000  # slots found by what is between the states; if there are more, all slots are walked
MAX_TRIED = 2_000  # slots tried for one page: a page may end early, and says where to go on
MAX_WEIGHED = 50_000  # assertions weighed for one page; a single larger slot is weighed whole
CHUNK = 64  # slots read together


class Difference(NamedTuple):
    """A slot's belief over a maximal span of valid time in one state and in the other."""

    entity: str
    predicate: str
    begins: int
    ends: int
    before: Held
    after: Held
    causes: Sequence[int]  # positions between the states of what may touch the slot, rising


class Survival(NamedTuple):
    """A value that has lost support over a span of valid time, and stands with the same status all the same."""

    entity: str
    predicate: str
    value: str
    status: str
    begins: int
    ends: int
    lost: Sequence[Evidence]
    support: Sequence[Evidence]  # the affirmations that count now, somewhere in the span


@dataclass(slots=True)
class Page:
    """What was found in the slots up to `last`, all of it for each slot; `last` is None if no slot is left."""

    differences: list[Difference] = field(default_factory=list)
    survivals: list[Survival] = field(default_factory=list)
    last: Slot | None = None


def compare(
    before: Snapshot,
    after: Snapshot,
    *,
    following: Slot = FIRST,
    limit: int,
    valid_at: int | None = None,
    survivals: bool = False,
) -> Page:
    """Return where belief differs in the slots that follow a given one.

    A slot is the entity's, by the id that is canonical in either state. A page holds everything of each of its
    slots, so it may exceed `limit`. With `valid_at`, only what holds at that instant is given.
    """
    page, causes = Page(), _Causes(before, after)
    tried = weighed = 0
    candidates = _candidates(causes, following)
    while chunk := list(islice(candidates, CHUNK)):
        after.decode(chunk)  # the later state first: the earlier one's rows are among its own
        before.decode(chunk)
        for slot in chunk:
            found = len(page.differences) + len(page.survivals)
            if page.last and (found >= limit or tried >= MAX_TRIED or weighed >= MAX_WEIGHED):
                return page
            page.last = slot
            tried += 1
            positions = causes.of(*slot)
            if positions:
                weighed += _compare_slot(page, before, after, slot, positions, valid_at, survivals=survivals)
    page.last = None
    return page


def _compare_slot(
    page: Page,
    before: Snapshot,
    after: Snapshot,
    slot: Slot,
    causes: Sequence[int],
    valid_at: int | None,
    *,
    survivals: bool,
) -> int:
    """Add to a page what differs in a slot; return how many assertions were weighed."""
    old, new = before.slot_of(*slot), after.slot_of(*slot)
    own = [
        side
        for side, found in ((before, old), (after, new))
        if found is not None and side.context.canonical(slot[0]) == slot[0]
    ]
    if not own or _alike(old, new):
        return 1
    was, now = pieces(old, before.coordinates.weakest), pieces(new, after.coordinates.weakest)
    for begins, ends, held, holds in differences(was, now):
        if valid_at is None or begins <= valid_at < ends:
            page.differences.append(Difference(*slot, begins, ends, held, holds, causes))
    if survivals and old is not None and new is not None and (lost := _lost(before, after, slot, old, new)):
        page.survivals += _survivals(slot, old, new, was, now, lost)
    return sum(len(weighed.evidence) for weighed in (old, new) if weighed is not None)


def _alike(old: Weighed | None, new: Weighed | None) -> bool:
    """Tell whether two states of a slot hold the same evidence under the same rules."""
    if old is None or new is None:
        return old is new
    return (old.evidence, old.muted, old.retracted, old.rules) == (new.evidence, new.muted, new.retracted, new.rules)


# --- belief over valid time


def pieces(slot: Weighed | None, weakest: int) -> list[Piece]:
    """Return the belief in a slot over all of valid time; of a slot that is not there, that nothing is known."""
    if slot is None:
        return [(BEGINNING, FOREVER, UNKNOWN)]
    found: list[Piece] = []
    for segment in segments(slot, weakest):
        held = (segment.status, tuple((value, status, p) for value, status, p, _ in segment.values))
        if found and found[-1][2] == held:
            found[-1] = (found[-1][0], segment.ends, held)
        else:
            found.append((segment.begins, segment.ends, held))
    return found


def _both(before: Sequence[Piece], after: Sequence[Piece]) -> Iterator[tuple[int, int, Held, Held]]:
    """Yield the whole of valid time in spans on which each of two beliefs is the same."""
    i = j = 0
    begins = BEGINNING
    while i < len(before) and j < len(after):
        ends = min(before[i][1], after[j][1])
        yield begins, ends, before[i][2], after[j][2]
        begins = ends
        i += before[i][1] == ends
        j += after[j][1] == ends


def differences(before: Sequence[Piece], after: Sequence[Piece]) -> Iterator[tuple[int, int, Held, Held]]:
    """Yield the maximal spans on which two beliefs over valid time differ in one and the same way."""
    pending: tuple[int, int, Held, Held] | None = None
    for begins, ends, old, new in _both(before, after):
        if pending is not None and pending[1] == begins and pending[2:] == (old, new):
            pending = (pending[0], ends, old, new)
        else:
            if pending is not None:
                yield pending
            pending = (begins, ends, old, new) if old != new else None
    if pending is not None:
        yield pending


# --- what survives on other support


def _lost(before: Snapshot, after: Snapshot, slot: Slot, old: Weighed, new: Weighed) -> list[Evidence]:
    """Return the affirmations in force before that are taken back after."""
    standing = {e.position for e in (*new.evidence, *new.muted)}
    gone = {e.position: e for e in old.evidence if e.affirms and e.position not in standing}
    found = [gone.pop(e.position) for e in new.retracted if e.position in gone]
    if gone:  # they lie in another slot now, or have no surety; what has, is looked up there
        rows = [(subject, row) for subject, row in _rows(before, slot) if row.position in gone]
        found += [gone[position] for position in after.removed(rows, slot[1])]
    return sorted(found)


def _survivals(
    slot: Slot, old: Weighed, new: Weighed, was: Sequence[Piece], now: Sequence[Piece], lost: Iterable[Evidence]
) -> Iterator[Survival]:
    """Yield each value that has lost support, over each span in which it stands on what it has left."""
    counted, counts = counting(old), counting(new)
    weakened: dict[str, list[Evidence]] = {}
    for e in lost:
        if counted[e.position]:
            weakened.setdefault(e.value, []).append(e)
    left: dict[str, list[Evidence]] = {value: [] for value in weakened}
    for e in new.evidence:
        if e.affirms and e.value in left:
            left[e.value].append(e)
    for value, gone in sorted(weakened.items()):
        within = union(interval for e in gone for interval in counted[e.position])
        for begins, ends, status in _standing(value, was, now, within):
            without = [e for e in gone if _meets(counted[e.position], begins, ends)]
            support = [e for e in left[value] if _meets(counts[e.position], begins, ends)]
            yield Survival(*slot, value, status, begins, ends, without, support)


def _standing(
    value: str, was: Sequence[Piece], now: Sequence[Piece], within: Intervals
) -> Iterator[tuple[int, int, str]]:
    """Yield the maximal spans within these on which a value's status is the same in both beliefs."""
    pending: tuple[int, int, str] | None = None
    for begins, ends, old, new in _both(was, now):
        status = _status(value, old)
        if status is None or status != _status(value, new):
            continue
        for a, b in within[bisect_right(within, begins, key=_end) : bisect_left(within, ends, key=_begin)]:
            a, b = max(a, begins), min(b, ends)
            if pending is not None and pending[1:] == (a, status):
                pending = (pending[0], b, status)
            else:
                if pending is not None:
                    yield pending
                pending = (a, b, status)
    if pending is not None:
        yield pending


def _status(value: str, held: Held) -> str | None:
    return next((status for found, status, _ in held[1] if found == value), None)


def _meets(intervals: Intervals, begins: int, ends: int) -> bool:
    """Tell whether one of these disjoint, rising intervals overlaps a span."""
    index = bisect_right(intervals, begins, key=_end)
    return index < len(intervals) and intervals[index][0] < ends


_begin, _end = itemgetter(0), itemgetter(1)


# --- what may touch a slot


def _rows(snapshot: Snapshot, slot: Slot) -> Iterator[tuple[str, Assertion]]:
    """Yield the assertions in an entity's slot, each with the subject that it was posted with."""
    entity, predicate = slot
    members = snapshot.context.clusters.members(snapshot.context.canonical(entity))
    for state in snapshot.states(members).get(predicate, ()):
        for row in snapshot.rows(state):
            yield state.subject, row


class _Causes:
    """What lies between two states, and which slots it may touch, by what it names in either."""

    def __init__(self, before: Snapshot, after: Snapshot) -> None:
        self.before, self.after = before, after
        self._everywhere: set[int] = set()
        self._declared: dict[str, set[int]] = {}  # by predicate
        self._rated: dict[str, set[int]] = {}  # by agent as named
        self._judged: dict[str, set[int]] = {}  # by entity as named
        self._bulk: list[tuple[Where, int]] = []
        for position, said in after.context_events(before.size):
            if said.type == events.POLICY:
                self._everywhere.add(position)
            elif said.type == events.PREDICATE:
                self._declared.setdefault(said.data["predicate"], set()).add(position)
            elif said.type == events.AGENT:
                self._rated.setdefault(said.data["agent"], set()).add(position)
            elif said.type == events.IDENTITY and said.data["judgement"] == "same":
                for entity in said.data["entities"]:
                    self._judged.setdefault(entity, set()).add(position)
            elif "where" in said.data:
                self._bulk.append((Where(said.position, said.data["where"]), position))
        sides = (before.context, after.context)
        self._sides = [(side, _gathered(self._rated, side), _gathered(self._judged, side)) for side in sides]

    def of(self, entity: str, predicate: str) -> list[int]:
        """Return the positions between the states of what may touch a slot, rising."""
        size = self.before.size
        found = self._everywhere | self._declared.get(predicate, set())
        rows = dict(_rows_by_position(self.before, (entity, predicate)))
        rows.update(_rows_by_position(self.after, (entity, predicate)))
        found.update(position for position in rows if position >= size)
        members = self.after.context.clusters.members(self.after.context.canonical(entity))
        states = self.after.states(members).get(predicate, ())
        for state in states:
            if state.last_touch is not None and state.last_touch >= size:
                touched = self.after.lookups.touched(state.subject, predicate, self.after.size)
                found.update(touched[bisect_left(touched, size) :])
        if self._rated or self._judged:
            found |= self._of_context(entity, [row for _, row in rows.values()])
        if self._bulk:
            corrected = any(state.last_touch is not None for state in states)
            said = [as_posted(subject, predicate, row) for subject, row in rows.values()]
            found.update(at for rule, at in self._bulk if corrected or any(map(rule.matches, said)))
        return sorted(found)

    def _of_context(self, entity: str, rows: Iterable[Assertion]) -> set[int]:
        """Return the positions of ratings and judgements of what a slot names."""
        agents, values = set[str](), set[str]()
        for row in rows:
            agents.update((row.speaker, row.outlet, row.source))
            if (value := facts.entity_of(row.value_key)) is not None:
                values.add(value)
        found = set[int]()
        for side, rated, judged in self._sides:
            through = {canonical for agent in agents for canonical in side.path(agent)}
            for canonical in through:
                found |= rated.get(canonical, set())
            for canonical in through.union(map(side.canonical, (entity, *values))):
                found |= judged.get(canonical, set())
        return found

    def slots(self, limit: int) -> set[Slot] | None:
        """Return every slot, as posted, that something between the states may touch; None if there are many."""
        before, after = self.before, self.after
        if self._everywhere or after.size - before.size > limit:
            return None
        found: set[Slot] = set()
        for part in self._parts(limit):
            found |= part
            if len(found) >= limit:
                return None
        return found

    def _parts(self, limit: int) -> Iterator[set[Slot]]:
        """Yield the slots that one kind of cause after the other may touch; if `limit` of them, perhaps not all."""
        before, after, lookups = self.before, self.after, self.after.lookups
        yield lookups.slots_asserted(before.size, after.size)
        yield lookups.slots_reached(before.size, after.size, limit)
        for predicate in self._declared:
            yield lookups.slots_of_predicate(predicate, limit)
        for rule, _ in self._bulk:
            yield lookups.slots_matching(rule.criteria, rule.position, limit)
        agents, entities = (
            before.context.speaking_through(named) | after.context.speaking_through(named)
            for named in (self._rated, self._judged)
        )
        yield lookups.slots_naming(agents, _VOICES, after.size, limit)
        yield lookups.slots_naming(entities, (*_VOICES, "value_entity"), after.size, limit)
        for some in log.chunks(sorted(entities)):
            yield {(state.subject, state.predicate) for state in lookups.slots(some, after.size)}


def _gathered(named: dict[str, set[int]], side: Context) -> dict[str, set[int]]:
    """Return positions by canonical id."""
    gathered: dict[str, set[int]] = {}
    for name, positions in named.items():
        gathered.setdefault(side.canonical(name), set()).update(positions)
    return gathered


def _rows_by_position(snapshot: Snapshot, slot: Slot) -> Iterator[tuple[int, tuple[str, Assertion]]]:
    return ((row.position, (subject, row)) for subject, row in _rows(snapshot, slot))


# --- which slots to try, in order


def _candidates(causes: _Causes, following: Slot) -> Iterator[Slot]:
    """Yield every (entity, predicate) after a given one whose belief may differ, rising; perhaps others too."""
    sides = (causes.before.context, causes.after.context)
    gathered = causes.slots(MAX_GATHERED)
    if gathered is None:
        return merge(_alone(causes, following), _joined(causes, following))
    slots = {(side.canonical(subject), predicate) for subject, predicate in gathered for side in sides}
    return iter(sorted(slot for slot in slots if slot > following))


def _merged(causes: _Causes) -> set[str]:
    """Return every id that is joined with another in one of the states."""
    sides = (causes.before.context, causes.after.context)
    return {member for side in sides for members in side.clusters.merged().values() for member in members}


def _alone(causes: _Causes, following: Slot) -> Iterator[Slot]:
    """Yield the slots of the entities that have one id in both states."""
    merged, last = _merged(causes), following
    while found := causes.after.lookups.slots_after(last, causes.after.size, 1_000):
        last = found[-1]
        yield from (slot for slot in found if slot[0] not in merged)


def _joined(causes: _Causes, following: Slot) -> Iterator[Slot]:
    """Yield the slots of the entities that have several ids in one of the states."""
    sides = (causes.before.context, causes.after.context)
    entities = sorted({side.canonical(member) for member in _merged(causes) for side in sides})
    for entity in entities[bisect_left(entities, following[0]) :]:
        members = {member for side in sides for member in side.clusters.members(side.canonical(entity))}
        found = {(entity, s.predicate) for s in causes.after.lookups.slots(sorted(members), causes.after.size)}
        yield from sorted(slot for slot in found if slot > following)
