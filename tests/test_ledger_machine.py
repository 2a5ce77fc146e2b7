"""One ledger through everything that can happen to it, against the oracle, on SQLite and on PostgreSQL.

Whatever is appended, refused, repeated, rebuilt, forgotten or restarted: positions have no gap, the past keeps
its bytes, and the warm ledger, one that was opened a moment ago, and the oracle believe the same at every size.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, ClassVar

import pytest
import rfc8785
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from factledger.core import evidence, times
from factledger.core.errors import LedgerError
from factledger.ledger import Ledger, Ledgers
from factledger.reading import Question
from factledger.recording import Receipt, Sources
from factledger.wiring import open_ledgers
from tests import oracle, strategies
from tests.checking import Event, ask, check_ledger, pinned, read_log, request
from tests.core.test_belief import START, Clock, assert_agrees, instants

chance = st.sampled_from
names = (f"m{n}" for n in itertools.count())

SLOTS = list(itertools.product(strategies.SUBJECTS, strategies.PREDICATES))
FAR = 1_000_000  # no ledger here is as long


# ---- What must come of an append, from the log alone ---------------------------------------------------


def key(event: Event) -> tuple[str, str]:
    return event["source"], event["id"]


def outcome(log: Sequence[Event], batch: Sequence[Event]) -> tuple[set[str], list[Event]]:
    """Return the codes that a batch may be refused with, and the log as it is if there are none."""
    after = list(log)
    for event in batch:
        known = next((e for e in after if key(e) == key(event)), None)
        if known is not None:
            if rfc8785.dumps(known) != rfc8785.dumps(event):
                return {"id-reused"}, after
            continue
        for ref in event["data"].get("corrects", event["data"].get("targets", ())):
            named = (ref.get("source", event["source"]), ref["id"]) if isinstance(ref, dict) else None
            target = [e for n, e in enumerate(after) if n == ref or key(e) == named]
            if not target or (oracle.is_a("assertion", event) and not oracle.is_a("assertion", target[0])):
                return {"invalid-event"}, after
        after.append(event)
    world = oracle.World(after, oracle.Coordinates(len(after), START))
    refusals = set()
    judged = [after[p]["data"] for p in world.standing if oracle.is_a("identity", after[p])]
    apart = [data["entities"] for data in judged if data["judgement"] == "different"]
    if any(len({world.canonical(entity) for entity in entities}) < len(entities) for entities in apart):
        refusals.add("identity-conflict")
    if any(in_circles(world, event["data"]["agent"]) for event in after if oracle.is_a("agent", event)):
        refusals.add("relay-cycle")
    return refusals, after


def in_circles(world: oracle.World, agent: str) -> bool:
    """Tell whether whoever an agent relays, and whoever that one relays, leads back to one of them."""
    met: set[str] = set()
    while (here := world.canonical(agent)) not in met:
        met.add(here)
        relayed = world.agent(here, "relays", default=None)
        if relayed is None:
            return False
        agent = relayed
    return True


# ---- The machine ---------------------------------------------------------------------------------------


class LedgerMachine(RuleBasedStateMachine):
    """A ledger, its model (the log as posted), and every answer that it ever gave, under its permalink."""

    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.name = Clock(), next(names)
        self.sources = Sources(now=self.clock, salt=lambda: os.urandom(32))
        self.ledgers = open_ledgers(self.url, self.sources)
        self.ledgers.create(self.name)
        self.clock.now = START
        self.model: list[Event] = []
        self.kept: dict[str, bytes] = {}  # by permalink
        self.roots: list[str] = [self.ledger.describe()["root"]]  # by size

    @property
    def ledger(self) -> Ledger:
        return self.ledgers.get(self.name)

    def event(self, kind: str, /, **data: Any) -> Event:
        """An event that was not posted before."""
        named = {"specversion": "1.0", "source": "x:one@1", "id": f"e{len(self.model)}"}
        return {**named, "type": f"factledger.{kind}.v1", "data": data}

    def drawn(self, data: st.DataObject, number: int = 0) -> Event:
        """Any event, to be posted after `number` others that are not recorded yet."""
        positions = len(self.model) + number
        return data.draw(strategies.events(positions, positions), label=f"event {number}")

    def post(self, *batch: Event, **options: Any) -> None:
        """Append together, and check what comes of it against the model."""
        before, known = len(self.model), {key(event): n for n, event in enumerate(self.model)}
        refusals, after = outcome(self.model, batch)
        try:
            receipt = self.ledger.append_one(request(*batch, **options))
        except LedgerError as refusal:
            assert refusal.code in refusals, refusal
            note(f"refused: {refusal.code}")
            return
        assert not refusals, f"recorded in spite of {refusals}"
        self.check_receipt(receipt, batch, known)
        self.model = after
        assert receipt.size == len(after)
        self.roots += [""] * (len(after) - before)

    def check_receipt(self, receipt: Receipt, batch: Sequence[Event], known: dict[tuple[str, str], int]) -> None:
        following = itertools.count(len(known))
        known = dict(known)
        for event, result in zip(batch, receipt.results, strict=True):
            assert (result.source, result.id) == key(event)
            assert result.recorded == (key(event) not in known)
            if result.recorded:
                known[key(event)] = next(following)
            assert result.position == known[key(event)]

    # --- appending

    @initialize(many=st.booleans())
    def declare(self, many: bool) -> None:
        self.post(strategies.DECLARE_PLACE)
        if many:
            self.post(self.event("policy", method="weighed"))

    @rule(data=st.data())
    def append(self, data: st.DataObject) -> None:
        self.post(self.drawn(data))

    @rule(data=st.data(), count=st.integers(1, 5))
    def append_together(self, data: st.DataObject, count: int) -> None:
        """A batch, perhaps with an event in its midst that nothing can record, or that was there before."""
        batch = [self.drawn(data, number) for number in range(count)]
        spoiler = data.draw(chance(["none", "none", "dangling", "other content", "repeat", "twice"]), label="spoiler")
        at = data.draw(st.integers(0, count), label="where")
        if spoiler == "dangling":
            bad = self.event("retraction", targets=[FAR], reason="other")
            batch.insert(at, {**bad, "id": "dangling"})
        elif spoiler == "twice":
            batch.insert(at, batch[0])
        elif self.model and spoiler in ("other content", "repeat"):
            known = deepcopy(data.draw(chance(self.model), label="known"))
            if spoiler == "other content":
                known["time"] = "2021-09-01T00:00:00Z"
            batch.insert(at, known)
        self.post(*batch, pointers=True)

    @rule(data=st.data(), count=st.integers(2, 5))
    def append_at_once(self, data: st.DataObject, count: int) -> None:
        """Several requests in one transaction: each is judged on what the accepted ones before it leave."""
        requests: list[list[Event]] = []
        for number in range(count):
            event = self.drawn(data, number)
            requests.append([event, self.event("agent", agent="a:1") | {"id": f"with-{event['id']}"}][: number % 2 + 1])
        if data.draw(st.booleans(), label="one in vain"):
            hopeless = self.event("retraction", targets=[FAR], reason="other") | {"id": "hopeless"}
            requests.insert(data.draw(st.integers(0, count)), [hopeless])
        outcomes = self.ledger.append([request(*events) for events in requests])
        for events, found in zip(requests, outcomes, strict=True):
            refusals, after = outcome(self.model, events)
            if isinstance(found, LedgerError):
                assert found.code in refusals, found
                continue
            assert not refusals
            self.check_receipt(found, events, {key(event): n for n, event in enumerate(self.model)})
            assert found.size == len(after)
            self.roots += [""] * (len(after) - len(self.model))
            self.model = after

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """The same event again, its members in another order: it has the position that it had."""
        known = data.draw(chance(self.model), label="known")
        again = {**dict(reversed(known.items())), "data": dict(reversed(known["data"].items()))}
        self.post(again)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def take_an_id_again(self, data: st.DataObject) -> None:
        """Other content under an id of the same source is refused; under another source it is another event."""
        known = data.draw(chance(self.model), label="known")
        note_name = "valid_text" if oracle.is_a("assertion", known) else "note"
        if not oracle.is_a("predicate", known):
            self.post({**known, "data": {**known["data"], note_name: "other"}})
        self.post({**known, "type": "factledger.policy.v1", "data": {"note": "another type"}})

    @rule(wrong=st.sampled_from([-1, 1, 7]))
    def expect_another_size(self, wrong: int) -> None:
        with pytest.raises(LedgerError) as refused:
            self.ledger.append_one(request(self.event("policy"), if_size=len(self.model) + wrong))
        assert refused.value.code == "size-changed"

    @rule(data=st.data())
    def expect_this_size(self, data: st.DataObject) -> None:
        self.post(self.drawn(data), if_size=len(self.model))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def retract(self, data: st.DataObject) -> None:
        """Of one or two events, by position or by name; retractions too."""
        found = data.draw(st.lists(chance(range(len(self.model))), min_size=1, max_size=2), label="targets")
        named = [{"source": key(self.model[n])[0], "id": key(self.model[n])[1]} for n in found]
        self.post(self.event("retraction", targets=data.draw(chance([found, named])), reason="other"))

    @rule(data=st.data())
    def retract_in_bulk(self, data: st.DataObject) -> None:
        self.post(self.event("retraction", **data.draw(strategies.retractions(0))["data"]))

    @rule(data=st.data())
    def correct(self, data: st.DataObject) -> None:
        claims = [n for n, event in enumerate(self.model) if oracle.is_a("assertion", event)]
        if claims:
            claim = data.draw(strategies.assertions(0))["data"]
            self.post(self.event("assertion", **claim, corrects=[data.draw(chance(claims))]))

    @rule(data=st.data())
    def rate(self, data: st.DataObject) -> None:
        self.post(self.event("agent", **data.draw(strategies.agents())["data"]))

    @rule(data=st.data())
    def judge(self, data: st.DataObject) -> None:
        """Merge, or set apart."""
        self.post(self.event("identity", **data.draw(strategies.identities())["data"]))

    @rule(data=st.data())
    def split(self, data: st.DataObject) -> None:
        """Take back a judgement."""
        judgements = [n for n, event in enumerate(self.model) if oracle.is_a("identity", event)]
        if judgements:
            self.post(self.event("retraction", targets=[data.draw(chance(judgements))], reason="resolver_error"))

    @rule(data=st.data())
    def declare_again(self, data: st.DataObject) -> None:
        self.post(self.event("predicate", **data.draw(strategies.predicates())["data"]))

    @rule(data=st.data())
    def change_policy(self, data: st.DataObject) -> None:
        self.post(self.event("policy", **data.draw(strategies.policies())["data"]))

    # --- keeping house

    @rule()
    def drop_memo(self) -> None:
        self.ledger.drop_memo()

    @rule()
    def save_memo(self) -> None:
        self.ledger.save_memo()
        assert self.ledger.save_memo() == 0

    @rule()
    def rebuild(self) -> None:
        digest = self.ledger.digest()
        rebuilt = self.ledger.rebuild()
        assert (rebuilt["equal"], rebuilt["size"]) == (True, len(self.model))
        assert rebuilt["digest"] == rebuilt["digest_before"] == digest == self.ledger.digest()

    @rule()
    def restart(self) -> None:
        self.ledgers.close()
        self.ledgers = open_ledgers(self.url, self.sources)

    # --- reading

    @precondition(lambda self: self.model)
    @rule(data=st.data(), view=chance(["entity", "entity", "why", "timeline", "history"]))
    def read(self, data: st.DataObject, view: str) -> None:
        """Any view at any coordinates; the answer is kept under its permalink, for ever."""
        subject, predicate = data.draw(chance(SLOTS), label="slot")
        log = read_log(self.ledger)
        sizes = st.integers(0, len(log))
        before = chance([None, None, START, times.parse_moment("2021-09-06")])
        question = Question(
            valid_at=data.draw(chance(instants(log, subject, predicate, len(log))), label="instant"),
            at_size=data.draw(st.one_of(st.none(), sizes), label="size"),
            asserted_before=data.draw(before),
            identity_at_size=data.draw(st.one_of(st.none(), st.none(), sizes)),
            method=data.draw(chance([None, None, None, "weighed", "latest", "majority"])),
            when=data.draw(chance(["possible", "possible", *evidence.STRENGTHS])),
        )
        self.keep(ask(self.ledger, view, subject, predicate, question))
        if view in ("entity", "why"):
            size = len(log) if question.at_size is None else question.at_size
            assert question.valid_at is not None
            at = oracle.Coordinates(
                size,
                question.valid_at,
                question.asserted_before,
                question.identity_at_size,
                question.method,
                question.when,
            )
            assert_agrees(self.ledger, log, subject, predicate, at)
            if view == "entity" and size:
                self.compare_entity(log, subject, at, question)

    def compare_entity(self, log: Sequence[Event], subject: str, at: oracle.Coordinates, question: Question) -> None:
        """Compare the believed state, which the memo may have answered, with the oracle's, slot by slot."""
        body = ask(self.ledger, "entity", subject, None, question)
        if not body.startswith(b"{"):
            assert body == b"entity-not-found"
            return
        answer = json.loads(body)
        members = set(oracle.World(log, at).members(subject))
        said = {
            e["data"]["predicate"]
            for e in log[: at.size]
            if e["data"].get("subject") in members and "value" in e["data"]
        }
        assert answer["facts"].keys() == said
        for predicate, fact in answer["facts"].items():
            theirs = oracle.believe(log, subject, predicate, at)
            assert (fact["cardinality"], fact["status"]) == (theirs["cardinality"], theirs["status"])
            for mine, other in zip(fact["values"], theirs["values"], strict=True):
                assert mine["probability"] == pytest.approx(other["probability"], abs=2e-9)
                for name in ("value", "status", "when", "support", "opposition"):
                    assert mine[name] == other[name], name

    def keep(self, body: bytes) -> None:
        if body.startswith(b"{"):
            link = json.loads(body)["permalink"]
            assert self.kept.setdefault(link, body) == body

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def read_again(self, data: st.DataObject) -> None:
        """An earlier answer, by its permalink: the same bytes."""
        self.follow(data.draw(chance(sorted(self.kept)), label="permalink"))

    def follow(self, link: str) -> None:
        view, entity, predicate, question, page = pinned(link)
        if page:
            again = self.ledger.history(entity, predicate, question, **page).body
        else:
            again = ask(self.ledger, view, entity, predicate, question)
        assert again == self.kept[link], link

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def read_as_known_at(self, data: st.DataObject) -> None:
        """The size known at an instant is the number of events that were recorded by then."""
        recorded_at = [times.parse_instant(event["recordedat"]) for event in read_log(self.ledger)]
        instant = data.draw(chance(recorded_at)) + data.draw(chance([-1, 0, 1]))
        with self.ledger.snapshot(Question(known_at=instant)) as snapshot:
            assert snapshot.size == sum(at <= instant for at in recorded_at)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def find(self, data: st.DataObject) -> None:
        """Entities and events are listed as the log has them."""
        log = read_log(self.ledger)
        size = data.draw(st.integers(0, len(log)), label="size")
        world = oracle.World(log, oracle.Coordinates(size, START))
        subjects = {e["data"]["subject"] for e in log[:size] if oracle.is_a("assertion", e)}
        found = list(self.ledger.entities(Question(at_size=size)))
        assert found == sorted({world.canonical(subject) for subject in subjects})
        criteria = data.draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "source": chance(strategies.SOURCES),
                    "type": chance(["factledger.assertion.v1", "factledger.agent.v1"]),
                    "subject": chance(strategies.SUBJECTS),
                    "predicate": chance(strategies.PREDICATES),
                    "outlet": chance(strategies.AGENTS),
                    "document_uri": st.just("doc:1"),
                },
            ),
            label="criteria",
        )
        in_force = oracle.in_force(log, size)
        of_type = {name: wanted for name, wanted in criteria.items() if name == "type"}
        where = {name: wanted for name, wanted in criteria.items() if name not in ("type", "source")}
        expected = [
            (position, position in in_force)
            for position, e in enumerate(log[:size])
            if criteria.get("source", e["source"]) == e["source"]
            and of_type.get("type", e["type"]) == e["type"]
            and (not where or oracle.matches(where, position, e))
        ]
        shown, _, _ = self.ledger.events(Question(at_size=size), from_position=0, limit=1000, criteria=criteria)
        assert [(event["position"], event["inforce"]) for event in shown] == expected

    @precondition(lambda self: self.model)
    @rule(slot=chance(SLOTS), data=st.data())
    def compare_at_every_size(self, slot: tuple[str, str], data: st.DataObject) -> None:
        """Incremental, replayed and rebuilt: the warm ledger, one just opened, and the oracle."""
        log = read_log(self.ledger)
        around = instants(log, *slot, len(log))
        asked = data.draw(st.lists(chance(around), min_size=1, max_size=2, unique=True), label="instants")
        warm = self.answers_at_every_size(self.ledgers, slot, asked)
        opened: Ledgers = open_ledgers(self.url, self.sources)
        opened.get(self.name).drop_memo()
        assert self.answers_at_every_size(opened, slot, asked) == warm
        for size, instant in itertools.product(range(1, len(log) + 1), asked):
            assert_agrees(opened.get(self.name), log, *slot, oracle.Coordinates(size, instant))
        opened.close()

    def answers_at_every_size(self, ledgers: Ledgers, slot: tuple[str, str], asked: Sequence[int]) -> list[bytes]:
        ledger, views = ledgers.get(self.name), ("entity", "timeline", "why")
        every = itertools.product(range(len(self.model) + 1), asked, views)
        return [ask(ledger, view, *slot, Question(valid_at=at, at_size=size)) for size, at, view in every]

    # --- always

    @invariant()
    def size_and_root_follow_the_log(self) -> None:
        described = self.ledger.describe()
        assert described["size"] == described["projected_size"] == len(self.model) == self.ledger.size()
        assert len(self.roots) == len(self.model) + 1
        if not self.roots[-1]:
            self.roots[-1] = described["root"]
            assert self.roots.count(described["root"]) == 1
        assert described["root"] == self.roots[-1], "the root moved without an event"

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:  # else what went wrong is being told already
                self.check_everything()
        finally:
            self.ledgers.close()

    def check_everything(self) -> None:
        log = read_log(self.ledger)
        assert [strategies.as_posted(event) for event in log] == self.model
        recorded_at = [event["recordedat"] for event in log]
        assert all(a < b for a, b in itertools.pairwise(recorded_at))
        assert [event["inforce"] for event in log] == [n in oracle.in_force(log, len(log)) for n in range(len(log))]
        for size in range(1, len(log) + 1):
            assert_agrees(self.ledger, log, "e:1", "place", oracle.Coordinates(size, START))
        self.ledger.save_memo()
        check_ledger(self.ledgers, self.name)
        for link in self.kept:
            self.follow(link)


def run(database_url: str, examples: int, steps: int) -> None:
    """Try ledgers of one database."""

    class Machine(LedgerMachine):
        url = database_url

    every = list(HealthCheck)
    bounds = settings(deadline=None, max_examples=examples, stateful_step_count=steps, suppress_health_check=every)
    run_state_machine_as_test(Machine, settings=bounds)


def test_a_ledger_on_sqlite(sqlite_url: str) -> None:
    run(sqlite_url, examples=25, steps=25)


def test_a_ledger_on_postgresql(postgresql_url: str) -> None:
    run(postgresql_url, examples=6, steps=15)


@pytest.mark.slow
def test_a_ledger_on_sqlite_at_length(sqlite_url: str) -> None:
    run(sqlite_url, examples=1000, steps=60)


@pytest.mark.slow
def test_a_ledger_on_postgresql_at_length(postgresql_url: str) -> None:
    run(postgresql_url, examples=200, steps=40)
