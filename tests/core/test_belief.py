"""The engine against the oracle, on logs of every event type, at every size and all around every boundary."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factledger.core import events, evidence, times
from factledger.core.errors import LedgerError
from factledger.ledger import Ledger, Ledgers
from factledger.reading import Question
from factledger.recording import Request, Sources
from factledger.wiring import open_ledgers
from tests import oracle, strategies

START = times.parse_instant("2021-09-04T00:00:00Z")
HOUR = 3_600_000_000
names = (f"t{n}" for n in itertools.count())


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        self.now += 3 * HOUR
        return self.now


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory: pytest.TempPathFactory, clock: Clock) -> Iterator[Ledgers]:
    path: Path = tmp_path_factory.mktemp("belief") / "ledger.db"
    opened = open_ledgers(f"sqlite:///{path}", Sources(now=clock, salt=lambda: os.urandom(32)))
    yield opened
    opened.close()


def record(ledger: Ledger, event: dict[str, Any]) -> bool:
    """Record one event; tell whether it was accepted. Only conflicts and corrections of no assertion are not."""
    try:
        ledger.append_one(Request([events.read_event(event)]))
    except LedgerError as refusal:
        corrects = refusal.code == "invalid-event" and "corrects" in event["data"]
        assert corrects or refusal.code in ("identity-conflict", "relay-cycle"), refusal
        return False
    return True


def draw_log(data: st.DataObject, ledger: Ledger, most: int) -> list[dict[str, Any]]:
    """Record a drawn log and return it as the oracle reads it."""
    record(ledger, strategies.DECLARE_PLACE)
    size = 1
    for n in range(data.draw(st.integers(1, most), label="events")):
        event = data.draw(strategies.events(n, size), label=f"event {n}")
        size += record(ledger, event)
    found, following, _ = ledger.events(Question(), from_position=0, limit=1000, criteria={})
    assert following is None
    assert len(found) == size
    return found


def engine_view(ledger: Ledger, entity: str, predicate: str, question: Question) -> dict[str, Any]:
    """Return the engine's belief in the oracle's terms."""
    with ledger.snapshot(question) as snapshot:
        canonical, members, found = snapshot.believe(entity, predicate)
        single = snapshot.rules(predicate).single
    decided = found.belief
    assert decided.single == single
    return {
        "canonical": canonical,
        "members": sorted(members),
        "cardinality": "one" if single else "many",
        "status": decided.status,
        "values": [
            {
                "value": json.loads(v.value),
                "probability": v.probability,
                "score": v.score,
                "status": v.status,
                "when": None if v.strength is None else evidence.STRENGTHS[v.strength],
                "support": sorted(e.position for e in v.affirmations),
                "opposition": sorted(e.position for e in v.denials),
            }
            for v in decided.values
        ],
        "superseded": {e.position: by.position for e, by in decided.superseded},
        "outdated": {e.position: by.position for e, by in decided.outdated},
        "not_in_force": sorted(e.position for e in found.slot.retracted),
    }


def assert_agrees(
    ledger: Ledger, log: list[dict[str, Any]], subject: str, predicate: str, at: oracle.Coordinates
) -> None:
    """Compare one belief with the oracle's."""
    question = Question(
        valid_at=at.at_us,
        at_size=at.size,
        asserted_before=at.asserted_before_us,
        identity_at_size=at.identity_at_size,
        method=at.method,
        when=at.when,
    )
    try:
        ours = engine_view(ledger, subject, predicate, question)
    except LedgerError as refusal:
        assert refusal.code == "entity-not-found"
        named = [n for event in log[: at.size] for n in oracle.names(event)]
        assert subject not in named
        return
    theirs = oracle.believe(log, subject, predicate, at)
    context = f"{subject} {predicate} {at}"
    assert ours["canonical"] == theirs["canonical"], context
    assert ours["members"] == theirs["members"], context
    assert ours["status"] == theirs["status"], context
    assert [v["value"] for v in ours["values"]] == [v["value"] for v in theirs["values"]], context
    for mine, other in zip(ours["values"], theirs["values"], strict=True):
        assert mine["probability"] == pytest.approx(other["probability"], abs=2e-9), context
        assert mine["score"] == pytest.approx(other["score"], abs=2e-9), context
        assert (mine["status"], mine["when"]) == (other["status"], other["when"]), context
        assert len(mine["support"]) == other["support"]["assertions"], context
        assert len(mine["opposition"]) == other["opposition"]["assertions"], context
    for kind in ("superseded", "outdated"):
        assert ours[kind].keys() == theirs[kind].keys(), (kind, context)
        for position, by in ours[kind].items():
            assert by in theirs[kind][position], (kind, context)
    assert ours["not_in_force"] == theirs["not_in_force"], context


