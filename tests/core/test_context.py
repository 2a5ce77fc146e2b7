"""Context: what the ledger's own events say of identity, agents, vocabulary and policy, and which of them count."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings

from factledger.core import events, times
from factledger.core.context import Context, ContextEvent, not_in_force
from factledger.core.errors import LedgerError
from factledger.core.identity import Clusters, Judgement
from factledger.ledger import Ledger, Ledgers
from factledger.reading import Question
from factledger.recording import Receipt
from tests import oracle, strategies
from tests.checking import Event, ask, check_ledger, read_log, record, request, without

numbers = itertools.count()


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """What is said here does not depend on the database."""
    return sqlite_url


# ---- Events --------------------------------------------------------------------------------------------


def event(kind: str, **data: Any) -> Event:
    named = {"specversion": "1.0", "source": "x:one@1", "id": f"c{next(numbers)}"}
    return {**named, "type": f"factledger.{kind}.v1", "data": data}


def agent(name: str, **fields: Any) -> Event:
    return event("agent", agent=name, **fields)


def same(*entities: str) -> Event:
    return event("identity", entities=list(entities), judgement="same")


def different(*entities: str) -> Event:
    return event("identity", entities=list(entities), judgement="different")


def retract(*targets: int) -> Event:
    return event("retraction", targets=list(targets), reason="other")


def claim(subject: str = "s", value: Any = "v", outlet: str = "o", **data: Any) -> Event:
    return event("assertion", subject=subject, predicate="p", value=value, provenance={"outlet": outlet}, **data)


def context(log: Sequence[Event], size: int | None = None, identity_at_size: int | None = None) -> Context:
    """Return the context that follows from a log, of which nothing but the log is known."""
    found: list[ContextEvent] = []
    named: dict[str, tuple[int, int]] = {}
    for position, e in enumerate(log):
        for ordinal, name in enumerate(oracle.names(e)):
            named.setdefault(name, (position, ordinal))
        aimed = [p for p in range(position) if "where" not in e["data"] and oracle.targets(e, p, log[p])]
        if not oracle.is_a("assertion", e):
            beyond = tuple(p for p in aimed if not oracle.is_a("assertion", log[p]))
            found.append(ContextEvent(position, e["type"], e["data"], beyond))
    at = len(log) if size is None else size
    judged = at if identity_at_size is None else identity_at_size
    recorded = [e for e in found if e.position < at]
    return Context(recorded, recorded if judged == at else [e for e in found if e.position < judged], named)


# ---- Relays --------------------------------------------------------------------------------------------


def test_an_origin_is_the_end_of_the_relays() -> None:
    log = [agent("a", relays="b"), agent("b", relays="c"), agent("d", label="alone")]
    assert [context(log).origin(name) for name in "abcdx"] == ["c", "c", "c", "d", "x"]
    assert context(log).relay_cycle() is None
    assert [context(log, size).origin("a") for size in range(4)] == ["a", "b", "c", "c"]


def test_relays_are_restated_and_cleared() -> None:
    log = [agent("a", relays="b"), agent("a", label="x"), agent("a", relays="c"), agent("a", relays=None), retract(3)]
    assert [context(log, size).origin("a") for size in range(1, 6)] == ["b", "b", "c", "a", "c"]


def test_relays_lead_through_clusters() -> None:
    log = [agent("a", relays="b1"), same("b1", "b2"), agent("b2", relays="c1"), same("c2", "c1")]
    assert context(log).canonical("c2") == "c1"  # the log named it first
    assert context(log).origin("a") == "c1"
    assert context(log, identity_at_size=0).origin("a") == "b1"
    assert context(log, identity_at_size=2).origin("a") == "c1"


@pytest.mark.parametrize(
    "log",
    [
        [agent("a", relays="a")],
        [agent("a", relays="b"), agent("b", relays="a")],
        [agent("a", relays="b"), agent("b", relays="c"), agent("c", relays="a")],
        [agent("a", relays="b"), same("a", "b")],
        [agent("a", relays="b1"), agent("b2", relays="a"), same("b1", "b2")],
        [agent("a", relays="b"), agent("b", relays="c"), agent("b", relays=None), agent("c", relays="a"), retract(2)],
        # While they are one, the later word of b holds for a too; apart, a relays b again.
        [same("a", "b"), agent("a", relays="c"), agent("b", relays=None), agent("c", relays="a"), retract(0)],
    ],
)
def test_a_circle_of_relays_is_found_and_refused(log: list[Event], ledger: Ledger) -> None:
    *before, last = log
    assert context(log).relay_cycle() is not None
    assert context(before).relay_cycle() is None
    assert record(ledger, before) == before
    with pytest.raises(LedgerError) as refused:
        ledger.append_one(request(last))
    assert refused.value.code == "relay-cycle"
    assert ledger.size() == len(before)


def test_a_circle_that_a_retraction_would_close_is_refused(ledger: Ledger) -> None:
    ledger.append_one(request(agent("a", relays="b"), agent("b", relays="a"), agent("b", relays=None)))
    with pytest.raises(LedgerError) as refused:
        ledger.append_one(request(retract(2)))
    assert refused.value.code == "relay-cycle"
    assert ledger.append_one(request(retract(0))).size == 4
    assert ledger.append_one(request(retract(2))).size == 5


def test_a_circle_is_refused_by_what_an_append_comes_to(ledger: Ledger) -> None:
    """Within a batch the order does not matter, only the result; the refusal points at the event that closes it."""
    receipt = ledger.append_one(request(agent("a", relays="b"), agent("b", relays="a"), agent("a", relays=None)))
    assert receipt.size == 3
    with pytest.raises(LedgerError) as refused:
        ledger.append_one(request(claim(), agent("a", relays="b"), agent("z"), pointers=True))
    assert refused.value.errors[0].pointer == "/1"
    assert ledger.size() == 3


def test_in_a_circle_the_first_agent_met_again_is_the_origin(ledger: Ledger) -> None:
    """Possible under another `identity_at_size` only."""
    log = [
        same("b1", "b2"),
        agent("b1", relays="c"),
        agent("b2", relays=None),
        agent("c", relays="b1"),
        agent("a", relays="c"),
    ]
    assert record(ledger, log) == log
    with ledger.snapshot(Question()) as snapshot:
        assert [snapshot.context.origin(name) for name in ("a", "b1", "b2", "c")] == ["b1", "b1", "b1", "b1"]
    with ledger.snapshot(Question(identity_at_size=0)) as snapshot:
        assert [snapshot.context.origin(name) for name in ("a", "b1", "b2", "c")] == ["c", "b1", "b2", "c"]


# ---- Agents --------------------------------------------------------------------------------------------


def test_each_field_of_an_agent_holds_until_restated() -> None:
    log = [
        agent("a", reliability="B", fidelity=0.5, label="first"),
        agent("a", reliability=0.3),
        agent("a", fidelity=None, label="second"),
        agent("a", reliability=None),
    ]
    found = [context(log, size) for size in range(len(log) + 1)]
    assert [c.reliability("a") for c in found] == [0.6, 0.85, 0.3, 0.3, 0.6]
    assert [c.fidelity("a") for c in found] == [1, 0.5, 0.5, 1, 1]
    assert [c.agent("a").get("label") for c in found] == [None, "first", "first", "second", "second"]


def test_what_was_said_last_of_any_member_holds_for_the_cluster() -> None:
    log = [
        agent("a", reliability="A", fidelity=0.9),
        agent("b", reliability="E"),
        same("b", "a"),
        agent("b", fidelity=0),
    ]
    found = context(log)
    assert found.canonical("b") == "a"
    assert (found.reliability("a"), found.fidelity("a"), found.fidelity("b")) == (0.1, 0, 0)
    apart = context(log, identity_at_size=2)
    assert (apart.reliability("a"), apart.reliability("b")) == (0.95, 0.1)
    assert (apart.fidelity("a"), apart.fidelity("b")) == (0.9, 0)
    early = context(log, size=2, identity_at_size=4)
    assert (early.canonical("b"), early.reliability("a"), early.fidelity("a")) == ("a", 0.1, 0.9)


def test_grades_are_what_the_policy_says() -> None:
    log = [agent(grade, reliability=grade) for grade in "ABCDEF"]
    assert [context(log).reliability(grade) for grade in "ABCDEFx"] == [0.95, 0.85, 0.7, 0.45, 0.1, 0.6, 0.6]
    log += [event("policy", parameters={"reliability": {"B": 0.5, "unrated": 0.2}}), agent("A", reliability=0.4)]
    assert [context(log).reliability(grade) for grade in "ABCDEFx"] == [0.4, 0.5, 0.7, 0.45, 0.1, 0.6, 0.2]


# ---- Vocabulary and policy -----------------------------------------------------------------------------


def test_a_declaration_replaces_the_earlier_one_whole() -> None:
    log = [
        event("predicate", predicate="p", cardinality="one", plausible_values=3, lapse_days=0.5, label="x"),
        event("predicate", predicate="p", cardinality="one", value_type="boolean"),
        event("predicate", predicate="p", cardinality="many"),
        retract(2),
        retract(1, 0),
    ]
    found = [context(log, size).vocabulary("p") for size in range(len(log) + 1)]
    assert [v.single for v in found] == [False, True, True, False, True, False]
    assert [v.plausible_values for v in found] == [10, 3, 1, 10, 1, 10]
    assert [v.lapse for v in found] == [None, times.DAY // 2, None, None, None, None]
    assert [v.value_type for v in found] == ["any", "any", "boolean", "any", "boolean", "any"]
    assert context(log).vocabulary("q") == context([]).vocabulary("p")
    assert context(log, 1).declared().keys() == {"p"}


def test_a_policy_replaces_the_earlier_one_whole() -> None:
    log = [
        event("policy", method="latest", parameters={"accept": 0.9, "change": 0, "min_origins": 2}),
        event("policy", parameters={"certainty": {"probable": 0}}),
        retract(1),
        retract(2),
    ]
    found = [context(log, size).policy for size in range(len(log) + 1)]
    assert [p.method for p in found] == ["weighed", "latest", "weighed", "latest", "weighed"]
    assert [p.accept for p in found] == [0.65, 0.9, 0.65, 0.9, 0.65]
    assert [p.change for p in found] == [0.4, 0, 0.4, 0, 0.4]
    assert [p.min_origins for p in found] == [1, 2, 1, 2, 1]
    assert [p.certainty["probable"] for p in found] == [0.75, 0.75, 0, 0.75, 0]
    assert found[2].certainty == {"certain": 1, "probable": 0, "possible": 0.5}
    assert [p.position for p in found] == [None, 0, 1, 0, 1]


# ---- Identity ------------------------------------------------------------------------------------------


def clusters(*judgements: tuple[str, str], named: str = "abcdefgh") -> Clusters:
    found = [
        Judgement(position, tuple(entities), {"=": "same", "!": "different", "?": "unsure"}[verdict])
        for position, (entities, verdict) in enumerate(judgements)
    ]
    return Clusters(found, {name: (ordinal, 0) for ordinal, name in enumerate(named)})


def test_the_canonical_member_is_the_one_that_was_named_first() -> None:
    found = clusters(("cb", "="), ("cd", "="), ("ef", "="), named="dcbafe")
    assert [found.canonical(name) for name in "abcdefx"] == ["a", "d", "d", "d", "f", "f", "x"]
    assert found.members("d") == ("b", "c", "d")
    assert found.members("a") == ("a",)
    assert found.merged() == {"d": ("b", "c", "d"), "f": ("e", "f")}


def test_within_an_event_ids_are_named_in_the_order_of_its_bytes() -> None:
    found = context([event("identity", entities=["z", "a"], judgement="same")])
    assert found.canonical("a") == "z"  # a list keeps its order
    named = claim("s", {"entity": "v"}, "z-outlet")  # data: predicate, provenance, subject, value; then source
    for pair, first in ((("v", "s"), "s"), (("s", "z-outlet"), "z-outlet"), (("x:one@1", "v"), "v")):
        assert (
            context([named, same(*pair)]).canonical(pair[0])
            == first
            == context([named, same(*pair)]).canonical(pair[1])
        )


def test_an_event_that_is_not_in_force_has_named_its_ids_too() -> None:
    log = [claim("late"), retract(0), same("early", "late")]
    assert context(log).canonical("early") == "late"


@pytest.mark.parametrize(
    ("judgements", "contradicted"),
    [
        ([("ab", "="), ("ab", "!")], [1]),
        ([("ab", "!"), ("bc", "="), ("ca", "=")], [0]),
        ([("abc", "!"), ("cd", "="), ("de", "="), ("ea", "=")], [0]),
        ([("abc", "!"), ("cd", "="), ("de", "=")], []),
        ([("ab", "="), ("cd", "="), ("ac", "!"), ("bd", "!")], []),
        ([("ab", "="), ("cd", "="), ("ac", "!"), ("bd", "!"), ("bc", "=")], [2, 3]),
        ([("ab", "?"), ("ab", "!")], []),
        ([("ab", "?"), ("ab", "=")], []),
        ([("abcd", "="), ("ad", "!")], [1]),
    ],
)
def test_a_judgement_that_is_contradicted_is_found(judgements: Any, contradicted: list[int]) -> None:
    assert [found.position for found in clusters(*judgements).conflicts()] == contradicted


@pytest.mark.parametrize(
    "log",
    [
        [different("a", "b"), same("a", "b")],
        [same("a", "b"), different("b", "a")],
        [different("a", "c"), same("a", "b"), same("b", "c")],
        [same("a", "b"), same("b", "c"), different("a", "x", "c")],
        [different("a", "b"), retract(0), same("a", "b"), retract(1)],
        [same("a", "b"), retract(0), different("a", "b"), retract(1)],
    ],
)
def test_a_contradiction_is_refused_naming_the_judgements(log: list[Event], ledger: Ledger) -> None:
    *before, last = log
    assert record(ledger, before) == before
    with pytest.raises(LedgerError) as refused:
        ledger.append_one(request(last))
    assert refused.value.code == "identity-conflict"
    apart = [n for n, e in enumerate(before) if e["data"].get("judgement") == "different"]
    assert f"at positions {', '.join(map(str, apart))}." in refused.value.detail or not apart
    assert ("position" in refused.value.detail) == bool(apart)
    assert ledger.size() == len(before)


def test_a_batch_is_judged_by_what_it_comes_to(ledger: Ledger) -> None:
    together = [different("a", "b"), same("a", "b"), event("retraction", targets=[0], reason="other")]
    assert ledger.append_one(request(*together)).size == 3
    with pytest.raises(LedgerError) as refused:
        ledger.append_one(request(claim("a"), different("c", "d"), claim("b"), same("d", "c"), pointers=True))
    assert (refused.value.code, refused.value.errors[0].pointer) == ("identity-conflict", "/3")
    assert ledger.size() == 3


def test_the_requests_of_one_transaction_are_judged_one_after_the_other(ledger: Ledger) -> None:
    outcomes = ledger.append(
        [request(same("a", "b")), request(different("a", "b")), request(retract(0)), request(different("a", "b"))]
    )
    assert [o.size if isinstance(o, Receipt) else o.code for o in outcomes] == [1, "identity-conflict", 2, 3]


def test_identity_decides_at_the_size_that_is_asked_for(ledger: Ledger) -> None:
    log = [claim("a", "x"), claim("b", "y"), same("b", "a"), retract(2), claim("c", {"entity": "b"}), same("a", "b")]
    assert record(ledger, log) == log
    for size, members in enumerate([None, ["a"], ["a"], ["a", "b"], ["a"], ["a"], ["a", "b"]]):
        answer = ask(ledger, "entity", "a", None, Question(valid_at=0, at_size=size))
        assert (without(answer)["members"] if members else answer) == (members or b"entity-not-found")
    merged = without(ask(ledger, "entity", "b", None, Question(identity_at_size=3)))
    assert (merged["entity"], merged["canonical"], merged["members"]) == ("b", "a", ["a", "b"])
    values = [value["value"] for value in merged["facts"]["p"]["values"]]
    assert values == ["x", "y"]
    pointing = without(ask(ledger, "entity", "c", None, Question()))["facts"]["p"]["values"][0]["value"]
    assert pointing == {"entity": "a"}
    pointing = without(ask(ledger, "entity", "c", None, Question(identity_at_size=5)))["facts"]["p"]["values"][0][
        "value"
    ]
    assert pointing == {"entity": "b"}


# ---- In force ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", range(1, 9))
@pytest.mark.parametrize(
    "make", [lambda: agent("a", relays="b"), claim, lambda: event("policy"), lambda: same("a", "b")]
)
def test_each_retraction_of_a_chain_restores_what_the_one_before_removed(
    length: int, make: Callable[[], Event], ledger: Ledger
) -> None:
    """0 is retracted by 1, 1 by 2, and so on: every second one counts, from the last."""
    log = [make(), *(retract(n) for n in range(length))]
    assert record(ledger, log) == log
    expected = [(length - n) % 2 == 0 for n in range(length + 1)]
    assert [e["inforce"] for e in read_log(ledger)] == expected
    for size in range(1, length + 2):
        assert [e["inforce"] for e in read_log(ledger, size)] == [(size - 1 - n) % 2 == 0 for n in range(size)]


@pytest.mark.parametrize("length", range(1, 7))
def test_each_correction_of_a_chain_replaces_the_one_before(length: int, ledger: Ledger) -> None:
    log = [claim(value="v0"), *(claim(value=f"v{n + 1}", corrects=[n]) for n in range(length))]
    assert record(ledger, log) == log
    assert [e["inforce"] for e in read_log(ledger)] == [(length - n) % 2 == 0 for n in range(length + 1)]
    ledger.append_one(request(retract(length)))
    assert [e["inforce"] for e in read_log(ledger)][:-1] == [(length - n) % 2 == 1 for n in range(length + 1)]


def test_one_of_two_retractions_is_enough(ledger: Ledger) -> None:
    log = [claim(), retract(0), retract(0), retract(1), retract(2), retract(3, 4)]
    assert record(ledger, log) == log
    assert [read_log(ledger, size)[0]["inforce"] for size in range(1, 7)] == [True, False, False, False, True, False]


def test_what_retracts_a_bulk_retraction_restores_what_it_matched(ledgers: Ledgers) -> None:
    ledger = ledgers.get("main")
    bulk = event("retraction", where={"outlet": "o"}, reason="other")
    log = [claim(), claim(outlet="other"), bulk, claim(), retract(2), retract(4)]
    assert record(ledger, log) == log
    shown = [[e["inforce"] for e in read_log(ledger, size)] for size in (2, 4, 5, 6)]
    assert shown == [
        [True, True],
        [False, True, True, True],
        [True, True, False, True, True],
        [False, True, True, True, False, True],
    ]
    check_ledger(ledgers, "main")


@settings(max_examples=150)
@given(strategies.logs(14, least=3))
def test_context_is_what_the_oracle_makes_of_a_log(log: list[Event]) -> None:
    """At every size and with identity of every other: who counts, who speaks for whom, and how well rated."""
    log = [e for n, e in enumerate(log) if _aims_back(e, n, log)]
    for size, judged in {(n, m) for n in (len(log), len(log) // 2) for m in (0, len(log) // 3, len(log))}:
        found = context(log, size, judged)
        world = oracle.World(log, oracle.Coordinates(size, 0, identity_at_size=judged))
        told = [n for n, e in enumerate(log[:size]) if not oracle.is_a("assertion", e)]
        # What only an assertion takes back is none of the context's business: it corrects assertions alone.
        assert [n for n in told if n in not_in_force_of(log[:size])] == [n for n in told if n not in world.standing]
        for name in (*strategies.SUBJECTS, *strategies.AGENTS, *strategies.SOURCES):
            assert found.canonical(name) == world.canonical(name)
            assert list(found.clusters.members(found.canonical(name))) == sorted(world.members(name))
            assert found.origin(name) == world.origin({"outlet": name})
            assert found.fidelity(name) == world.agent(name, "fidelity", 1)
            rating = world.agent(name, "reliability", "unrated")
            canonical = found.canonical(name)
            assert found.reliability(canonical) == (world.ratings[rating] if isinstance(rating, str) else rating)
        for predicate in strategies.PREDICATES:
            declared = world.vocabulary(predicate)
            assert found.vocabulary(predicate).cardinality == declared.get("cardinality", "many")
        policy = found.policy
        assert (policy.method, policy.reliability, policy.certainty) == (world.method, world.ratings, world.certainty)
        assert (policy.accept, policy.change, policy.min_origins) == (world.accept, world.change, world.min_origins)


def _aims_back(event: Event, position: int, log: Sequence[Event]) -> bool:
    """Tell whether all that an event points at lies earlier and can be pointed at."""
    if "corrects" in event["data"]:
        return False
    return all(isinstance(ref, int) and ref < position for ref in event["data"].get("targets", ()))


def not_in_force_of(log: Sequence[Event]) -> set[int]:
    return not_in_force(
        [
            ContextEvent(
                n,
                e["type"],
                e["data"],
                tuple(p for p in range(n) if "where" not in e["data"] and oracle.targets(e, p, log[p])),
            )
            for n, e in enumerate(log)
            if e["type"] != events.ASSERTION
        ]
    )
