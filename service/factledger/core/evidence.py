"""Evidence: a slot's assertions, resolved against the context of a size and arranged for weighing.

Source: belief.md, sections "Spans of valid time" and "Origins".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple

from factledger.core import facts
from factledger.core.context import Context, Policy, Vocabulary
from factledger.core.events import CERTAINTIES
from factledger.core.times import BEGINNING, FOREVER, EndKind, StartKind

PLACES = 9  # decimals that scores and probabilities are rounded to before anything looks at them

POSSIBLE, PRESUMED, DEFINITE = range(3)
STRENGTHS = ("possible", "presumed", "definite")

# Plain integers: comparing members of an enumeration would dominate the inner loops.
UNBOUNDED, VAGUE = int(StartKind.UNBOUNDED), int(StartKind.VAGUE)
OPEN, KNOWN_END = int(EndKind.OPEN), int(EndKind.KNOWN)


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


Said = tuple[str, str, str, int, float]  # speaker, outlet, source, certainty, confidence: as posted


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


class Slot:
    """All assertions in one slot at one size, arranged so that belief at any valid instant is quick to weigh."""

    def __init__(
        self,
        evidence: list[Evidence],
        rules: Rules,
        muted: Sequence[Evidence] = (),
        retracted: Sequence[Evidence] = (),
        voices: Mapping[Said, Voice] = MappingProxyType({}),
    ) -> None:
        """Take what counts in principle, what has no surety, and what is not in force, each in speaking order."""
        self.evidence = evidence
        self.rules = rules
        self.muted = muted
        self.retracted = retracted
        self.voices = voices  # of everything, by whom and how it was said as posted
        self.least_reliability = min((voice.reliability for voice in voices.values()), default=1.0)

    @cached_property
    def has_denials(self) -> bool:
        """Tell whether anything in the slot is a denial."""
        return not all(e.affirms for e in self.evidence)

    @cached_property
    def by_origin(self) -> dict[str, list[Evidence]]:
        """Return each origin's own assertions in the order in which it spoke."""
        own: dict[str, list[Evidence]] = {}
        for e in self.evidence:
            own.setdefault(e.voice.origin, []).append(e)
        return own

    @cached_property
    def _announcing(self) -> list[Evidence]:
        """Return the credible affirmations of a known start, in speaking order."""
        return [e for e in self.evidence if e.start_kind > UNBOUNDED and e.affirms and e.voice.credible]

    @cached_property
    def announced(self) -> frozenset[str]:
        """Return the values whose start a credible affirmation announces."""
        return frozenset([e.value for e in self._announcing])

    @cached_property
    def starts(self) -> tuple[list[int], list[Evidence]]:
        """Return the credible affirmations of a known start by the change that they announce, rising.

        The first list holds the keys: twice the instant of the change, plus 1 for those who knew of it when
        they spoke.
        """
        evidence = self._announcing
        keys = [2 * e.starts_latest + (e.asserted_at >= e.starts_latest) for e in evidence]
        order = sorted(range(len(keys)), key=keys.__getitem__)  # stable: equals stay in speaking order
        return [keys[i] for i in order], [evidence[i] for i in order]

    @cached_property
    def ends(self) -> dict[str, tuple[list[int], list[Evidence]]]:
        """Return, by value, the credible affirmations with a known end by its earliest bound, rising."""
        by_value: dict[str, list[tuple[int, int, int, Evidence]]] = {}
        for e in self.evidence:
            if e.end_kind == KNOWN_END and e.affirms and e.voice.credible:
                by_value.setdefault(e.value, []).append((e.ends_earliest, e.asserted_at, e.position, e))
        return {
            value: ([end for end, _, _, _ in sorted(found)], [e for _, _, _, e in sorted(found)])
            for value, found in by_value.items()
        }

    def everything(self) -> Iterator[Evidence]:
        """Yield every assertion of the slot, whether it counts or not."""
        return chain(self.evidence, self.muted, self.retracted)

    def boundaries(self) -> list[int]:
        """Return every instant at which belief in the slot may change, rising."""
        instants: set[int] = set()
        for e in self.everything():
            instants.update((e.starts_earliest, e.starts_latest, e.asserted_at + 1, e.ends_earliest, e.ends_latest))
        instants -= {BEGINNING, FOREVER}
        return sorted(instants)

    def piece(self, instant: int) -> tuple[int, int]:
        """Return the widest span around an instant that no boundary falls into: belief is the same throughout."""
        begins, ends = BEGINNING, FOREVER
        for e in self.everything():
            asserted_at, _, _, _, _, starts_earliest, starts_latest, ends_earliest, ends_latest, _, _, _ = e
            if starts_earliest > instant:
                if starts_earliest < ends:
                    ends = starts_earliest
                continue  # the other bounds lie later
            for boundary in (starts_earliest, starts_latest, asserted_at + 1, ends_earliest, ends_latest):
                if boundary <= instant:
                    if boundary > begins:
                        begins = boundary
                elif boundary < ends:
                    ends = boundary
        return begins, ends


def prepare(in_force: Iterable[Assertion], retracted: Iterable[Assertion], context: Context, rules: Rules) -> Slot:
    """Return the slot that these assertions make in a context."""
    voices: dict[Said, Voice] = {}
    values: dict[str, str] = {}
    lapse, make = rules.lapse, Evidence._make

    def resolve(row: Assertion) -> Evidence:
        (
            position,
            affirms,
            value_key,
            speaker,
            outlet,
            source,
            asserted_at,
            start_kind,
            starts_earliest,
            starts_latest,
            end_kind,
            ends_earliest,
            ends_latest,
            certainty,
            confidence,
            _,
            _,
            _,
        ) = row
        said = (speaker, outlet, source, certainty, confidence)
        voice = voices.get(said)
        if voice is None:
            voice = voices[said] = _voice(said, context, rules)
        value = values.get(value_key)
        if value is None:
            value = values[value_key] = canonical_value(value_key, context)
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
    gone = sorted(map(resolve, retracted))
    muted: list[Evidence] = []
    if any(voice.surety <= 0.0 for voice in voices.values()):
        muted = [e for e in evidence if e.voice.surety <= 0.0]
        evidence = [e for e in evidence if e.voice.surety > 0.0]
    return Slot(evidence, rules, muted, gone, voices)


def canonical_value(value_key: str, context: Context) -> str:
    """Return the key that a value is compared by once identity is resolved."""
    entity = facts.entity_of(value_key)
    if entity is None:
        return value_key
    canonical = context.canonical(entity)
    return value_key if canonical == entity else facts.entity_key(canonical)


def _voice(said: Said, context: Context, rules: Rules) -> Voice:
    speaker, posted_outlet, source, certainty, confidence = said
    origin, outlet = context.origin(speaker), context.canonical(posted_outlet)
    surety = (
        confidence
        * context.policy.certainty[CERTAINTIES[certainty]]
        * context.fidelity(source)
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
