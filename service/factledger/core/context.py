"""Context: what the ledger's own events say about identity, agents, vocabulary and policy at a size.

Everything but the assertions themselves. It is rebuilt from the context events alone, so a replay to a date
replays ratings, lineage, identity decisions and policy too. Source: belief.md.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from factledger.core import events, times
from factledger.core.identity import Clusters, Judgement, Naming


@dataclass(frozen=True, slots=True)
class ContextEvent:
    """An event other than an assertion, as far as belief needs it.

    `targets` holds the positions of what a retraction targets, without assertions: those are looked up by slot.
    """

    position: int
    type: str
    data: Mapping[str, Any]
    targets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What is declared about a predicate; the defaults are those of an undeclared one."""

    cardinality: str = "many"
    value_type: str = "any"
    plausible_values: int = 10
    lapse: int | None = None  # microseconds
    data: Mapping[str, Any] = field(default_factory=dict)
    position: int | None = None

    @classmethod
    def declared_by(cls, event: ContextEvent) -> Vocabulary:
        """Return what a `predicate` event declares."""
        data = event.data
        value_type, lapse = data.get("value_type", "any"), data.get("lapse_days")
        return cls(
            cardinality=data["cardinality"],
            value_type=value_type,
            plausible_values=data.get("plausible_values", 1 if value_type == "boolean" else 10),
            lapse=None if lapse is None else round(lapse * times.DAY),
            data=data,
            position=event.position,
        )

    @property
    def single(self) -> bool:
        """Tell whether the slot holds one value at a time."""
        return self.cardinality == "one"


UNDECLARED = Vocabulary()

_RELIABILITY = {"A": 0.95, "B": 0.85, "C": 0.70, "D": 0.45, "E": 0.10, "F": 0.60, "unrated": 0.60}
_CERTAINTY = {"certain": 1.0, "probable": 0.75, "possible": 0.5}


@dataclass(frozen=True, slots=True)
class Policy:
    """The parameters of belief; the defaults are the ledger's own before any `policy` event."""

    method: str = "weighed"
    reliability: Mapping[str, float] = field(default_factory=lambda: dict(_RELIABILITY))
    certainty: Mapping[str, float] = field(default_factory=lambda: dict(_CERTAINTY))
    accept: float = 0.65
    change: float = 0.4
    min_origins: int = 1
    position: int | None = None

    @classmethod
    def from_event(cls, event: ContextEvent) -> Policy:
        """Return the policy that an event states; whatever it leaves out takes the default."""
        given = event.data.get("parameters", {})
        default = cls()
        return cls(
            method=event.data.get("method", default.method),
            reliability={**_RELIABILITY, **given.get("reliability", {})},
            certainty={**_CERTAINTY, **given.get("certainty", {})},
            accept=given.get("accept", default.accept),
            change=given.get("change", default.change),
            min_origins=given.get("min_origins", default.min_origins),
            position=event.position,
        )


class Posted(NamedTuple):
    """What a bulk retraction's criteria look at: an assertion by the ids that it was posted with."""

    position: int
    subject: str
    predicate: str
    source: str
    outlet: str
    document_uri: str | None
    run: str | None

    @classmethod
    def of(cls, position: int, source: str, data: Mapping[str, Any]) -> Posted:
        """Return what an assertion's content says."""
        provenance = data["provenance"]
        return cls(
            position,
            data["subject"],
            data["predicate"],
            source,
            provenance["outlet"],
            provenance.get("document", {}).get("uri"),
            provenance.get("method", {}).get("run"),
        )


@dataclass(frozen=True, slots=True)
class Where:
    """A bulk retraction's criteria: all given must match; it matches assertions recorded before it only."""

    position: int
    criteria: Mapping[str, Any]

    def could_touch(self, subjects: Sequence[str], predicate: str) -> bool:
        """Tell whether any assertion of these subjects and this predicate could match."""
        return (
            self.criteria.get("predicate", predicate) == predicate
            and (self.criteria.get("subject") or subjects[0]) in subjects
        )

    def matches(self, said: Posted) -> bool:
        """Tell whether this rule retracts an assertion."""
        given = self.criteria
        return (
            given.get("from_position", 0) <= said.position < self.position
            and said.position <= given.get("to_position", said.position)
            and given.get("source", said.source) == said.source
            and said.source.startswith(given.get("source_prefix", ""))
            and given.get("outlet", said.outlet) == said.outlet
            and ("document_uri" not in given or given["document_uri"] == said.document_uri)
            and ("run" not in given or given["run"] == said.run)
            and given.get("subject", said.subject) == said.subject
            and given.get("predicate", said.predicate) == said.predicate
        )


