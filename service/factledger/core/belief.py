"""Belief: what a set of assertions amounts to at one valid instant, and why.

`prepare` resolves a slot's assertions against the context of a size; `Slot.believe` weighs those in force at
an instant. Everything here is a function of its arguments. Nothing costs more than sorting the slot's own
assertions, but for the odd slot where many well rated origins stand against many lesser ones.

Source: belief.md; the `weighed` method follows ACCU (Dong, Berti-Equille, Srivastava: Integrating Conflicting
Data: The Role of Source Dependence, VLDB 2009).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from factledger.core import facts
from factledger.core.context import Context, Policy, Vocabulary
from factledger.core.events import CERTAINTIES
from factledger.core.times import BEGINNING, FOREVER, EndKind, StartKind

PLACES = 9  # decimals that scores and probabilities are rounded to before anything looks at them

STATUSES = ("accepted", "contested", "reported", "outweighed", "denied")  # the order that equals are taken in

POSSIBLE, PRESUMED, DEFINITE = range(3)
OPEN = int(EndKind.OPEN)
STRENGTHS = ("possible", "presumed", "definite")


class Assertion(NamedTuple):
    """A recorded assertion as the projection keeps it: nothing in it depends on later events.

    Instants are microseconds; bounds are those of `times.Span`, whose open end may yet lapse.
    """

    position: int
    affirms: bool
    value_key: str
    speaker: str  # the first speaker, else the outlet: the origin as posted
    outlet: str
    source: str
    asserted_at: int
    start_kind: int
    starts_earliest: int
    starts_latest: int
    end_kind: int
    ends_earliest: int
    ends_latest: int
    certainty: int  # index into CERTAINTIES
    confidence: float
    document_uri: str | None
    run: str | None
    valid: str | None  # EDTF as posted


class Voice(NamedTuple):
    """Who stands behind an assertion once identity, relays and ratings are resolved, and how surely."""

    origin: str
    outlet: str
    reliability: float
    surety: float  # q, before combining
    strong: bool  # q reaches `change`: it can supersede
    credible: bool  # reliability x q reaches `change`: it can outdate


class Evidence(NamedTuple):
    """An assertion in force, resolved; tuples order as origins speak: by (asserted_at, position)."""

    asserted_at: int
    position: int
    affirms: bool
    value: str  # canonical key
    voice: Voice
    starts_earliest: int
    starts_latest: int
    ends_earliest: int
    ends_latest: int
    start_kind: int
    end_kind: int
    assertion: Assertion

    def strength(self, instant: int) -> int:
        """Return how surely this covers an instant within its span: definite, presumed or possible."""
        if instant < self.starts_latest or instant >= self.ends_earliest:
            return POSSIBLE
        return PRESUMED if instant > self.asserted_at else DEFINITE

    def covers(self, instant: int) -> bool:
        """Tell whether the span holds the instant."""
        return self.starts_earliest <= instant < self.ends_latest


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides in one slot: its vocabulary, the policy's thresholds and the method asked for."""

    single: bool
    wrong_values: int  # n: how many false values a wrong source could pick from
    lapse: int | None
    method: str
    accept: float
    change: float
    min_origins: int

    @classmethod
    def of(cls, vocabulary: Vocabulary, policy: Policy, method: str | None = None) -> Rules:
        """Return the rules of a slot under a policy, with another method if the read asks for one."""
        return cls(
            single=vocabulary.single,
            wrong_values=vocabulary.plausible_values if vocabulary.single else 1,
            lapse=vocabulary.lapse,
            method=method or policy.method,
            accept=policy.accept,
            change=policy.change,
            min_origins=policy.min_origins,
        )


class Displaced(NamedTuple):
    """An assertion that covers the instant and does not count, with one that displaced it."""

    evidence: Evidence
    by: Evidence


@dataclass(frozen=True, slots=True)
class ValueBelief:
    """What is believed of one value at an instant."""

    value: str
    status: str
    probability: float
    score: float  # sum of ln LR under `weighed`; affirming minus denying origins otherwise
    strength: int | None  # best of the counting affirmations, None for a denied value
    affirmations: tuple[Evidence, ...]
    denials: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class Belief:
    """What is believed of one slot at an instant; values are best first."""

    status: str
    single: bool
    values: tuple[ValueBelief, ...] = ()
    superseded: tuple[Displaced, ...] = ()
    outdated: tuple[Displaced, ...] = ()


