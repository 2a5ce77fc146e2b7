"""Belief over valid time: the maximal segments on which a slot's status and values are the same.

The timeline is not the point-wise belief at every boundary, which would be quadratic in the slot. It goes in
three sweeps: when each assertion is not superseded; when, within that, no announcement outdates it; and, over
what then counts, the values' standings kept up incrementally. Both ways give the same answer (a property).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from factledger.core.belief import believe
from factledger.core.displacement import reach_together, staleness, starts_after
from factledger.core.evidence import DEFINITE, POSSIBLE, PRESUMED, Evidence, Rules, Slot
from factledger.core.times import BEGINNING, FOREVER
from factledger.core.weighing import Standing, combined_surety, decide, log_likelihood_ratio, slot_status

Believed = tuple[tuple[str, str, float, int | None], ...]  # (value, status, probability, strength), best first
Interval = tuple[int, int]  # half-open
Intervals = list[Interval]  # disjoint, rising


@dataclass(frozen=True, slots=True)
class Segment:
    """A half-open span of valid time with one belief; `BEGINNING` and `FOREVER` stand for no bound."""

    begins: int
    ends: int
    status: str
    values: Believed


def segments(slot: Slot, weakest: int = POSSIBLE) -> list[Segment]:
    """Return the whole of valid time in maximal segments, rising."""
    found: list[Segment] = []
    pieces = _sweep(slot) if weakest == POSSIBLE else _pointwise(slot, weakest)
    for begins, ends, status, values in pieces:
        if found and (found[-1].status, found[-1].values) == (status, values):
            begins = found.pop().begins
        found.append(Segment(begins, ends, status, values))
    return found


def _pointwise(slot: Slot, weakest: int) -> Iterator[tuple[int, int, str, Believed]]:
    """Yield belief between boundaries where weak coverage is left out: what stands then differs by instant."""
    starts = [BEGINNING, *slot.boundaries()]
    for begins, ends in zip(starts, [*starts[1:], FOREVER], strict=True):
        belief = believe(slot, begins, weakest)
        yield begins, ends, belief.status, tuple((v.value, v.status, v.probability, v.strength) for v in belief.values)


# --- intervals


def _without(intervals: Intervals, hole: Interval) -> Intervals:
    """Return the intervals less a hole."""
    begins, ends = hole
    left: Intervals = []
    for a, b in intervals:
        if b <= begins or ends <= a:
            left.append((a, b))
        else:
            if a < begins:
                left.append((a, begins))
            if ends < b:
                left.append((ends, b))
    return left


def union(intervals: Iterable[Interval]) -> Intervals:
    """Return what any of these intervals covers."""
    joined: Intervals = []
    for begins, ends in sorted(intervals):
        if joined and begins <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(ends, joined[-1][1]))
        elif begins < ends:
            joined.append((begins, ends))
    return joined


_SEVERAL = object()
_NOTHING = object()  # equals no label


class _Labels:
    """Which value covers each instant: none, one, or several. Grows only."""

    def __init__(self) -> None:
        self._marks: list[int] = [BEGINNING]  # labels[i] holds from marks[i] to marks[i + 1]
        self._labels: list[object] = [None]

    def cover(self, interval: Interval, value: str) -> None:
        """Add a value over an interval."""
        first, last = self._cut(interval[0]), self._cut(interval[1])
        marks, labels = self._marks, self._labels
        kept_marks: list[int] = []
        kept_labels: list[object] = []
        before = labels[first - 1] if first else _NOTHING
        for i in range(first, last):
            label = value if labels[i] in (None, value) else _SEVERAL
            if label != before:
                kept_marks.append(marks[i])
                kept_labels.append(label)
                before = label
        if last < len(labels) and labels[last] == before:
            last += 1
        marks[first:last], labels[first:last] = kept_marks, kept_labels

    def _cut(self, instant: int) -> int:
        """Return the index of the piece that starts at an instant, made by a cut if need be."""
        if instant >= FOREVER:
            return len(self._marks)
        index = bisect_left(self._marks, instant)
        if index == len(self._marks) or self._marks[index] != instant:
            self._marks.insert(index, instant)
            self._labels.insert(index, self._labels[index - 1])
        return index

    def others(self, interval: Interval, value: str) -> Iterator[Interval]:
        """Yield the pieces of an interval that another value covers, perhaps beside this one."""
        marks, labels = self._marks, self._labels
        begins, ends = interval
        i = bisect_right(marks, begins) - 1
        while i < len(marks) and marks[i] < ends:
            if labels[i] is not None and labels[i] != value:
                upto = marks[i + 1] if i + 1 < len(marks) else FOREVER
                yield max(marks[i], begins), min(upto, ends)
            i += 1


# --- first sweep: what an origin's later words leave of its earlier ones


def _standing_times(slot: Slot) -> dict[int, Intervals]:
    """Return, by position, when within its span each assertion is not superseded."""
    times: dict[int, Intervals] = {}
    for own in slot.by_origin.values():
        affirmed = _Labels()
        affirmed_of: dict[str, _Labels] = {}
        denied_of: dict[str, _Labels] = {}
        for e in reversed(own):
            span = (e.starts_earliest, e.ends_latest)
            left: Intervals = [span] if span[0] < span[1] else []
            against: list[tuple[_Labels | None, str]] = (
                [(affirmed if slot.rules.single else None, e.value), (denied_of.get(e.value), "")]
                if e.affirms
                else [(affirmed_of.get(e.value), "")]
            )
            for labels, value in against:
                if labels is not None and left:
                    for hole in list(labels.others(span, value)):
                        left = _without(left, hole)
            times[e.position] = left
            if e.voice.strong and span[0] < span[1]:
                if e.affirms:
                    affirmed.cover(span, e.value)
                    if slot.has_denials:
                        affirmed_of.setdefault(e.value, _Labels()).cover(span, e.value)
                else:
                    denied_of.setdefault(e.value, _Labels()).cover(span, e.value)
    return times


# --- second sweep: what announced changes leave of that


class _Announcements:
    """The announcements of a slot, and when each stands."""

    def __init__(self, slot: Slot, standing: dict[int, Intervals]) -> None:
        self._slot, self._standing = slot, standing
        keys, evidence = slot.starts
        # From each announcement, the next one of another value: runs of one value are skipped in one step.
        self._next_other = [len(keys)] * len(keys)
        for i in range(len(keys) - 2, -1, -1):
            same = evidence[i].value == evidence[i + 1].value
            self._next_other[i] = self._next_other[i + 1] if same else i + 1
        self._by_value: dict[str, list[int]] = {}
        if slot.has_denials:
            for i, e in enumerate(evidence):
                self._by_value.setdefault(e.value, []).append(i)

    def stands(self, b: Evidence, change: int) -> Intervals:
        """Return when an announcement stands from its change on; once ended, as at its last instant."""
        times = self._standing[b.position]
        if times and times[-1][1] == b.ends_latest:
            times = [*times[:-1], (times[-1][0], FOREVER)]
        return [(max(a, change), z) for a, z in times if z > change]

    def _ends_against(self, a: Evidence) -> Iterator[tuple[int, Evidence]]:
        """Yield (change, b) of the announced ends that meet every condition against `a` but reliability, rising."""
        if a.affirms and a.value in self._slot.ends:
            changes, evidence = self._slot.ends[a.value]
            for i in range(bisect_right(changes, max(a.asserted_at, a.starts_earliest)), len(changes)):
                b = evidence[i]
                if b.ends_latest < a.ends_latest and b.asserted_at >= a.asserted_at:
                    yield changes[i], b

    def _starts_against(self, a: Evidence) -> Iterator[tuple[int, Evidence]]:
        """Yield (change, b) of the announced starts that meet every condition against `a` but reliability, rising."""
        keys, evidence = self._slot.starts
        stale = staleness(a)
        if not a.affirms:
            own = self._by_value.get(a.value, ())
            for i in own[bisect_right(own, stale, key=keys.__getitem__) :]:
                if starts_after(keys[i], evidence[i], a, stale):
                    yield evidence[i].starts_latest, evidence[i]
        elif self._slot.rules.single:
            i = bisect_right(keys, stale)
            while i < len(keys):
                if evidence[i].value == a.value:
                    i = self._next_other[i]
                    continue
                if starts_after(keys[i], evidence[i], a, stale):
                    yield evidence[i].starts_latest, evidence[i]
                i += 1

    def leave(self, a: Evidence, left: Intervals) -> Intervals:
        """Return what the announcements leave of the intervals in which `a` is not superseded."""
        for candidates in (self._ends_against(a), self._starts_against(a)):
            lesser: dict[str, list[tuple[int, Evidence]]] = {}
            for change, b in candidates:
                if not left:
                    return left
                if change >= left[-1][1]:
                    break  # this change and all later ones lie beyond what is left
                if b.voice.reliability >= a.voice.reliability:
                    for hole in self.stands(b, change):
                        left = _without(left, hole)
                else:
                    lesser.setdefault(b.value, []).append((change, b))
            for together in lesser.values():
                for hole in self._reached(together, a):
                    left = _without(left, hole)
        return left

    def _reached(self, together: Sequence[tuple[int, Evidence]], a: Evidence) -> Intervals:
        """Return when those announcements of one value, taken together, reach the reliability of `a`."""
        turns: list[tuple[int, bool, int]] = []
        for i, (change, b) in enumerate(together):
            for begins, ends in self.stands(b, change):
                turns += [(begins, True, i), (ends, False, i)]
        turns.sort()
        live: set[int] = set()
        holes: Intervals = []
        for n, (instant, begins, i) in enumerate(turns):
            (live.add if begins else live.discard)(i)
            upto = turns[n + 1][0] if n + 1 < len(turns) else FOREVER
            if live and upto > instant and reach_together([together[i][1] for i in sorted(live)], a, self._slot.rules):
                holes.append((instant, upto))
        return union(holes)


def counting(slot: Slot) -> dict[int, Intervals]:
    """Return, by position, when each assertion counts: neither superseded nor outdated."""
    standing = _standing_times(slot)
    announcements = _Announcements(slot, standing)
    return {e.position: announcements.leave(e, standing[e.position]) for e in slot.evidence}


# --- third sweep: what counts, weighed incrementally

_UNIT = 1 << 1074  # every double is a whole multiple of 1/_UNIT, so sums of them in integers are exact


def _exact(number: float) -> int:
    numerator, denominator = number.as_integer_ratio()
    return numerator * (_UNIT // denominator)


class _Tally:
    """What one value has for and against it, kept up as assertions come and go."""

    def __init__(self, value: str, rules: Rules) -> None:
        self._value, self._rules = value, rules
        self._said: dict[tuple[bool, str], dict[float, int]] = {}  # by stance: how often, by surety
        self._worth: dict[tuple[bool, str], int] = {}  # by stance: ln LR, exactly
        self._score = 0
        self._affirming = self._denying = self._both = 0  # origins
        self._strengths = [0, 0, 0]
        self._spoken: list[Evidence] = []

    def change(self, e: Evidence, step: int) -> None:
        """Count an assertion in (1) or out (-1)."""
        stance = (e.affirms, e.voice.origin)
        said = self._said.get(stance)
        if said is None:
            said = self._said[stance] = {}
            self._count(stance, 1)
        surety = e.voice.surety
        said[surety] = said.get(surety, 0) + step
        if not said[surety]:
            del said[surety]
        self._score -= self._worth.pop(stance, 0)
        if said:
            worth = log_likelihood_ratio(
                e.affirms, combined_surety(said), e.voice.reliability, self._rules.wrong_values
            )
            self._worth[stance] = _exact(worth)
            self._score += self._worth[stance]
        else:
            del self._said[stance]
            self._count(stance, -1)
        if step > 0:
            insort(self._spoken, e)
        else:
            del self._spoken[bisect_left(self._spoken, e)]

    def _count(self, stance: tuple[bool, str], step: int) -> None:
        affirms, origin = stance
        self._affirming += step if affirms else 0
        self._denying += 0 if affirms else step
        self._both += step if (not affirms, origin) in self._said else 0

    def strengthen(self, strength: int, step: int) -> None:
        """Count an affirmation of this strength in (1) or out (-1)."""
        self._strengths[strength] += step

    def standing(self) -> Standing | None:
        """Return the value's standing, or None if nothing counts."""
        if not self._spoken:
            return None
        return Standing(
            value=self._value,
            score=self._score / _UNIT,
            affirming=self._affirming,
            denying=self._denying,
            voters=self._affirming + self._denying - self._both,
            last=self._spoken[-1],
            strength=next((s for s in (DEFINITE, PRESUMED, POSSIBLE) if self._strengths[s]), None),
        )


