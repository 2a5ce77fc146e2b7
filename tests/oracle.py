"""A naive oracle of belief: each sentence of the semantics as it stands, at one instant, from the whole log.

It shares no line with the engine, keeps nothing between calls and is as slow as it likes. An event is a
CloudEvent as read back (`type`, `source`, `id`, `time`?, `data`, `recordedat`), valid and not erased; its
position is its index in the log. Instants are integer microseconds since 1970-01-01 UTC; -inf and inf are
unbounded. Belief is returned as plain data, positions stand for assertions.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import product
from typing import Any

import rfc8785

Event = Mapping[str, Any]
Log = Sequence[Event]
Stance = tuple[str, bytes, bool]  # origin, value, affirms

DAY = 86_400_000_000
STRENGTH = {"possible": 0, "presumed": 1, "definite": 2}
STATUSES = ("accepted", "contested", "reported", "outweighed", "denied")
RELIABILITY = {"A": 0.95, "B": 0.85, "C": 0.70, "D": 0.45, "E": 0.10, "F": 0.60, "unrated": 0.60}
CERTAINTY = {"certain": 1.0, "probable": 0.75, "possible": 0.5}
SEASONS = {"21": [3, 4, 5], "22": [6, 7, 8], "23": [9, 10, 11], "24": [12, 13, 14]}
NAMING_FIELDS = {
    *(("data", field) for field in ("subject", "entities", "agent", "relays")),
    *(("data", "provenance", field) for field in ("outlet", "speakers")),
    *(("data", "where", field) for field in ("subject", "outlet", "source")),
    ("data", "value", "entity"),
    ("source",),
}


@dataclass(frozen=True)
class Coordinates:
    """Where a belief is read; what is left out is the ledger's own."""

    size: int
    at_us: int
    asserted_before_us: int | None = None
    identity_at_size: int | None = None
    method: str | None = None
    when: str = "possible"


# ---- Spans of valid time -------------------------------------------------------------------------------


def midnights(text: str, step: int) -> Iterator[int]:
    """The midnights of all days that an EDTF date may mean, in order (step 1) or backwards (step -1)."""

    def numbers(pattern: str) -> list[int]:
        choices = ("0123456789" if digit == "X" else digit for digit in pattern)
        return [int("".join(digits)) for digits in product(*choices)]

    year, month, day = [*text.split("-"), "XX", "XX"][:3]
    months = SEASONS.get(month) or [m for m in numbers(month) if 1 <= m <= 12]
    years, days = numbers(year), numbers(day)
    for written, m, d in product(years[::step], months[::step], days[::step]):
        y = written + (m > 12)  # winter ends in the next year
        try:  # Python has no year 0: it is a leap year as 400 is, and 400 years are 146,097 days
            ordinal = date(y or 400, (m - 1) % 12 + 1, d).toordinal() - (0 if y else 146_097)
        except ValueError:
            continue
        yield (ordinal - date(1970, 1, 1).toordinal()) * DAY


def point(text: str) -> tuple[int, int, bool]:
    """The midnights of the first and last day of an EDTF date, or an instant twice and True."""
    text = re.sub("[~?%]", "", text).upper()  # "kept as flags and move no bound"
    if "T" in text:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        instant = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        return instant, instant, True
    first, last = next(midnights(text, 1), None), next(midnights(text, -1), None)
    if first is None or last is None:
        raise ValueError(f"no such day: {text}")
    return first, last, False


def first_instant(text: str) -> int:
    """What `valid_at` means by a date or coarser; of a bare asserted date, its midnight UTC."""
    return point(text)[0]


def asserted_at(event: Event) -> int:
    published_at = (event["data"]["provenance"].get("document") or {}).get("published_at")
    # absent: the document's `published_at`, else the event's `time`, else `recorded_at`
    said = event["data"].get("asserted_at") or published_at or event.get("time") or event["recordedat"]
    return min(first_instant(said), first_instant(event["recordedat"]))  # "no later than `recorded_at`"