def instants(log: list[dict[str, Any]], subject: str, predicate: str, size: int) -> list[int]:
    """Return an instant on each boundary of a slot, and one on each side."""
    found = {START}
    for boundary in oracle.boundaries(log, subject, predicate, size):
        found.update((int(boundary) - 1, int(boundary), int(boundary) + 1))
    return sorted(found)


MANY = settings(
    max_examples=int(os.environ.get("BELIEF_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)


@MANY
@given(data=st.data())
def test_belief_is_what_the_oracle_believes(data: st.DataObject, ledgers: Ledgers, clock: Clock) -> None:
    """Every slot of a drawn log agrees at drawn sizes, instants and coordinates."""
    clock.now = START
    name = next(names)
    ledgers.create(name)
    ledger = ledgers.get(name)
    log = draw_log(data, ledger, 14)
    for _ in range(8):
        subject = data.draw(st.sampled_from(strategies.SUBJECTS))
        predicate = data.draw(st.sampled_from(strategies.PREDICATES))
        size = data.draw(st.integers(1, len(log)))
        at = oracle.Coordinates(
            size=size,
            at_us=data.draw(st.sampled_from(instants(log, subject, predicate, size))),
            asserted_before_us=data.draw(
                st.sampled_from([None, None, times.parse_moment("2021-09-04"), times.parse_moment("2021-09-06")])
            ),
            identity_at_size=data.draw(st.one_of(st.none(), st.integers(0, len(log)))),
            method=data.draw(st.sampled_from([None, None, "weighed", "latest", "majority"])),
            when=data.draw(st.sampled_from(["possible", "possible", "presumed", "definite"])),
        )
        assert_agrees(ledger, log, subject, predicate, at)


@MANY
@given(data=st.data())
def test_every_size_and_every_boundary(data: st.DataObject, ledgers: Ledgers, clock: Clock) -> None:
    """One slot of a drawn log agrees at every size and around every boundary, at the default coordinates."""
    clock.now = START
    name = next(names)
    ledgers.create(name)
    ledger = ledgers.get(name)
    log = draw_log(data, ledger, 9)
    for size in range(1, len(log) + 1):
        for instant in instants(log, "e:1", "place", size):
            assert_agrees(ledger, log, "e:1", "place", oracle.Coordinates(size, instant))


@MANY
@given(random=st.randoms(use_true_random=False))
def test_a_crowded_slot(random: Random, ledgers: Ledgers, clock: Clock) -> None:
    """Rated agents who contradict themselves and each other agree with the oracle, however the read is asked."""
    clock.now = times.parse_instant("2021-09-20T00:00:00Z")
    name = next(names)
    ledgers.create(name)
    ledger = ledgers.get(name)
    for event in strategies.crowded_slot(random):
        assert record(ledger, event)
    log, _, size = ledger.events(Question(), from_position=0, limit=1000, criteria={})
    around = instants(log, "e:1", "place", size)
    for instant in random.sample(around, min(10, len(around))):
        when = random.choice(["possible", "possible", "possible", "presumed", "definite"])
        method = random.choice([None, None, "latest", "majority"])
        assert_agrees(ledger, log, "e:1", "place", oracle.Coordinates(size, instant, method=method, when=when))
