"""Displacement: which of the assertions that cover an instant do not count, and what displaced them.

An origin's later word supersedes its earlier one; a change that someone credible announces outdates what was
said before it. Source: belief.md, section "What counts at t".
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from factledger.core.evidence import PLACES, POSSIBLE, UNBOUNDED, VAGUE, Evidence, Rules, Slot
from factledger.core.times import BEGINNING
from factledger.core.weighing import by_origin, log_likelihood_ratio, probabilities

Displaced = tuple[Evidence, Evidence]  # an assertion that covers the instant and does not count; what displaced it


class Sifted(NamedTuple):
    """The assertions that cover an instant, sorted into what counts and what does not."""

    counting: list[Evidence]
    superseded: list[Displaced]
    outdated: list[Displaced]


def sift(slot: Slot, instant: int, weakest: int) -> Sifted:
    """Return what counts at an instant among what covers it at least as surely as `weakest`."""
    active = [e for e in slot.evidence if e.starts_earliest <= instant < e.ends_latest]
    if weakest > POSSIBLE:
        active = [e for e in active if e.strength(instant) >= weakest]
    superseded = _superseded(active, single=slot.rules.single, denials=slot.has_denials)
    survivors = [e for e in active if e.position not in superseded] if superseded else active
    by_position = [(e, superseded[e.position]) for e in active if e.position in superseded] if superseded else []
    outdaters = _Outdaters(slot, instant, weakest, survivors, superseded)
    if outdaters.idle:
        return Sifted(survivors, by_position, [])
    counting: list[Evidence] = []
    outdated: list[Displaced] = []
    for e in survivors:
        by = outdaters.find(e)
        if by is None:
            counting.append(e)
        else:
            outdated.append((e, by))
    return Sifted(counting, by_position, outdated)


def _superseded(active: Sequence[Evidence], *, single: bool, denials: bool) -> dict[int, Evidence]:
    """Return, by position, what a later word of the same origin replaced, with the last such word.

    Goes from each origin's last word back to its first.
    """
    superseded: dict[int, Evidence] = {}
    if not single and not denials:
        return superseded
    last: dict[str, Evidence] = {}  # origin → its last strong affirmation
    other: dict[str, Evidence] = {}  # origin → its last strong affirmation of another value than that
    affirmed: dict[tuple[str, str], Evidence] = {}
    denied: dict[tuple[str, str], Evidence] = {}
    for e in reversed(active):
        _, position, affirms, value, voice, *_ = e
        origin = voice.origin
        by: Evidence | None = None
        if not affirms:
            by = affirmed.get((origin, value))
        else:
            if denials:
                by = denied.get((origin, value))
            if single and by is None:
                by = last.get(origin)
                if by is not None and by.value == value:
                    by = other.get(origin)
        if by is not None:
            superseded[position] = by
        if not voice.strong:
            continue
        if not affirms:
            denied.setdefault((origin, value), e)
            continue
        if origin not in last:
            last[origin] = e
        elif origin not in other and last[origin].value != value:
            other[origin] = e
        if denials:
            affirmed.setdefault((origin, value), e)
    return superseded


class _Announcement(NamedTuple):
    """A change that an assertion announces; the greater key is the later change, then the better informed."""

    key: int  # twice the instant, plus 1 if it was asserted at or after it
    evidence: Evidence


def staleness(a: Evidence) -> int:
    """Return the key that an announced start must exceed to outdate this assertion."""
    starts = BEGINNING if a.start_kind <= UNBOUNDED else a.starts_latest
    return max(2 * starts, 2 * a.asserted_at + 1)


class _Outdaters:
    """The announcements that stand at an instant, arranged so that survivors find their outdater quickly."""

    def __init__(
        self,
        slot: Slot,
        instant: int,
        weakest: int,
        survivors: Sequence[Evidence],
        superseded: dict[int, Evidence],
    ) -> None:
        self._slot, self._rules = slot, slot.rules
        self._instant, self._weakest, self._superseded = instant, weakest, superseded
        self._lives: dict[int, bool] = {}
        self._vague: list[_Announcement] = []
        self._exact_by_value: dict[str, list[_Announcement]] = {}
        self._levels: list[float] = []
        self._leaders: list[tuple[_Announcement, ...]] = []
        affirmed = {e.value for e in survivors if e.affirms} if self._rules.single else set()
        denied = {e.value for e in survivors if not e.affirms} if slot.has_denials else set()
        self._relevant = self._find_relevant(affirmed, denied, survivors)
        if self._relevant:
            self._arrange()
        self.idle = not self._relevant and not slot.ends

    def _find_relevant(
        self, affirmed: set[str], denied: set[str], survivors: Sequence[Evidence]
    ) -> list[_Announcement]:
        """Return the starts announced up to the instant that could outdate any survivor, latest change first."""
        announced = self._slot.announced
        relevant = announced if len(affirmed) > 1 else (announced - affirmed if affirmed else frozenset())
        relevant |= announced & denied
        if not relevant:
            return []
        keys, evidence = self._slot.starts
        low = bisect_right(keys, min(map(staleness, survivors)))
        high = bisect_right(keys, 2 * self._instant + 1)
        return [
            _Announcement(keys[i], evidence[i]) for i in range(high - 1, low - 1, -1) if evidence[i].value in relevant
        ]

    def _arrange(self) -> None:
        # The best announcement of each (value, reliability, vague start): its like add nothing to it.
        best: dict[tuple[str, float, int | None], _Announcement] = {}
        for announcement in self._relevant:
            b = announcement.evidence
            kind = (b.value, b.voice.reliability, b.starts_earliest if b.start_kind == VAGUE else None)
            if kind not in best and self._stands(b):
                best[kind] = announcement
        self._vague = [a for (_, _, starts), a in best.items() if starts is not None]
        exact = [a for (_, _, starts), a in best.items() if starts is None]
        for announcement in exact:
            self._exact_by_value.setdefault(announcement.evidence.value, []).append(announcement)
        self._levels, self._leaders = _leaders(exact)

    def _stands(self, b: Evidence) -> bool:
        """Tell whether an announcement stands: not superseded now or, once ended, at its last instant."""
        if b.covers(self._instant):
            if self._weakest > POSSIBLE and b.strength(self._instant) < self._weakest:
                return False
            return b.position not in self._superseded
        stands = self._lives.get(b.position)
        if stands is None:
            stands = self._lives[b.position] = not self._superseded_at_last(b)
        return stands

    def _superseded_at_last(self, b: Evidence) -> bool:
        last, own = b.ends_latest - 1, self._slot.by_origin[b.voice.origin]
        for i in range(bisect_left(own, b) + 1, len(own)):
            e = own[i]
            if (
                e.starts_earliest <= last < e.ends_latest
                and e.voice.strong
                and ((e.value != b.value and self._rules.single) if e.affirms else e.value == b.value)
                and not (
                    self._weakest > POSSIBLE and e.covers(self._instant) and e.strength(self._instant) < self._weakest
                )
            ):
                return True
        return False

    def find(self, a: Evidence) -> Evidence | None:
        """Return an assertion that outdates this one, or None."""
        if a.affirms and a.value in self._slot.ends and (by := self._ended(a)) is not None:
            return by
        if not self._relevant or (a.affirms and not self._rules.single):
            return None
        stale, reliability = staleness(a), a.voice.reliability
        if a.affirms:
            level = bisect_left(self._levels, reliability)
            for leader in self._leaders[level] if level < len(self._levels) else ():
                if leader.evidence.value != a.value:
                    if leader.key > stale:
                        return leader.evidence
                    break
        else:
            for announcement in self._exact_by_value.get(a.value, ()):
                if announcement.evidence.voice.reliability >= reliability and announcement.key > stale:
                    return announcement.evidence
        for announcement in self._vague:
            if announcement.evidence.voice.reliability >= reliability and starts_after(
                announcement.key, announcement.evidence, a, stale
            ):
                return announcement.evidence
        if self._slot.least_reliability < reliability:
            return self._together([b for key, b in self._relevant if starts_after(key, b, a, stale)], a)
        return None

    def _ended(self, a: Evidence) -> Evidence | None:
        """Return an assertion that announces the end of what `a` affirms."""
        changes, evidence = self._slot.ends[a.value]
        low = bisect_right(changes, max(a.asserted_at, a.starts_earliest))
        meeting: list[Evidence] = []
        for i in range(bisect_right(changes, self._instant) - 1, low - 1, -1):
            b = evidence[i]
            if b.ends_latest < a.ends_latest and b.asserted_at >= a.asserted_at and self._stands(b):
                if b.voice.reliability >= a.voice.reliability:
                    return b
                meeting.append(b)
        return self._together(meeting, a)

    def _together(self, meeting: Sequence[Evidence], a: Evidence) -> Evidence | None:
        """Return one of those that outdate `a` by being many, where none is reliable enough alone."""
        by_value: dict[str, list[Evidence]] = {}
        for b in meeting:
            by_value.setdefault(b.value, []).append(b)
        for candidates in by_value.values():
            standing = [b for b in candidates if self._stands(b)]
            if standing and reach_together(standing, a, self._rules):
                return standing[0]
        return None


def starts_after(key: int, b: Evidence, a: Evidence, stale: int) -> bool:
    """Tell whether the start that `b` announces meets every condition against `a` but reliability and standing."""
    if key <= stale or (b.value == a.value) == a.affirms:
        return False
    if b.start_kind != VAGUE or a.start_kind <= UNBOUNDED:
        return True
    return b.starts_earliest > a.starts_earliest


def reach_together(affirmations: Sequence[Evidence], a: Evidence, rules: Rules) -> bool:
    """Tell whether these affirmations of one value, taken alone under `weighed`, are as reliable as `a`."""
    n = rules.wrong_values
    score = math.fsum(
        log_likelihood_ratio(True, surety, reliability, n) for _, reliability, surety in by_origin(affirmations)
    )
    return round(probabilities([score], rules.single, n)[0], PLACES) >= a.voice.reliability


def _leaders(exact: Sequence[_Announcement]) -> tuple[list[float], list[tuple[_Announcement, ...]]]:
    """Return the reliabilities among the announcements, rising, and the leaders at each.

    The leaders are the latest change by anyone at least that reliable, and the latest of another value.
    """
    levels = sorted({a.evidence.voice.reliability for a in exact})
    by_level: dict[float, list[_Announcement]] = {level: [] for level in levels}
    for announcement in exact:
        by_level[announcement.evidence.voice.reliability].append(announcement)
    leaders: list[tuple[_Announcement, ...]] = []
    pair: tuple[_Announcement, ...] = ()
    for level in reversed(levels):
        candidates = sorted((*pair, *by_level[level]), key=lambda a: a.key, reverse=True)
        first = candidates[0]
        second = next((c for c in candidates if c.evidence.value != first.evidence.value), None)
        pair = (first,) if second is None else (first, second)
        leaders.append(pair)
    leaders.reverse()
    return levels, leaders