@dataclass(frozen=True)
class Span:
    """The bounds of a start and an end, and what `valid` says of them."""

    start_earliest: float
    start_latest: float
    end_earliest: float
    end_latest: float
    start_known: bool  # given as a date
    start_vague: bool  # "vague as given": before asserted_at cut it
    end_known: bool  # the end of an interval, given as a date

    def covers(self, at: float) -> bool:
        """From the earliest bound of the start to the latest bound of the end."""
        return self.start_earliest <= at < self.end_latest


def span(event: Event, lapse_days: int | None = None) -> Span:
    """The span of an assertion, under the `lapse_days` of its predicate."""
    said = asserted_at(event)
    valid = event["data"].get("valid") or "/.."  # absent: unknown start, open end
    interval = "/" in valid
    start, end = valid.split("/") if interval else (valid, valid)
    start_known, end_known = start not in ("", ".."), end not in ("", "..")
    start_earliest = start_latest = -math.inf  # `..`: unbounded
    end_earliest = end_latest = math.inf  # unknown or `..`: open
    timed_end = False
    if end_known:
        first, last, timed_end = point(end)
        # D+1 00:00; a timed end of an interval is that instant; a single instant covers its microsecond
        length = DAY if not timed_end else 0 if interval else 1
        end_earliest, end_latest = first + length, last + length
    if start_known:
        start_earliest, start_latest, _ = point(start)
    elif start == "":  # midnight of the asserted_at day, or of the last day covered if it ended earlier
        start_earliest = start_latest = int(min(said, end_latest - 1)) // DAY * DAY
    start_vague = start_earliest != start_latest
    if start_earliest <= said:  # "had happened when it was said"
        start_latest = min(start_latest, said)
    if end_known and not timed_end:  # "at least one day after the start's earliest bound"
        end_earliest = min(max(end_earliest, start_earliest + DAY), end_latest)
    if not end_known and lapse_days is not None:
        end_earliest = end_latest = max(said, start_earliest) + lapse_days * DAY
    end_known = interval and end_known  # "a single date announces no end"
    return Span(start_earliest, start_latest, end_earliest, end_latest, start_known, start_vague, end_known)


# ---- In force ------------------------------------------------------------------------------------------


def is_a(kind: str, event: Event) -> bool:
    return bool(event["type"] == f"factledger.{kind}.v1")


def exists(event: Event, asserted_before_us: int | None) -> bool:
    """Assertions asserted at or after `asserted_before` do not exist; all other events do."""
    if not is_a("assertion", event) or asserted_before_us is None:
        return True
    return asserted_at(event) < asserted_before_us


def in_force(events: Log, size: int, asserted_before_us: int | None = None) -> set[int]:
    """Positions below size that nothing in force retracts or corrects: backwards, as targets lie earlier."""
    standing: set[int] = set()
    removed: set[int] = set()
    for position in reversed(range(len(events[:size]))):
        if position not in removed and exists(events[position], asserted_before_us):
            standing.add(position)
            removed |= {p for p in range(position) if targets(events[position], p, events[p])}
    return standing


def targets(event: Event, position: int, earlier: Event) -> bool:
    """Whether an event retracts or corrects an earlier one, if it is itself in force."""
    if is_a("retraction", event) and event["data"].get("where"):
        return matches(event["data"]["where"], position, earlier)
    field = {"factledger.retraction.v1": "targets", "factledger.assertion.v1": "corrects"}.get(event["type"], "")
    own_source, named = event["source"], (earlier["source"], earlier["id"])
    return any(
        ref == position if isinstance(ref, int) else (ref.get("source", own_source), ref["id"]) == named
        for ref in event["data"].get(field, [])
    )


def matches(where: Mapping[str, Any], position: int, event: Event) -> bool:
    """All criteria given must match; assertions only, by the ids that they were posted with."""
    if not is_a("assertion", event):
        return False
    data, provenance = event["data"], event["data"]["provenance"]
    tests: dict[str, Callable[[Any], bool]] = {
        "source": lambda wanted: event["source"] == wanted,
        "source_prefix": lambda wanted: str(event["source"]).startswith(wanted),
        "outlet": lambda wanted: provenance["outlet"] == wanted,
        "document_uri": lambda wanted: (provenance.get("document") or {}).get("uri") == wanted,
        "run": lambda wanted: (provenance.get("method") or {}).get("run") == wanted,
        "subject": lambda wanted: data["subject"] == wanted,
        "predicate": lambda wanted: data["predicate"] == wanted,
        "from_position": lambda wanted: wanted <= position,
        "to_position": lambda wanted: position <= wanted,
    }
    return all(tests[field](wanted) for field, wanted in where.items() if wanted is not None)