def likelihood_ratio(affirms: bool, surety: float, reliability: float, wrong_values: int) -> float:
    """Return how much more likely the origin is heard to say this if the value is true than if it is not."""
    unheard = 1.0 - surety
    if affirms:
        noise = unheard / (wrong_values + 1)
        return max(1.0, (surety * reliability + noise) / (surety * (1.0 - reliability) / wrong_values + noise))
    noise = unheard / 2.0
    return min(1.0, (surety * (1.0 - reliability) + noise) / (surety * reliability + noise))


def combined_surety(sureties: Sequence[float]) -> float:
    """Return how sure it is that the origin said it at all, from each time that it is said to have."""
    if len(sureties) == 1 or max(sureties) >= 1.0:
        return max(sureties)
    return -math.expm1(math.fsum(math.log1p(-surety) for surety in sureties))


def probabilities(scores: Sequence[float], single: bool, wrong_values: int) -> list[float]:
    """Return P of each value from the scores of all values that have a stance, unrounded."""
    if not single:
        return [1.0 / (1.0 + math.exp(-s)) if s >= 0 else math.exp(s) / (1.0 + math.exp(s)) for s in scores]
    unnamed = max(0, wrong_values + 1 - len(scores))
    peak = max(0.0, *scores) if scores else 0.0  # keeps exp() in range
    total = math.fsum([*(math.exp(s - peak) for s in scores), unnamed * math.exp(-peak)])
    return [math.exp(s - peak) / total for s in scores]


def prepare(in_force: Iterable[Assertion], retracted: Iterable[Assertion], context: Context, rules: Rules) -> Slot:
    """Return the slot that these assertions make in a context."""
    voices: dict[tuple[str, str, str, int, float], Voice] = {}
    values: dict[str, str] = {}
    lapse, make = rules.lapse, Evidence._make

    def resolve(row: Assertion) -> Evidence:
        said = (row.speaker, row.outlet, row.source, row.certainty, row.confidence)
        voice = voices.get(said)
        if voice is None:
            voice = voices[said] = _voice(row, context, rules)
        value = values.get(row.value_key)
        if value is None:
            value = values[row.value_key] = canonical_value(row.value_key, context)
        (position, affirms, _, _, _, _, asserted_at, start_kind, starts_earliest, starts_latest) = row[:10]
        end_kind, ends_earliest, ends_latest = row[10:13]
        if lapse is not None and end_kind == OPEN:
            ends_earliest = ends_latest = max(asserted_at, starts_earliest) + lapse
        return make(
            (
                asserted_at,
                position,
                affirms,
                value,
                voice,
                starts_earliest,
                starts_latest,
                ends_earliest,
                ends_latest,
                start_kind,
                end_kind,
                row,
            )
        )

    evidence = sorted(map(resolve, in_force))
    muted = [e for e in evidence if e.voice.surety <= 0.0]
    if muted:
        evidence = [e for e in evidence if e.voice.surety > 0.0]
    return Slot(evidence, rules, muted, sorted(map(resolve, retracted)))


def canonical_value(value_key: str, context: Context) -> str:
    """Return the key that a value is compared by once identity is resolved."""
    entity = facts.entity_of(value_key)
    if entity is None:
        return value_key
    canonical = context.canonical(entity)
    return value_key if canonical == entity else facts.entity_key(canonical)


def _voice(row: Assertion, context: Context, rules: Rules) -> Voice:
    origin, outlet = context.origin(row.speaker), context.canonical(row.outlet)
    surety = (
        row.confidence
        * context.policy.certainty[CERTAINTIES[row.certainty]]
        * context.fidelity(row.source)
        * (1.0 if outlet == origin else context.fidelity(outlet))
    )
    reliability = context.reliability(origin)
    return Voice(
        origin,
        outlet,
        reliability,
        surety,
        round(surety, PLACES) >= rules.change,
        round(reliability * surety, PLACES) >= rules.change,
    )