class BulkRetractions:
    """The `where` retractions in force, found by the assertion that they may match."""

    # The narrowest criterion that a rule gives is what it is filed under.
    FIELDS = ("document_uri", "run", "subject", "source", "outlet", "predicate")

    def __init__(self) -> None:
        """Start with none."""
        self._all: list[Where] = []
        self._filed: dict[tuple[str, str], list[Where]] = {}
        self._by_prefix: list[Where] = []

    def add(self, rule: Where) -> None:
        """Add the next rule in the order of the log."""
        self._all.append(rule)
        field = next((name for name in self.FIELDS if name in rule.criteria), None)
        if field is None:
            self._by_prefix.append(rule)
        else:
            self._filed.setdefault((field, rule.criteria[field]), []).append(rule)

    def remover(self, said: Posted) -> int | None:
        """Return the position of the first rule that retracts an assertion, or None."""
        if not self._all:
            return None
        candidates = [self._by_prefix]
        for name in self.FIELDS:
            given = getattr(said, name)
            if given is not None and (filed := self._filed.get((name, given))):
                candidates.append(filed)
        found = [next((r.position for r in rules if r.matches(said)), None) for rules in candidates]
        return min((position for position in found if position is not None), default=None)

    def positions(self) -> list[int]:
        """Return the positions of all rules."""
        return [rule.position for rule in self._all]

    def reaching(self, subjects: Sequence[str], predicate: str) -> list[int]:
        """Return the positions of the rules that could match something in such a slot."""
        return [rule.position for rule in self._all if rule.could_touch(subjects, predicate)]


def not_in_force(recorded: Sequence[ContextEvent]) -> set[int]:
    """Return the positions that a retraction in force among `recorded` targets: one backward pass."""
    dead: set[int] = set()
    for event in reversed(recorded):
        if event.targets and event.position not in dead:
            dead.update(event.targets)
    return dead


class Context:
    """Identity, agents, vocabulary and policy as of one size (identity perhaps of another)."""

    def __init__(
        self,
        recorded: Sequence[ContextEvent],
        judged: Sequence[ContextEvent],
        first_named: Mapping[str, Naming],
    ) -> None:
        """Replay the context events at the read's size, and those at the size that identity is taken at."""
        self.dead = not_in_force(recorded)
        judged_dead = self.dead if judged is recorded else not_in_force(judged)
        self.clusters = Clusters(
            (
                Judgement(event.position, tuple(event.data["entities"]), event.data["judgement"])
                for event in judged
                if event.type == events.IDENTITY and event.position not in judged_dead
            ),
            first_named,
        )
        self.policy = Policy()
        self.bulk_retractions = BulkRetractions()
        self._vocabulary: dict[str, Vocabulary] = {}
        self._agents: dict[str, dict[str, Any]] = {}
        for event in recorded:
            if event.position not in self.dead:
                self._apply(event)
        self._origins: dict[str, str] = {}
        self._paths: dict[str, tuple[str, ...]] = {}

    def _apply(self, event: ContextEvent) -> None:
        data = event.data
        if event.type == events.AGENT:
            # What was said last of any member holds for the cluster, so fields gather under the canonical id.
            fields = self._agents.setdefault(self.canonical(data["agent"]), {})
            for name in ("label", "reliability", "fidelity", "relays"):
                if name in data:
                    fields[name] = data[name]
        elif event.type == events.PREDICATE:
            self._vocabulary[data["predicate"]] = Vocabulary.declared_by(event)
        elif event.type == events.POLICY:
            self.policy = Policy.from_event(event)
        elif event.type == events.RETRACTION and "where" in data:
            self.bulk_retractions.add(Where(event.position, data["where"]))

    def canonical(self, entity: str) -> str:
        """Return the canonical id of an entity or agent."""
        return self.clusters.canonical(entity)

    def vocabulary(self, predicate: str) -> Vocabulary:
        """Return what is declared about a predicate."""
        return self._vocabulary.get(predicate, UNDECLARED)

    def declared(self) -> Mapping[str, Vocabulary]:
        """Return every declared predicate."""
        return self._vocabulary

    def agent(self, agent: str) -> Mapping[str, Any]:
        """Return what holds of an agent's cluster: label, reliability, fidelity, relays, as far as stated."""
        return self._agents.get(self.canonical(agent), {})

    def origin(self, agent: str) -> str:
        """Return the end of the relays from an agent; at a cycle, the first agent that is met again."""
        known = self._origins.get(agent)
        if known is None:
            known = self._origins[agent] = self._end_of_relays(agent)[0]
        return known

    def path(self, agent: str) -> tuple[str, ...]:
        """Return the canonical agents that an agent's words pass through, from itself to the end of its relays."""
        known = self._paths.get(agent)
        if known is None:
            here, met = self.canonical(agent), dict[str, None]()
            while here not in met:
                met[here] = None
                relayed = self._agents.get(here, {}).get("relays")
                if relayed is None:
                    break
                here = self.canonical(relayed)
            known = self._paths[agent] = tuple(met)
        return known

    def speaking_through(self, agents: Iterable[str]) -> set[str]:
        """Return every id whose words pass through one of these agents: itself, its cluster, and who relays it."""
        wanted = {self.canonical(agent) for agent in agents}
        through = wanted.union(agent for agent in self._agents if not wanted.isdisjoint(self.path(agent)))
        return {member for canonical in through for member in self.clusters.members(canonical)}

    def _end_of_relays(self, agent: str) -> tuple[str, bool]:
        last = self.path(agent)[-1]
        relayed = self._agents.get(last, {}).get("relays")
        return (last, False) if relayed is None else (self.canonical(relayed), True)

    def relay_cycle(self) -> str | None:
        """Return an agent whose relays lead round in a circle, or None."""
        return next((agent for agent in self._agents if self._end_of_relays(agent)[1]), None)

    def reliability(self, agent: str) -> float:
        """Return the reliability of a canonical agent in (0, 1)."""
        rated = self._agents.get(agent, {}).get("reliability")
        if isinstance(rated, int | float):
            return float(rated)
        return self.policy.reliability["unrated" if rated is None else rated]

    def fidelity(self, agent: str) -> float:
        """Return how faithfully an agent passes on what was said, in [0, 1]."""
        stated = self._agents.get(self.canonical(agent), {}).get("fidelity")
        return 1.0 if stated is None else float(stated)


