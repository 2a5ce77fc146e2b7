"""Logs to try the ledger with: few ids, few instants, every event type, so that things collide."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import strategies as st

Event = dict[str, Any]

SUBJECTS = ["e:1", "e:2", "e:3"]
AGENTS = ["a:1", "a:2", "a:3", "a:4"]
SOURCES = ["x:one@1", "x:one@2", "x:two@1"]
PREDICATES = ["place", "alias", "alive", "rank"]
DAYS = [f"2021-09-{day:02d}" for day in range(1, 8)]
VALIDS = [
    None,
    "..",
    *DAYS,
    *(f"{day}/.." for day in DAYS),
    *(f"{day}/" for day in DAYS[:3]),
    "2021-09-02/2021-09-05",
    "2021-09-01/2021-09-03",
    "2021-09-04/2021-09-06",
    "../2021-09-04",
    "/2021-09-05",
    "2021-09/..",
    "2021-08/..",
    "2021-09-0X/..",
    "2021-09-01/2021-09-0X",
    "2021-09",
    "2021-09-03T12:00:00Z",
    "2021-09-03T12:00:00Z/2021-09-05T06:00:00Z",
    "2021-09-04~/..",
]
VALUES: list[Any] = [{"entity": "e:1"}, {"entity": "e:2"}, {"entity": "e:3"}, "x", 7, True]

chance = st.sampled_from


def assertions(positions: int) -> st.SearchStrategy[Event]:
    """Assertions, some of which correct an earlier one."""

    @st.composite
    def build(draw: st.DrawFn) -> Event:
        data: Event = {
            "subject": draw(chance(SUBJECTS)),
            "predicate": draw(chance(["place", "place", *PREDICATES])),
            "value": draw(chance(VALUES)),
            "provenance": {"outlet": draw(chance(AGENTS))},
        }
        if draw(st.integers(0, 3)) == 0:
            data["polarity"] = "denies"
        valid = draw(chance(VALIDS))
        if valid is not None and valid != "..":
            data["valid"] = valid
        if draw(st.integers(0, 4)):
            data["asserted_at"] = draw(chance([*DAYS, "2021-09-03T12:00:00Z", "2021-09-03T12:00:01Z"]))
        if draw(st.integers(0, 3)) == 0:
            data["certainty"] = draw(chance(["probable", "possible"]))
        if draw(st.integers(0, 3)) == 0:
            data["confidence"] = draw(chance([0, 0.3, 0.5, 0.667, 0.93]))
        if draw(st.booleans()):
            data["provenance"]["speakers"] = [draw(chance(AGENTS))]
        if draw(st.integers(0, 5)) == 0:
            data["provenance"]["document"] = {
                "uri": draw(chance(["doc:1", "doc:2"])),
                "published_at": "2021-09-04",
            }
        if draw(st.integers(0, 5)) == 0:
            data["provenance"]["method"] = {"run": draw(chance(["r1", "r2"]))}
        if positions and draw(st.integers(0, 9)) == 0:
            data["corrects"] = [draw(st.integers(0, positions - 1))]
        return {"type": "factledger.assertion.v1", "data": data}

    return build()


def agents() -> st.SearchStrategy[Event]:
    """Ratings, fidelities and relays, stated and cleared."""
    fields = st.fixed_dictionaries(
        {"agent": chance([*AGENTS, *SOURCES])},
        optional={
            "reliability": chance(["A", "B", "C", "D", "E", "F", 0.5, 0.8, None]),
            "fidelity": chance([0, 0.5, 0.9, 1, None]),
            "relays": chance([*AGENTS, None]),
        },
    )
    return fields.map(lambda data: {"type": "factledger.agent.v1", "data": data})


def identities() -> st.SearchStrategy[Event]:
    """Judgements over entities and agents."""
    pool = st.one_of(
        st.lists(chance(SUBJECTS), min_size=2, max_size=3, unique=True),
        st.lists(chance(AGENTS), min_size=2, max_size=2, unique=True),
    )
    return st.fixed_dictionaries({"entities": pool, "judgement": chance(["same", "same", "different", "unsure"])}).map(
        lambda data: {"type": "factledger.identity.v1", "data": data}
    )


def predicates() -> st.SearchStrategy[Event]:
    """Declarations, which replace each other."""
    return st.fixed_dictionaries(
        {"predicate": chance(PREDICATES), "cardinality": chance(["one", "one", "many"])},
        optional={"plausible_values": chance([1, 2, 10, 100]), "lapse_days": chance([0, 1, 3])},
    ).map(lambda data: {"type": "factledger.predicate.v1", "data": data})


def policies() -> st.SearchStrategy[Event]:
    """Methods and parameters."""
    parameters = st.fixed_dictionaries(
        {},
        optional={
            "accept": chance([0.5, 0.65, 0.9]),
            "change": chance([0.2, 0.4, 0.7]),
            "min_origins": chance([1, 2]),
            "reliability": st.just({"unrated": 0.7, "D": 0.3}),
            "certainty": st.just({"probable": 0.6}),
        },
    )
    return st.fixed_dictionaries(
        {}, optional={"method": chance(["weighed", "latest", "majority"]), "parameters": parameters}
    ).map(lambda data: {"type": "factledger.policy.v1", "data": data})


def retractions(positions: int) -> st.SearchStrategy[Event]:
    """Retractions of single events and of whatever meets criteria."""
    targets = st.lists(st.integers(0, max(positions - 1, 0)), min_size=1, max_size=2)
    criteria = st.one_of(
        chance(SOURCES).map(lambda source: {"source": source}),
        chance(["x:one", "x:"]).map(lambda prefix: {"source_prefix": prefix}),
        chance(AGENTS).map(lambda outlet: {"outlet": outlet}),
        st.just({"document_uri": "doc:1"}),
        st.just({"run": "r1"}),
        chance(SUBJECTS).map(lambda subject: {"subject": subject, "from_position": 2}),
        chance(PREDICATES).map(lambda predicate: {"predicate": predicate, "to_position": 6}),
    )
    by_target = targets.map(lambda found: {"targets": found, "reason": "other"})
    by_where = criteria.map(lambda found: {"where": found, "reason": "extractor_error"})
    either = st.one_of(by_target, by_target, by_where) if positions else by_where
    return either.map(lambda data: {"type": "factledger.retraction.v1", "data": data})


@st.composite
def events(draw: st.DrawFn, position: int, positions: int) -> Event:
    """One event to be posted next, with an id of its own; `positions` events are recorded already."""
    kind = draw(st.integers(0, 19))
    if kind < 11:
        event = draw(assertions(positions))
    elif kind < 13:
        event = draw(agents())
    elif kind < 14:
        event = draw(predicates())
    elif kind < 16:
        event = draw(identities())
    elif kind < 17:
        event = draw(policies())
    else:
        event = draw(retractions(positions))
    event = {**event, "specversion": "1.0", "source": draw(chance(SOURCES)), "id": f"n{position}"}
    if draw(st.integers(0, 5)) == 0:
        event["time"] = "2021-09-05T08:00:00Z"
    return event


DECLARE_PLACE: Event = {
    "specversion": "1.0",
    "source": "x:one@1",
    "id": "declare-place",
    "type": "factledger.predicate.v1",
    "data": {"predicate": "place", "cardinality": "one"},
}


@st.composite
def logs(draw: st.DrawFn, most: int, least: int = 1) -> list[Event]:
    """A log to be posted in one go, on from `DECLARE_PLACE`; where something of it is refused, targets shift."""
    return [draw(events(n, n + 1)) for n in range(draw(st.integers(least, most)))]


@st.composite
def crowded_logs(draw: st.DrawFn, most: int) -> list[Event]:
    """A log whose assertions all meet in the slot `e:1 place`, on from `DECLARE_PLACE`."""
    log = draw(logs(most, least=2))
    for event in log:
        if event["type"] == "factledger.assertion.v1":
            event["data"] = {**event["data"], "subject": "e:1", "predicate": "place"}
            event["data"]["value"] = draw(chance(VALUES[:3]))
    return log


@st.composite
def corrected_logs(draw: st.DrawFn, most: int) -> list[Event]:
    """A log of assertions that correct each other across slots, and of retractions, on from `DECLARE_PLACE`."""
    log: list[Event] = []
    claims: list[int] = []
    for position in range(1, draw(st.integers(3, most)) + 1):
        kind = draw(st.integers(0, 5))
        if kind < 3 or not claims:
            # Nothing about them is vague, so that what corrects what is all there is to see.
            claim: Event = {
                "subject": draw(chance(SUBJECTS[:2])),
                "predicate": draw(chance(PREDICATES[:2])),
                "value": draw(chance(VALUES[:2])),
                "provenance": {"outlet": draw(chance(AGENTS[:2]))},
                "asserted_at": DAYS[0],
            }
            if claims and draw(chance([False, True])):
                claim["corrects"] = [draw(chance(claims))]
            event = {"type": "factledger.assertion.v1", "data": claim}
            claims.append(position)
        elif kind == 3:
            single = {"targets": [draw(st.integers(1, position - 1))], "reason": "other"}
            event = {"type": "factledger.retraction.v1", "data": single}
        else:
            ids = {"subject": SUBJECTS[:2], "predicate": PREDICATES[:2], "outlet": AGENTS[:2]}
            name = draw(chance(sorted(ids)))
            bulk = {"where": {name: draw(chance(ids[name]))}, "reason": "other"}
            event = {"type": "factledger.retraction.v1", "data": bulk}
        log.append({**event, "specversion": "1.0", "source": SOURCES[0], "id": f"n{position}"})
    return log


# Decides nothing, and names every id: after it, no later event makes another member of a cluster canonical.
NAME_ALL: Event = {
    "specversion": "1.0",
    "source": SOURCES[0],
    "id": "name-all",
    "type": "factledger.identity.v1",
    "data": {"entities": [*SUBJECTS, *AGENTS, *SOURCES], "judgement": "unsure"},
}


def as_posted(event: Event) -> Event:
    """Return an event that was read back as its producer posted it."""
    added = {"ledger", "position", "recordedat", "recordedby", "datasha256", "datasalt", "inforce"}
    posted = {name: member for name, member in event.items() if name not in added}
    return {**posted, "data": {name: member for name, member in event["data"].items() if name != "matched"}}


def crowded_slot(random: Random) -> list[Event]:
    """One slot that five rated agents crowd with overlapping claims: what supersedes and outdates in earnest."""
    declared: Event = {"predicate": "place", "cardinality": random.choice(["one", "one", "one", "many"])}
    if random.random() < 0.4:
        declared["plausible_values"] = random.choice([1, 2, 10, 100])
    if random.random() < 0.2:
        declared["lapse_days"] = random.choice([1, 3])
    contents = [("predicate", declared)]
    for agent in range(5):
        rating = random.choice(["A", "B", "C", "D", "E", 0.5, 0.7, None])
        contents.append(("agent", {"agent": f"a:{agent}", "reliability": rating}))
    for _ in range(random.randint(3, 13)):
        first = random.randint(1, 11)
        last = first + random.randint(0, 4)
        spans = [f"2021-09-{first:02d}/..", f"2021-09-{first:02d}/2021-09-{last:02d}", f"2021-09-{first:02d}"]
        vague = ["../..", "../2021-09-06", "/2021-09-05", "2021-09/..", "2021-09-0X/..", "2021-08/2021-09-0X"]
        data: Event = {
            "subject": "e:1",
            "predicate": "place",
            "value": random.choice("xyz"),
            "asserted_at": f"2021-09-{random.randint(1, 11):02d}",
            "polarity": random.choice(["affirms", "affirms", "affirms", "affirms", "denies"]),
            "certainty": random.choice(["certain", "certain", "probable", "possible"]),
            "confidence": random.choice([1, 1, 0.9, 0.6]),
            "valid": random.choice([*spans, *spans, random.choice(vague)]),
            "provenance": {"outlet": f"a:{random.randrange(5)}"},
        }
        if random.random() < 0.1:
            del data["valid"]
        contents.append(("assertion", data))
    return [
        {"specversion": "1.0", "type": f"factledger.{kind}.v1", "source": "x:one@1", "id": f"c{n}", "data": data}
        for n, (kind, data) in enumerate(contents)
    ]