class _Announcement(NamedTuple):
    """A change that an assertion announces; the greater key is the later change, then the better informed."""

    key: int  # 2c, plus 1 if it was asserted at or after c
    evidence: Evidence


def _staleness(evidence: Evidence) -> int:
    """Return the key that an announced start must exceed to outdate this assertion."""
    starts = BEGINNING if evidence.start_kind <= StartKind.UNBOUNDED else evidence.starts_latest
    return max(2 * starts, 2 * evidence.asserted_at + 1)


def _announced_start(evidence: Evidence) -> int:
    """Return the key of the change that the start of this assertion announces."""
    change = evidence.starts_latest
    return 2 * change + (evidence.asserted_at >= change)


class Slot:
    """All assertions in force in one slot at one size, ready to be weighed at any valid instant."""

    def __init__(
        self,
        evidence: list[Evidence],
        rules: Rules,
        muted: Sequence[Evidence] = (),
        retracted: Sequence[Evidence] = (),
    ) -> None:
        """Take what counts in principle, what has no surety, and what is not in force, each in speaking order."""
        self.evidence = evidence
        self.rules = rules
        self.muted = muted
        self.retracted = retracted
        credible = [e for e in evidence if e.affirms and e.voice.credible]
        # Latest change first, so that the best announcement of a kind is met first.
        self._starts = sorted(
            (_Announcement(_announced_start(e), e) for e in credible if e.start_kind > StartKind.UNBOUNDED),
            key=_key,
            reverse=True,
        )
        self._ends: dict[str, list[Evidence]] = {}
        for e in sorted(credible, key=lambda e: e.ends_earliest, reverse=True):
            if e.end_kind == EndKind.KNOWN:
                self._ends.setdefault(e.value, []).append(e)
        self._by_origin: dict[str, list[Evidence]] | None = None

    def believe(self, instant: int, weakest: int = POSSIBLE) -> Belief:
        """Return the belief at an instant, from what covers it at least as surely as `weakest`."""
        belief = _Weighing(self, instant, weakest).belief()
        if belief.values:
            return belief

        def covered(evidence: Iterable[Evidence]) -> bool:
            return any(e.covers(instant) and e.strength(instant) >= weakest for e in evidence)

        if covered(self.retracted) and not covered(self.evidence) and not covered(self.muted):
            return replace(belief, status="withdrawn")
        return belief

    def boundaries(self) -> list[int]:
        """Return every instant at which belief in the slot may change, rising."""
        instants: set[int] = set()
        for e in (*self.evidence, *self.muted, *self.retracted):
            instants.update((e.starts_earliest, e.starts_latest, e.asserted_at + 1, e.ends_earliest, e.ends_latest))
        instants -= {BEGINNING, FOREVER}
        return sorted(instants)

    def piece(self, instant: int) -> tuple[int, int]:
        """Return the widest span around an instant that no boundary falls into: belief is the same throughout."""
        begins, ends = BEGINNING, FOREVER
        for e in (*self.evidence, *self.muted, *self.retracted):
            for boundary in (
                e.starts_earliest,
                e.starts_latest,
                e.asserted_at + 1,
                e.ends_earliest,
                e.ends_latest,
            ):
                if boundary <= instant:
                    if boundary > begins:
                        begins = boundary
                elif boundary < ends:
                    ends = boundary
        return begins, ends

    def by_origin(self, origin: str) -> list[Evidence]:
        """Return the origin's own assertions in the order in which it spoke."""
        if self._by_origin is None:
            self._by_origin = {}
            for e in self.evidence:
                self._by_origin.setdefault(e.voice.origin, []).append(e)
        return self._by_origin[origin]

    def starts(self) -> list[_Announcement]:
        """Return the announced starts, latest change first."""
        return self._starts

    def ends(self, value: str) -> list[Evidence]:
        """Return the assertions that announce an end of this value, latest end first."""
        return self._ends.get(value, [])


def _key(announcement: _Announcement) -> int:
    return announcement.key


@dataclass(slots=True)
class _Stances:
    """Per value: what counts for it and against it."""

    affirmations: list[Evidence] = field(default_factory=list)
    denials: list[Evidence] = field(default_factory=list)