class Said(NamedTuple):
    """What decides whether an assertion is in force: its posted ids, and when it was said."""

    posted: Posted
    asserted_at: int


def removals(
    said: Mapping[int, Said], removers: Mapping[int, Sequence[tuple[int, bool]]], context: Context, before: int | None
) -> dict[int, int]:
    """Return, of these assertions, those not in force, each with the first position that removes it.

    `removers` names by target the positions of what is aimed at it, and whether that is a correction: those must be
    among the assertions. One said at `before` or later corrects nothing.
    """
    standing: dict[int, bool] = {}
    removed: dict[int, int] = {}
    for position in sorted(said, reverse=True):  # whatever removes lies later than what it removes
        posted, asserted_at = said[position]
        found = [
            remover
            for remover, corrects in removers.get(position, ())
            if (standing[remover] if corrects else remover not in context.dead)
        ]
        if (rule := context.bulk_retractions.remover(posted)) is not None:
            found.append(rule)
        if found:
            removed[position] = min(found)
        standing[position] = not found and (before is None or asserted_at < before)
    return removed


class ContextLog:
    """All context events of a ledger up to a size, and the contexts that follow from prefixes of it.

    It grows by `extend` only; contexts are immutable and kept for the most recent questions. Threads share it:
    whoever extends it holds `lock`.
    """

    KEPT = 64

    def __init__(self) -> None:
        """Start before the first event."""
        self.lock = threading.RLock()
        self.size = 0  # of the ledger: every context event below it is here
        self._recorded: list[ContextEvent] = []
        self._positions: list[int] = []
        self.first_named: dict[str, Naming] = {}  # of every id that a judgement names
        self._kept: dict[tuple[int, int], Context] = {}

    def extend(self, size: int, recorded: Sequence[ContextEvent], first_named: Mapping[str, Naming]) -> None:
        """Take in the context events up to `size`, in order, and the first naming of the ids they judge."""
        self._recorded.extend(recorded)
        self._positions.extend(event.position for event in recorded)
        self.first_named.update(first_named)
        self.size = size

    def events(self, from_size: int, to_size: int) -> Iterator[ContextEvent]:
        """Yield the context events at positions from_size .. to_size - 1."""
        yield from self._recorded[bisect_left(self._positions, from_size) : bisect_left(self._positions, to_size)]

    def meant(self, event: ContextEvent) -> Iterator[ContextEvent]:
        """Yield an event, and whatever it takes back or thereby restores."""
        met, pending = {event.position}, [event]
        while pending:
            said = pending.pop()
            yield said
            targets = set(said.targets) - met
            met |= targets
            pending += [self._recorded[bisect_left(self._positions, target)] for target in targets]

    def at(self, size: int, identity_at_size: int | None = None) -> Context:
        """Return the context as of a size, with identity as of another if asked."""
        count = bisect_left(self._positions, size)
        judged = count if identity_at_size is None else bisect_left(self._positions, identity_at_size)
        with self.lock:
            context = self._kept.pop((count, judged), None)
            if context is None:
                recorded = self._recorded[:count]
                context = Context(recorded, recorded if judged == count else self._recorded[:judged], self.first_named)
                while len(self._kept) >= self.KEPT:
                    del self._kept[next(iter(self._kept))]
            self._kept[count, judged] = context
            return context

    def count(self, size: int) -> int:
        """Return how many context events lie below a size: contexts of equal counts are equal."""
        return bisect_left(self._positions, size)

    def related(self, ids: set[str], size: int) -> set[str]:
        """Return these ids with all that any `same` judgement below a size, in force or not, joins to them."""
        judged = [
            set(event.data["entities"])
            for event in self.events(0, size)
            if event.type == events.IDENTITY and event.data["judgement"] == "same"
        ]
        return _closure(set(ids), judged)

    def touching(
        self,
        subjects: set[str],
        predicate: str,
        agents: set[str],
        entities: set[str],
        size: int,
        *,
        corrected: bool,
    ) -> list[int]:
        """Return the positions below a size of events that may touch a slot, rising.

        The slot is given by its subjects, its predicate, and the agents and entities that it names; what corrects
        a `corrected` one may lie in any slot, so that any bulk retraction may touch it.
        """
        recorded = list(self.events(0, size))
        joined = [set(e.data["entities"]) for e in recorded if e.type == events.IDENTITY]
        relayed = [
            {e.data["agent"], e.data["relays"]}
            for e in recorded
            if e.type == events.AGENT and e.data.get("relays") is not None
        ]
        reached = _closure(subjects | agents | entities, [*joined, *relayed])
        found: set[int] = set()
        for event in recorded:
            data = event.data
            if (
                event.type == events.POLICY
                or (event.type == events.PREDICATE and data["predicate"] == predicate)
                or (event.type == events.AGENT and data["agent"] in reached)
                or (event.type == events.IDENTITY and not reached.isdisjoint(data["entities"]))
                or (
                    "where" in data
                    and (corrected or Where(event.position, data["where"]).could_touch(sorted(subjects), predicate))
                )
                or not found.isdisjoint(event.targets)
            ):
                found.add(event.position)
        return sorted(found)

    def judgements(self, positions: Collection[int]) -> Iterator[ContextEvent]:
        """Yield those of the events at these positions that judge ids to be the same."""
        for event in self._recorded:
            if event.position in positions and event.type == events.IDENTITY and event.data["judgement"] == "same":
                yield event

    def with_drafts(self, size: int, drafts: Sequence[ContextEvent], first_named: Mapping[str, Naming]) -> Context:
        """Return the context that would follow if these events were recorded at a size."""
        recorded = [*self.events(0, size), *drafts]
        return Context(recorded, recorded, {**self.first_named, **first_named})

    def followed_by(
        self, size: int, drafts: Sequence[ContextEvent], to_size: int, first_named: Mapping[str, Naming]
    ) -> ContextLog:
        """Return the log as it would be if these events were recorded at a size; this one stays as it is."""
        supposed = ContextLog()
        supposed.extend(size, list(self.events(0, size)), self.first_named)
        supposed.extend(to_size, drafts, first_named)
        return supposed


def _closure(start: set[str], groups: Sequence[set[str]]) -> set[str]:
    """Return everything that can be reached from `start` through groups that share a member."""
    by_member: dict[str, list[set[str]]] = {}
    for group in groups:
        for member in group:
            by_member.setdefault(member, []).append(group)
    reached, pending = set(start), list(start)
    while pending:
        for group in by_member.pop(pending.pop(), ()):
            pending.extend(group - reached)
            reached |= group
    return reached