def _strengths(e: Evidence, interval: Interval) -> Iterator[tuple[int, int, int]]:
    """Yield (begins, ends, strength) over an interval within the span."""
    begins, ends = interval
    cuts = sorted({begins, *(c for c in (e.starts_latest, e.ends_earliest, e.asserted_at + 1) if begins < c < ends)})
    for a, b in zip(cuts, [*cuts[1:], ends], strict=True):
        yield a, b, e.strength(a)


def _sweep(slot: Slot) -> Iterator[tuple[int, int, str, Believed]]:
    counted = counting(slot)
    # (instant, evidence, step, strength): an assertion comes to count, ceases to, or changes its strength.
    turns: list[tuple[int, int, Evidence, int, int | None]] = []
    for e in slot.evidence:
        for interval in counted[e.position]:
            turns += [(interval[0], e.position, e, 1, None), (interval[1], e.position, e, -1, None)]
            if e.affirms:
                for begins, ends, strength in _strengths(e, interval):
                    turns += [(begins, e.position, e, 1, strength), (ends, e.position, e, -1, strength)]
    turns.sort(key=lambda turn: turn[:2])
    covered = union((e.starts_earliest, e.ends_latest) for e in (*slot.evidence, *slot.muted))
    withdrawn = union((e.starts_earliest, e.ends_latest) for e in slot.retracted)
    for hole in covered:
        withdrawn = _without(withdrawn, hole)
    instants = sorted({BEGINNING, *(turn[0] for turn in turns), *(i for piece in withdrawn for i in piece)} - {FOREVER})
    tallies: dict[str, _Tally] = {}
    standings: dict[str, Standing] = {}
    voters: dict[str, int] = {}
    at = 0
    for index, begins in enumerate(instants):
        ends = instants[index + 1] if index + 1 < len(instants) else FOREVER
        changed: set[str] = set()
        while at < len(turns) and turns[at][0] <= begins:
            _, _, e, step, gained = turns[at]
            at += 1
            changed.add(e.value)
            tally = tallies.get(e.value)
            if tally is None:
                tally = tallies[e.value] = _Tally(e.value, slot.rules)
            if gained is None:
                tally.change(e, step)
                voters[e.voice.origin] = voters.get(e.voice.origin, 0) + step
                if not voters[e.voice.origin]:
                    del voters[e.voice.origin]
            else:
                tally.strengthen(gained, step)
        for value in changed:
            standing = tallies[value].standing()
            if standing is None:
                standings.pop(value, None)
                del tallies[value]
            else:
                standings[value] = standing
        verdicts = decide(list(standings.values()), slot.rules, len(voters))
        status = slot_status(verdicts, slot.rules.single)
        if not verdicts and _holds(withdrawn, begins):
            status = "withdrawn"
        yield begins, ends, status, tuple((v.value, v.status, v.probability, v.strength) for v in verdicts)


def _holds(intervals: Intervals, instant: int) -> bool:
    index = bisect_right(intervals, (instant, FOREVER)) - 1
    return index >= 0 and intervals[index][0] <= instant < intervals[index][1]