class _Weighing:
    """One question: the slot's evidence at one instant."""

    def __init__(self, slot: Slot, instant: int, weakest: int) -> None:
        self.slot, self.rules, self.instant, self.weakest = slot, slot.rules, instant, weakest
        active = [e for e in slot.evidence if e.starts_earliest <= instant < e.ends_latest]
        if weakest > POSSIBLE:
            active = [e for e in active if e.strength(instant) >= weakest]
        self.active = active
        self.superseded: dict[int, Displaced] = {}
        self._supersede()
        self._live: dict[int, bool] = {}

    def belief(self) -> Belief:
        survivors = [e for e in self.active if e.position not in self.superseded]
        outdated: list[Displaced] = []
        values: dict[str, _Stances] = {}
        find_outdater = _Outdaters(self, survivors).find
        for e in survivors:
            by = find_outdater(e)
            if by is not None:
                outdated.append(Displaced(e, by))
                continue
            stances = values.get(e.value)
            if stances is None:
                stances = values[e.value] = _Stances()
            (stances.affirmations if e.affirms else stances.denials).append(e)
        believed = _weigh(values, self.rules, self.instant)
        return Belief(
            status=slot_status(believed, self.rules.single),
            single=self.rules.single,
            values=believed,
            superseded=tuple(self.superseded[p] for p in sorted(self.superseded)),
            outdated=tuple(outdated),
        )

    def _supersede(self) -> None:
        """Find, from an origin's last word back to its first, what a later word of its own replaced."""
        single = self.rules.single
        last: dict[str, Evidence] = {}  # origin → its last strong affirmation
        other: dict[str, Evidence] = {}  # origin → its last strong affirmation of another value than that
        affirmed: dict[tuple[str, str], Evidence] = {}
        denied: dict[tuple[str, str], Evidence] = {}
        superseded = self.superseded
        for e in reversed(self.active):
            origin, value = e.voice.origin, e.value
            stance = (origin, value)
            if e.affirms:
                by = denied.get(stance)
                if single and by is None:
                    by = last.get(origin)
                    if by is not None and by.value == value:
                        by = other.get(origin)
            else:
                by = affirmed.get(stance)
            if by is not None:
                superseded[e.position] = Displaced(e, by)
            if not e.voice.strong:
                continue
            if e.affirms:
                if origin not in last:
                    last[origin] = e
                elif origin not in other and last[origin].value != value:
                    other[origin] = e
                affirmed.setdefault(stance, e)
            else:
                denied.setdefault(stance, e)

    def is_live(self, b: Evidence) -> bool:
        """Tell whether an announcement stands: not superseded now or, once ended, at its last instant."""
        if b.covers(self.instant):
            if self.weakest > POSSIBLE and b.strength(self.instant) < self.weakest:
                return False
            return b.position not in self.superseded
        live = self._live.get(b.position)
        if live is None:
            live = self._live[b.position] = not self._superseded_at_last(b)
        return live

    def _superseded_at_last(self, b: Evidence) -> bool:
        last, own = b.ends_latest - 1, self.slot.by_origin(b.voice.origin)
        for i in range(bisect_left(own, b) + 1, len(own)):
            e = own[i]
            if (
                e.starts_earliest <= last < e.ends_latest
                and e.voice.strong
                and ((e.value != b.value and self.rules.single) if e.affirms else e.value == b.value)
                and not (self.weakest > POSSIBLE and e.covers(self.instant) and e.strength(self.instant) < self.weakest)
            ):
                return True
        return False


