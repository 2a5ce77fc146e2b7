"""Belief: what a slot's assertions amount to at one valid instant, and why.

A function of its arguments alone. It costs no more than sorting the slot's own assertions, but for the odd slot
where well rated origins stand against many lesser ones. Source: belief.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from factledger.core.displacement import Displaced, sift
from factledger.core.evidence import POSSIBLE, STRENGTHS, Evidence, Rules, Slot
from factledger.core.weighing import Standing, decide, slot_status, stance_score


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


@dataclass(frozen=True, slots=True)
class SlotBelief:
    """A slot's belief with what `why` needs beside it."""

    predicate: str
    slot: Slot
    belief: Belief
    removed_by: Mapping[int, int]  # position not in force → position of what removed it


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Read coordinates with everything pinned: the same coordinates have the same answer for ever."""

    ledger: str
    valid_at: int | None  # None where all of valid time is answered for
    size: int
    known_at: int | None  # when the last of those events was recorded
    asserted_before: int | None
    identity_at_size: int
    method: str
    when: str

    @property
    def weakest(self) -> int:
        """Return the weakest strength that counts."""
        return STRENGTHS.index(self.when)


@dataclass(slots=True)
class _Stances:
    """Per value: what counts for it and against it."""

    affirmations: list[Evidence] = field(default_factory=list)
    denials: list[Evidence] = field(default_factory=list)


def believe(slot: Slot, instant: int, weakest: int = POSSIBLE) -> Belief:
    """Return the belief at an instant, from what covers it at least as surely as `weakest`."""
    sifted = sift(slot, instant, weakest)
    values: dict[str, _Stances] = {}
    for e in sifted.counting:
        stances = values.get(e.value)
        if stances is None:
            stances = values[e.value] = _Stances()
        (stances.affirmations if e.affirms else stances.denials).append(e)
    standings = [_standing(value, stances, slot.rules, instant) for value, stances in values.items()]
    voters = len({e.voice.origin for e in sifted.counting}) if slot.rules.method == "majority" else 0
    verdicts = decide(standings, slot.rules, voters)
    belief = Belief(
        status=slot_status(verdicts, slot.rules.single),
        single=slot.rules.single,
        values=tuple(
            ValueBelief(*verdict, tuple(values[verdict.value].affirmations), tuple(values[verdict.value].denials))
            for verdict in verdicts
        ),
        superseded=tuple(sifted.superseded),
        outdated=tuple(sifted.outdated),
    )
    if verdicts:
        return belief

    def covered(evidence: Iterable[Evidence]) -> bool:
        return any(e.covers(instant) and e.strength(instant) >= weakest for e in evidence)

    if covered(slot.retracted) and not covered(slot.evidence) and not covered(slot.muted):
        return replace(belief, status="withdrawn")
    return belief


def _standing(value: str, stances: _Stances, rules: Rules, instant: int) -> Standing:
    affirming = {e.voice.origin for e in stances.affirmations}
    denying = {e.voice.origin for e in stances.denials}
    return Standing(
        value=value,
        score=stance_score(stances.affirmations, stances.denials, rules.wrong_values),
        affirming=len(affirming),
        denying=len(denying),
        voters=len(affirming | denying),
        last=max((*stances.affirmations[-1:], *stances.denials[-1:])),  # each side is in speaking order
        strength=max((e.strength(instant) for e in stances.affirmations), default=None),
    )
