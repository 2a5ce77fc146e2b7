"""Weighing: what an origin's word is worth, what words together make of a value, and what values of a slot.

The `weighed` method follows ACCU (Dong, Berti-Equille, Srivastava: Integrating Conflicting Data: The Role of
Source Dependence, VLDB 2009), with declared lineage and surety as a mixture. Source: belief.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from factledger.core.evidence import PLACES, Evidence, Rules

STATUSES = ("accepted", "contested", "reported", "outweighed", "denied")  # the order that equals are taken in


def log_likelihood_ratio(affirms: bool, surety: float, reliability: float, wrong_values: int) -> float:
    """Return ln LR: how much more likely the origin is heard to say this if the value is true than if not."""
    unheard = 1.0 - surety
    if affirms:
        noise = unheard / (wrong_values + 1)
        ratio = (surety * reliability + noise) / (surety * (1.0 - reliability) / wrong_values + noise)
        return math.log(max(1.0, ratio))
    noise = unheard / 2.0
    return math.log(min(1.0, (surety * (1.0 - reliability) + noise) / (surety * reliability + noise)))


def combined_surety(times_said: Mapping[float, int]) -> float:
    """Return how sure it is that the origin said it at all, from how often it is said to have, by surety."""
    most = max(times_said)
    if most >= 1.0 or (len(times_said) == 1 and times_said[most] == 1):
        return most
    return -math.expm1(math.fsum(count * math.log1p(-surety) for surety, count in times_said.items()))


def probabilities(scores: Sequence[float], single: bool, wrong_values: int) -> list[float]:
    """Return P of each value from the scores of all values that have a stance, unrounded."""
    if not single:
        return [1.0 / (1.0 + math.exp(-s)) if s >= 0 else math.exp(s) / (1.0 + math.exp(s)) for s in scores]
    unnamed = max(0, wrong_values + 1 - len(scores))
    peak = max(0.0, *scores) if scores else 0.0  # keeps exp() in range
    total = math.fsum([*(math.exp(s - peak) for s in scores), unnamed * math.exp(-peak)])
    return [math.exp(s - peak) / total for s in scores]


def by_origin(evidence: Sequence[Evidence]) -> list[tuple[str, float, float]]:
    """Return (origin, reliability, combined surety) of the stances that make up one side of a value."""
    if len(evidence) == 1:
        voice = evidence[0].voice
        return [(voice.origin, voice.reliability, voice.surety)]
    said: dict[str, dict[float, int]] = {}
    reliability: dict[str, float] = {}
    for e in evidence:
        voice = e.voice
        sureties = said.get(voice.origin)
        if sureties is None:
            sureties = said[voice.origin] = {}
            reliability[voice.origin] = voice.reliability
        sureties[voice.surety] = sureties.get(voice.surety, 0) + 1
    return [(origin, reliability[origin], combined_surety(sureties)) for origin, sureties in said.items()]


def stance_score(affirmations: Sequence[Evidence], denials: Sequence[Evidence], wrong_values: int) -> float:
    """Return score(v): the exactly rounded sum of ln LR over the stances on a value."""
    return math.fsum(
        log_likelihood_ratio(affirms, surety, reliability, wrong_values)
        for affirms, side in ((True, affirmations), (False, denials))
        if side
        for _, reliability, surety in by_origin(side)
    )


class Standing(NamedTuple):
    """What one value has for and against it at an instant."""

    value: str
    score: float  # the exactly rounded sum of ln LR
    affirming: int  # origins
    denying: int  # origins
    voters: int  # origins that do either
    last: Evidence  # the last that counts, by (asserted_at, position)
    strength: int | None  # the best of the affirmations; None without any


class Verdict(NamedTuple):
    """What is believed of one value beside its rivals."""

    value: str
    status: str
    probability: float
    score: float
    strength: int | None


def decide(standings: Sequence[Standing], rules: Rules, voters: int) -> list[Verdict]:
    """Return the verdict on every value that has a stance, best first; `voters` are the slot's origins."""
    standings = sorted(standings, key=lambda s: s.value.encode())
    chances = [round(p, PLACES) for p in _METHODS[rules.method](standings, rules, voters)]
    accepted = [
        chance >= rules.accept and s.affirming >= rules.min_origins
        for chance, s in zip(chances, standings, strict=True)
    ]
    rival_accepted = rules.single and any(accepted)
    affirmed = sum(1 for s in standings if s.affirming)
    verdicts = []
    for s, chance, is_accepted in zip(standings, chances, accepted, strict=True):
        score = round(s.score, PLACES) if rules.method == "weighed" else float(s.affirming - s.denying)
        if is_accepted:
            status = "accepted"
        elif not s.affirming:
            status = "denied"
        elif not s.denying and not (rules.single and affirmed > 1):
            status = "reported"
        elif rival_accepted or score < 0:
            status = "outweighed"
        else:
            status = "contested"
        verdicts.append(Verdict(s.value, status, chance, score, s.strength))
    verdicts.sort(key=lambda verdict: -verdict.probability)  # stable: equals keep the order of their keys
    return verdicts


def _weighed(standings: Sequence[Standing], rules: Rules, _voters: int) -> list[float]:
    return probabilities([s.score for s in standings], rules.single, rules.wrong_values)


def _latest(standings: Sequence[Standing], rules: Rules, _voters: int) -> list[float]:
    final = max((s.last for s in standings), default=None)
    return [float(s.last.affirms and (not rules.single or s.last is final)) for s in standings]


def _majority(standings: Sequence[Standing], rules: Rules, voters: int) -> list[float]:
    return [s.affirming / (voters if rules.single else s.voters) for s in standings]


_METHODS: dict[str, Callable[[Sequence[Standing], Rules, int], list[float]]] = {
    "weighed": _weighed,
    "latest": _latest,
    "majority": _majority,
}


def slot_status(verdicts: Sequence[Verdict], single: bool) -> str:
    """Return the status of a slot from the verdicts on its values, or `unknown` if it has none."""
    if not verdicts:
        return "unknown"
    best = verdicts[0].probability if single else None
    present = {verdict.status for verdict in verdicts if best is None or verdict.probability == best}
    return next(status for status in STATUSES if status in present)