class _Outdaters:
    """The announcements that stand at the instant, arranged so that survivors find their outdater quickly."""

    def __init__(self, weighing: _Weighing, survivors: Sequence[Evidence]) -> None:
        self._weighing = weighing
        self._rules = weighing.rules
        self._least = min((e.voice.reliability for e in weighing.slot.evidence), default=1.0)
        affirmed = {e.value for e in survivors if e.affirms} if self._rules.single else set()
        denied = {e.value for e in survivors if not e.affirms}
        self._staleness = {e.position: _staleness(e) for e in survivors}
        floor = min(self._staleness.values(), default=FOREVER)
        latest = 2 * weighing.instant + 1
        wanted = len(affirmed) > 1
        # The best announcement of each (value, reliability, vague start): its like add nothing to it.
        best: dict[tuple[str, float, int | None], _Announcement] = {}
        self._relevant: list[_Announcement] = []
        for announcement in weighing.slot.starts():
            if announcement.key > latest:
                continue
            if announcement.key <= floor:
                break
            b = announcement.evidence
            if not (wanted or (affirmed and b.value not in affirmed) or b.value in denied):
                continue
            self._relevant.append(announcement)
            kind = (
                b.value,
                b.voice.reliability,
                b.starts_earliest if b.start_kind == StartKind.VAGUE else None,
            )
            if kind not in best and weighing.is_live(b):
                best[kind] = announcement
        self._vague = [a for (_, _, starts), a in best.items() if starts is not None]
        exact = [a for (_, _, starts), a in best.items() if starts is None]
        self._exact_by_value: dict[str, list[_Announcement]] = {}
        for announcement in exact:
            self._exact_by_value.setdefault(announcement.evidence.value, []).append(announcement)
        self._levels, self._leaders = _leaders(exact)

    def find(self, a: Evidence) -> Evidence | None:
        """Return an assertion that outdates this one, or None."""
        if a.affirms and (by := self._ended(a)) is not None:
            return by
        if not self._relevant or (a.affirms and not self._rules.single):
            return None
        stale, reliability = self._staleness[a.position], a.voice.reliability
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
            if announcement.evidence.voice.reliability >= reliability and self._starts_after(announcement, a):
                return announcement.evidence
        if self._least < reliability:
            return self._together([n.evidence for n in self._relevant if self._starts_after(n, a)], a)
        return None

    def _starts_after(self, announcement: _Announcement, a: Evidence) -> bool:
        """Tell whether the announced start meets every condition against `a` but reliability and standing."""
        b = announcement.evidence
        if announcement.key <= self._staleness[a.position] or (b.value == a.value) == a.affirms:
            return False
        if b.start_kind != StartKind.VAGUE or a.start_kind <= StartKind.UNBOUNDED:
            return True
        return b.starts_earliest > a.starts_earliest

    def _ended(self, a: Evidence) -> Evidence | None:
        """Return an assertion that announces the end of what `a` affirms."""
        least = max(a.asserted_at, a.starts_earliest)
        meeting: list[Evidence] = []
        for b in self._weighing.slot.ends(a.value):
            if b.ends_earliest > self._weighing.instant:
                continue
            if b.ends_earliest <= least:
                break
            if b.ends_latest < a.ends_latest and b.asserted_at >= a.asserted_at and self._weighing.is_live(b):
                if b.voice.reliability >= a.voice.reliability:
                    return b
                meeting.append(b)
        return self._together(meeting, a)

    def _together(self, meeting: list[Evidence], a: Evidence) -> Evidence | None:
        """Return the first of those that outdate `a` by being many, where none is reliable enough alone."""
        by_value: dict[str, list[Evidence]] = {}
        for b in meeting:
            by_value.setdefault(b.value, []).append(b)
        for candidates in by_value.values():
            standing = [b for b in candidates if self._weighing.is_live(b)]
            if standing and self._alone(standing) >= a.voice.reliability:
                return standing[0]
        return None

    def _alone(self, affirmations: Sequence[Evidence]) -> float:
        """Return P of a value under `weighed` if only these affirmations of it existed."""
        n = self._rules.wrong_values
        score = math.fsum(
            math.log(likelihood_ratio(True, surety, reliability, n))
            for _, reliability, surety in _by_origin(affirmations)
        )
        return round(probabilities([score], self._rules.single, n)[0], PLACES)


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
        candidates = sorted((*pair, *by_level[level]), key=_key, reverse=True)
        first = candidates[0]
        second = next((c for c in candidates if c.evidence.value != first.evidence.value), None)
        pair = (first,) if second is None else (first, second)
        leaders.append(pair)
    leaders.reverse()
    return levels, leaders


def _by_origin(evidence: Sequence[Evidence]) -> list[tuple[str, float, float]]:
    """Return (origin, reliability, combined surety) of the stances that make up one side of a value."""
    if len(evidence) == 1:
        voice = evidence[0].voice
        return [(voice.origin, voice.reliability, voice.surety)]
    sureties: dict[str, list[float]] = {}
    reliability: dict[str, float] = {}
    for e in evidence:
        voice = e.voice
        sureties.setdefault(voice.origin, []).append(voice.surety)
        reliability[voice.origin] = voice.reliability
    return [(origin, reliability[origin], combined_surety(said)) for origin, said in sureties.items()]