# ---- Identity ------------------------------------------------------------------------------------------


def names(node: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every id in an event, in the order of the event's canonical bytes: keys sorted, lists as they stand."""
    if isinstance(node, Mapping):
        for key in sorted(node):
            yield from names(node[key], (*path, key))
    elif isinstance(node, list):
        for item in node:
            yield from names(item, path)
    elif isinstance(node, str) and path in NAMING_FIELDS:
        yield node


def clusters(events: Log, size: int, asserted_before_us: int | None = None) -> list[list[str]]:
    """The connected components of the `same` judgements in force, each with its canonical member first."""
    groups: list[set[str]] = []
    for position in in_force(events, size, asserted_before_us):
        if is_a("identity", events[position]) and events[position]["data"]["judgement"] == "same":
            joined = set(events[position]["data"]["entities"])
            joined = joined.union(*(group for group in groups if group & joined))
            groups = [group for group in groups if not group & joined] + [joined]
    # the member that the log named first: in any field of any event, in force or not
    named = [name for event in events[:size] for name in names(event)]
    return [sorted(group, key=named.index) for group in groups]


def canonical_entity(events: Log, size: int, entity: str) -> str:
    return next((cluster[0] for cluster in clusters(events, size) if entity in cluster), entity)


# ---- Origins and surety, at given coordinates ----------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """An assertion with everything in it resolved."""

    position: int
    value: bytes  # canonical
    affirms: bool
    origin: str
    outlet: str
    reliability: float  # of the origin
    q: float
    asserted_at: int
    span: Span

    def covers_how(self, at: float) -> str:
        """How it covers an instant that it covers."""
        if at < self.span.start_latest or at >= self.span.end_earliest:
            return "possible"
        return "presumed" if at > self.asserted_at else "definite"


class World:
    """Identity, agents, vocabulary and policy in force at the coordinates."""

    def __init__(self, events: Log, at: Coordinates) -> None:
        identity_size = at.size if at.identity_at_size is None else at.identity_at_size
        self.events, self.at = events, at
        self.standing = in_force(events, at.size, at.asserted_before_us)
        self.clusters = clusters(events, identity_size, at.asserted_before_us)
        policy = self.last("policy")
        parameters: Mapping[str, Any] = policy.get("parameters") or {}
        self.method: str = at.method or policy.get("method") or "weighed"
        self.ratings: dict[str, float] = RELIABILITY | parameters.get("reliability", {})
        self.certainty: dict[str, float] = CERTAINTY | parameters.get("certainty", {})
        self.accept: float = parameters.get("accept", 0.65)
        self.change: float = parameters.get("change", 0.4)
        self.min_origins: int = parameters.get("min_origins", 1)

    def last(self, kind: str, wanted: Callable[[Mapping[str, Any]], bool] | None = None) -> Mapping[str, Any]:
        """The data of the last event in force of its kind that is wanted, or nothing."""
        data = [self.events[p]["data"] for p in sorted(self.standing) if is_a(kind, self.events[p])]
        return next((d for d in reversed(data) if wanted is None or wanted(d)), {})

    def members(self, entity: str) -> list[str]:
        return next((cluster for cluster in self.clusters if entity in cluster), [entity])

    def canonical(self, entity: str) -> str:
        return self.members(entity)[0]

    def vocabulary(self, predicate: str) -> Mapping[str, Any]:
        """`predicate` events replace the earlier one whole."""
        return self.last("predicate", lambda data: data["predicate"] == predicate)

    def agent(self, agent: str, field: str, default: Any) -> Any:
        """A field holds until restated, null clears; the last said of any member holds for the cluster."""
        members = self.members(agent)
        said = self.last("agent", lambda data: data["agent"] in members and field in data).get(field)
        return default if said is None else said

    def origin(self, provenance: Mapping[str, Any]) -> str:
        """The first speaker, else the outlet, through identity and then along `relays` to the end."""
        agent: str = (provenance.get("speakers") or [provenance["outlet"]])[0]
        met: set[str] = set()
        while (agent := self.canonical(agent)) not in met:  # "stops at the first agent met again"
            met.add(agent)
            agent = self.agent(agent, "relays", default=agent)
        return agent

    def claim(self, position: int, lapse_days: int | None) -> Claim:
        event = self.events[position]
        data, provenance, value = event["data"], event["data"]["provenance"], event["data"]["value"]
        if isinstance(value, Mapping) and "entity" in value:  # compared by canonical id
            value = {"entity": self.canonical(value["entity"])}
        origin, outlet = self.origin(provenance), self.canonical(provenance["outlet"])
        rating = self.agent(origin, "reliability", default="unrated")
        q = data.get("confidence", 1) * self.certainty[data.get("certainty", "certain")]
        q *= self.agent(event["source"], "fidelity", default=1)
        if outlet != origin:
            q *= self.agent(outlet, "fidelity", default=1)
        return Claim(
            position=position,
            value=rfc8785.dumps(value),
            affirms=data.get("polarity", "affirms") == "affirms",
            origin=origin,
            outlet=outlet,
            reliability=self.ratings[rating] if isinstance(rating, str) else rating,
            q=q,
            asserted_at=asserted_at(event),
            span=span(event, lapse_days),
        )

    def claims(self, subject: str, predicate: str) -> list[Claim]:
        """Every assertion that exists in the slot, in force or not."""
        return [
            self.claim(position, self.vocabulary(predicate).get("lapse_days"))
            for position, event in enumerate(self.events[: self.at.size])
            if is_a("assertion", event)
            and exists(event, self.at.asserted_before_us)
            and event["data"]["predicate"] == predicate
            and self.canonical(event["data"]["subject"]) == self.canonical(subject)
        ]


# ---- What counts at t ----------------------------------------------------------------------------------


class Slot:
    """One slot at one instant: what counts, and what dropped out."""

    def __init__(self, world: World, subject: str, predicate: str) -> None:
        vocabulary, t = world.vocabulary(predicate), world.at.at_us
        self.world, self.t = world, t
        self.one = vocabulary.get("cardinality", "many") == "one"
        default_n = 1 if vocabulary.get("value_type") == "boolean" else 10
        self.n: int = vocabulary.get("plausible_values", default_n) if self.one else 1
        every = world.claims(subject, predicate)
        self.not_in_force = [c.position for c in every if c.position not in world.standing]
        # `when` leaves out the assertions that cover t more weakly, before anything below
        asked = STRENGTH[world.at.when]
        self.left = [c for c in every if not c.span.covers(t) or STRENGTH[c.covers_how(t)] >= asked]
        self.pool = [c for c in self.left if c.position in world.standing and c.q > 0]
        covering = [c for c in self.pool if c.span.covers(t)]
        self.superseded = {c.position: by for c in covering if (by := self.superseding(c, t))}
        current = [c for c in covering if c.position not in self.superseded]
        self.outdated = {c.position: by for c in current if (by := self.outdating(c))}
        self.counting = [c for c in current if c.position not in self.outdated]

    def superseding(self, a: Claim, at: float) -> list[int]:
        """The later ones by a's origin that displace a, of those that cover the instant."""
        return [
            b.position
            for b in self.pool
            if b.span.covers(at)
            and b.origin == a.origin
            and (b.asserted_at, b.position) > (a.asserted_at, a.position)
            and round(b.q, 9) >= self.world.change
            and (
                # an affirmation, by one that affirms another value or denies its value
                (a.affirms and self.one and b.affirms and b.value != a.value)
                or (a.affirms and not b.affirms and b.value == a.value)
                # a denial, by an affirmation of that value
                or (not a.affirms and b.affirms and b.value == a.value)
            )
        ]

    def outdating(self, a: Claim) -> list[int]:
        """Those that announce a change by which a no longer holds, and are as credible as a."""
        meeting = [b for b in self.pool if b.position != a.position and self.meets(a, b)]
        return [
            b.position
            for b in meeting
            # b's origin is at least as reliable as a's, or those who affirm b's value reach its reliability
            if b.reliability >= a.reliability
            or self.taken_alone([other for other in meeting if other.value == b.value]) >= a.reliability
        ]

    def meets(self, a: Claim, b: Claim) -> bool:
        """Whether b meets every condition against a but that of the origins' reliability."""
        credible = round(b.reliability * b.q, 9) >= self.world.change
        # where it does not cover t: at the last instant that it covers
        judged = self.t if b.span.covers(self.t) else b.span.end_latest - 1
        stands = b.span.covers(judged) and not self.superseding(b, judged)
        announces = any(a.asserted_at < c <= self.t for c in self.changes(a, b))
        return b.affirms and credible and stands and announces

    def changes(self, a: Claim, b: Claim) -> Iterator[float]:
        """The instants c at which an affirmation b announces a change to a."""
        # start; an unknown or unbounded start of a counts as earlier than any
        a_earliest, a_latest = -math.inf, -math.inf
        if a.span.start_known:
            a_earliest, a_latest = a.span.start_earliest, a.span.start_latest
        c = b.span.start_latest
        if (
            b.span.start_known
            and (c > a_latest or (c == a_latest and b.asserted_at >= c))
            and ((self.one and b.value != a.value) if a.affirms else b.value == a.value)
            and (not b.span.start_vague or b.span.start_earliest > a_earliest)
        ):
            yield c
        # end
        c = b.span.end_earliest
        if (
            b.span.end_known
            and (a.affirms and b.value == a.value)
            and b.span.end_latest < a.span.end_latest
            and b.asserted_at >= a.asserted_at
            and a.span.start_earliest < c
        ):
            yield c

    def taken_alone(self, meeting: list[Claim]) -> float:
        """P of the value that these affirm, under `weighed`, as if they were all there is."""
        held = stances(meeting)
        return round(probabilities({b"": score(self, held, meeting[0].value)}, self)[b""], 9)


# ---- Methods -------------------------------------------------------------------------------------------


def stances(claims: Iterable[Claim]) -> dict[Stance, tuple[float, float]]:
    """One per origin, value and polarity: its q = 1 - prod(1 - q_i) and the origin's reliability."""
    grouped: dict[Stance, list[Claim]] = {}
    for c in claims:
        grouped.setdefault((c.origin, c.value, c.affirms), []).append(c)
    return {key: (1 - math.prod(1 - c.q for c in said), said[0].reliability) for key, said in grouped.items()}


def score(slot: Slot, held: Mapping[Stance, tuple[float, float]], value: bytes) -> float:
    """The sum of ln LR over the stances on a value."""
    n = slot.n
    return math.fsum(
        math.log(max(1, (q * r + (1 - q) / (n + 1)) / (q * (1 - r) / n + (1 - q) / (n + 1))))
        if affirms
        else math.log(min(1, (q * (1 - r) + (1 - q) / 2) / (q * r + (1 - q) / 2)))
        for (_, stood, affirms), (q, r) in held.items()
        if stood == value
    )


def probabilities(scores: Mapping[bytes, float], slot: Slot) -> dict[bytes, float]:
    """P by score. For `one`, above and below the line are divided by exp(top), which else might overflow."""
    if not slot.one:
        return {v: 1 / (1 + math.exp(min(-s, 700))) for v, s in scores.items()}
    top = max([0.0, *scores.values()])
    unsaid = max(0, slot.n + 1 - len(scores)) * math.exp(-top)
    total = math.fsum([unsaid, *(math.exp(s - top) for s in scores.values())])
    return {v: math.exp(s - top) / total for v, s in scores.items()}


def majority(slot: Slot, value: bytes) -> float:
    """Affirming origins / origins with a stance in the slot; many: on that value."""
    heard = [c for c in slot.counting if slot.one or c.value == value]
    return len({c.origin for c in heard if c.value == value and c.affirms}) / len({c.origin for c in heard})


def latest(slot: Slot, value: bytes) -> float:
    """1 for the value that the last counting assertion affirms; many: the last on that value."""
    heard = [c for c in slot.counting if slot.one or c.value == value]
    last = max(heard, key=lambda c: (c.asserted_at, c.position), default=None)
    return 1.0 if last is not None and last.affirms and last.value == value else 0.0


# ---- Status, and the whole -----------------------------------------------------------------------------


def extent(claims: Iterable[Claim]) -> dict[str, int]:
    """How much stands on one side."""
    by = [(c.position, c.origin, c.outlet) for c in claims]
    return {what: len({row[i] for row in by}) for i, what in enumerate(("assertions", "origins", "outlets"))}


def believe(events: Log, subject: str, predicate: str, at: Coordinates) -> dict[str, Any]:
    """Belief in one slot at the coordinates: the values with a stance, best first, and what dropped out."""
    world = World(events, at)
    slot = Slot(world, subject, predicate)
    found = {c.value for c in slot.counting}
    support = {v: [c for c in slot.counting if c.value == v and c.affirms] for v in found}
    denials = {v: [c for c in slot.counting if c.value == v and not c.affirms] for v in found}
    affirming = {v: len({c.origin for c in support[v]}) for v in found}
    if world.method == "weighed":
        scores = {v: score(slot, stances(slot.counting), v) for v in found}
        chances = probabilities(scores, slot)
    else:  # "denials weigh more" means that fewer origins affirm than deny
        method = {"majority": majority, "latest": latest}[world.method]
        scores = {v: float(affirming[v] - len({c.origin for c in denials[v]})) for v in found}
        chances = {v: method(slot, v) for v in found}
    scores = {v: round(number, 9) for v, number in scores.items()}
    chances = {v: round(number, 9) for v, number in chances.items()}
    accepted = {v for v in found if chances[v] >= world.accept and affirming[v] >= world.min_origins}

    def status(v: bytes) -> str:
        """The first that fits."""
        rivals = found - {v} if slot.one else set()
        if v in accepted:
            return "accepted"
        if not support[v]:
            return "denied"
        if not denials[v] and not any(support[rival] for rival in rivals):
            return "reported"
        return "outweighed" if accepted & rivals or scores[v] < 0 else "contested"

    ordered = sorted(found, key=lambda v: (-chances[v], v))
    how = {v: {c.covers_how(at.at_us) for c in support[v]} for v in found}
    if ordered:
        # one: of the value with the greatest P, of equals the first in order; many: the first in order
        best = [v for v in ordered if not slot.one or chances[v] == chances[ordered[0]]]
        slot_status = min(map(status, best), key=STATUSES.index)
    else:  # withdrawn: no assertion in force covers t and one not in force does
        covering = {c.position in world.standing for c in slot.left if c.span.covers(at.at_us)}
        slot_status = "withdrawn" if covering == {False} else "unknown"
    return {
        "canonical": world.canonical(subject),
        "members": sorted(world.members(subject)),
        "cardinality": "one" if slot.one else "many",
        "status": slot_status,
        "values": [
            {
                "value": json.loads(v),
                "probability": chances[v],
                "score": scores[v],
                "status": status(v),
                "when": max(how[v], key=STRENGTH.__getitem__, default=None),
                "support": extent(support[v]),
                "opposition": extent(denials[v]),
                "last_asserted_at": max((c.asserted_at for c in support[v]), default=None),
            }
            for v in ordered
        ],
        "superseded": slot.superseded,
        "outdated": slot.outdated,
        "not_in_force": slot.not_in_force,
    }


def boundaries(events: Log, subject: str, predicate: str, size: int) -> list[int]:
    """The instants at which belief in the slot could change; between two neighbours it does not."""
    instants: set[float] = set()
    for c in World(events, Coordinates(size, at_us=0)).claims(subject, predicate):
        instants |= {c.span.start_earliest, c.span.start_latest, c.span.end_earliest, c.span.end_latest}
        instants |= {c.asserted_at, c.asserted_at + 1}
    return sorted(int(instant) for instant in instants if math.isfinite(instant))