def _weigh(values: dict[str, _Stances], rules: Rules, instant: int) -> tuple[ValueBelief, ...]:
    """Return the belief in every value that has a stance, best first."""
    keys = sorted(values, key=str.encode)
    stances = [values[key] for key in keys]
    scores, chances, weights = _METHODS[rules.method](stances, rules)
    accepted = [
        chance >= rules.accept and _origins(stance.affirmations) >= rules.min_origins
        for chance, stance in zip(chances, stances, strict=True)
    ]
    affirmed_count = sum(1 for stance in stances if stance.affirmations)
    accepted_count = sum(accepted)
    believed = []
    for i, (key, stance) in enumerate(zip(keys, stances, strict=True)):
        rivals = rules.single and affirmed_count > (1 if stance.affirmations else 0)
        if accepted[i]:
            status = "accepted"
        elif not stance.affirmations:
            status = "denied"
        elif not stance.denials and not rivals:
            status = "reported"
        elif (rules.single and accepted_count) or weights[i] < 0:
            status = "outweighed"
        else:
            status = "contested"
        strength = max((e.strength(instant) for e in stance.affirmations), default=None)
        believed.append(
            ValueBelief(
                key,
                status,
                chances[i],
                scores[i],
                strength,
                tuple(stance.affirmations),
                tuple(stance.denials),
            )
        )
    believed.sort(key=lambda belief: -belief.probability)  # stable: equals keep the order of their keys
    return tuple(believed)


def _origins(evidence: Sequence[Evidence]) -> int:
    return len({e.voice.origin for e in evidence})


def stance_score(affirmations: Sequence[Evidence], denials: Sequence[Evidence], wrong_values: int) -> float:
    """Return score(v): the exactly rounded sum of ln LR over the stances on a value."""
    return math.fsum(
        math.log(likelihood_ratio(affirms, surety, reliability, wrong_values))
        for affirms, side in ((True, affirmations), (False, denials))
        if side
        for _, reliability, surety in _by_origin(side)
    )


Weighed = tuple[list[float], list[float], list[float]]  # scores, P, and what is negative if denials weigh more


def _weighed(stances: Sequence[_Stances], rules: Rules) -> Weighed:
    exact = [stance_score(s.affirmations, s.denials, rules.wrong_values) for s in stances]
    scores = [round(score, PLACES) for score in exact]
    chances = [round(p, PLACES) for p in probabilities(exact, rules.single, rules.wrong_values)]
    return scores, chances, scores


def _balance(stance: _Stances) -> float:
    return float(_origins(stance.affirmations) - _origins(stance.denials))


def _latest(stances: Sequence[_Stances], rules: Rules) -> Weighed:
    last = [max((*s.affirmations, *s.denials)) for s in stances]
    final = max(last, default=None)
    chances = [float(e.affirms and (not rules.single or e is final)) for e in last]
    balance = [_balance(stance) for stance in stances]
    return balance, chances, balance


def _majority(stances: Sequence[_Stances], rules: Rules) -> Weighed:
    voters = [{e.voice.origin for e in (*s.affirmations, *s.denials)} for s in stances]
    if rules.single:
        everyone = set[str]().union(*voters)
        voters = [everyone] * len(stances)
    balance = [_balance(stance) for stance in stances]
    chances = [round(_origins(s.affirmations) / len(voting), PLACES) for s, voting in zip(stances, voters, strict=True)]
    return balance, chances, balance


_METHODS: dict[str, Callable[[Sequence[_Stances], Rules], Weighed]] = {
    "weighed": _weighed,
    "latest": _latest,
    "majority": _majority,
}


def slot_status(values: Sequence[ValueBelief], single: bool) -> str:
    """Return the status of a slot from its values, or `unknown` if it has none."""
    if not values:
        return "unknown"
    best = max(value.probability for value in values) if single else None
    present = {value.status for value in values if best is None or value.probability == best}
    return next(status for status in STATUSES if status in present)
