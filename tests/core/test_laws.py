"""The laws of belief, each a property over the real ledger; and what follows from them for timeline and history."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from factledger.core import evidence, times
from factledger.core.belief import believe
from factledger.core.timeline import segments
from factledger.ledger import Ledger
from factledger.reading import Question
from factledger.recording import Sources
from factledger.wiring import open_ledgers
from tests import oracle, strategies
from tests.checking import Event, ask, check_ledger, everything, read_log, record, without
from tests.core.test_belief import HOUR, START, Clock, instants
from tests.postgres import PostgresServer
from tests.strategies import DECLARE_PLACE, NAME_ALL, PREDICATES, SUBJECTS

names = (f"t{n}" for n in itertools.count())
METHODS = ("weighed", "latest", "majority")
LATER = times.parse_instant("2022-01-01T00:00:00Z")  # after everything that is drawn was said

some = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    max_examples=int(os.environ.get("LAW_EXAMPLES", "15")),
)
more = settings(some, max_examples=3 * some.max_examples)
few = settings(some, max_examples=max(1, some.max_examples // 2))


# The slot that all of a crowded log meets in holds one value at a time, or many.
declared = st.sampled_from(
    [DECLARE_PLACE, DECLARE_PLACE, {**DECLARE_PLACE, "data": {"predicate": "place", "cardinality": "many"}}]
)


class Store:
    """Ledgers of one database, and the clock that they record by."""

    def __init__(self, url: str) -> None:
        self.clock = Clock()
        self.ledgers = open_ledgers(url, Sources(now=self.clock, salt=lambda: os.urandom(32)))

    def empty(self, start: int = START) -> Ledger:
        """A new ledger, recorded into from `start` on."""
        name = next(names)
        self.clock.now = start - 4 * HOUR  # created before anything is recorded
        self.ledgers.create(name)
        self.clock.now = start
        return self.ledgers.get(name)

    def holding(self, log: Iterable[Event], start: int = START) -> Ledger:
        """A new ledger with all of a log that it accepts; events of equal positions are recorded at equal times."""
        ledger = self.empty(start)
        record(ledger, log)
        return ledger

    def check_and_close(self) -> None:
        """Check some of the ledgers that laws were tried on, and close the database."""
        for name in self.ledgers.names()[-5:]:
            check_ledger(self.ledgers, name)
        self.ledgers.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    path: Path = tmp_path_factory.mktemp("laws") / "ledger.db"
    opened = Store(f"sqlite:///{path}")
    yield opened
    opened.check_and_close()


@pytest.fixture(scope="module")
def postgresql_store(postgres: PostgresServer) -> Iterator[Store]:
    opened = Store(postgres.create_database(f"laws_{os.getpid()}"))
    yield opened
    opened.check_and_close()


def moments(log: Sequence[Event], size: int | None = None) -> list[int]:
    """Every instant around a boundary of any slot that any entity has."""
    at = len(log) if size is None else size
    found = {i for s in SUBJECTS for p in PREDICATES for i in instants(list(log), s, p, at)}
    return sorted(found | {START - 1, START})


def any_log(most: int) -> st.SearchStrategy[list[Event]]:
    """A log of any kind."""
    corrected = strategies.corrected_logs(most)
    return st.one_of(strategies.logs(most, least=2), strategies.crowded_logs(most), corrected, corrected)


def same_but_for_position(ours: Mapping[Any, bytes], theirs: Mapping[Any, bytes]) -> None:
    """Compare complete answers of two ledgers, or of two sizes, in which the same events have other positions."""
    assert ours.keys() == theirs.keys()
    for key, answer in ours.items():
        other = theirs[key]
        members = ("coordinates", "permalink", "position")
        assert without(answer, *members) == without(other, *members), key


# ---- 1. The past does not move -------------------------------------------------------------------------


@some
@given(data=st.data())
def test_law_1_the_past_does_not_move(data: st.DataObject, store: Store) -> None:
    """Whatever is appended, every answer at every earlier size keeps its bytes.

    All four views of every entity, with and without the memo, for the size as `at_size` and as `known_at`, and
    every event with its `inforce`.
    """
    ledger = store.holding([DECLARE_PLACE, *data.draw(strategies.logs(8), label="before")])
    log = read_log(ledger)
    instant = data.draw(st.sampled_from(moments(log)), label="instant")
    recorded_at = [times.parse_instant(event["recordedat"]) for event in log]
    elsewhere = Question(
        valid_at=instant,
        at_size=data.draw(st.integers(0, len(log))),
        identity_at_size=data.draw(st.integers(0, len(log))),
        asserted_before=data.draw(st.sampled_from([None, *moments(log)])),
        method=data.draw(st.sampled_from(METHODS)),
        when=data.draw(st.sampled_from(evidence.STRENGTHS)),
    )
    questions = [
        *(Question(valid_at=instant, at_size=n) for n in range(len(log) + 1)),
        Question(valid_at=instant, known_at=data.draw(st.sampled_from(recorded_at))),
        elsewhere,
    ]

    def answers() -> list[Any]:
        every = [everything(ledger, question, history=question is elsewhere) for question in questions]
        return [every, [read_log(ledger, size=n) for n in range(len(log) + 1)]]

    before = answers()
    ledger.save_memo()
    for event in data.draw(strategies.logs(6), label="appended"):
        record(ledger, [{**event, "id": f"later-{event['id']}"}])
        ask(ledger, "entity", "e:1", None, Question(valid_at=instant))  # makes memos of later sizes
    assert answers() == before
    ledger.drop_memo()
    assert answers() == before


# ---- 2. Incremental = rebuild = replay at read ---------------------------------------------------------


@some
@given(data=st.data())
def test_law_2_incremental_equals_rebuild_equals_replay(data: st.DataObject, store: Store) -> None:
    """At every size: the answers given at that size, replayed at read, after a rebuild and from another ledger.

    The other ledger is given the same events in one transaction, at the same times. The digests of the
    projections' rows are equal too, at every size.
    """
    check_replay(data, store)


@few
@given(data=st.data())
def test_law_2_on_postgresql(data: st.DataObject, postgresql_store: Store) -> None:
    """As above."""
    check_replay(data, postgresql_store)


def check_replay(data: st.DataObject, store: Store) -> None:
    drawn = [DECLARE_PLACE, *data.draw(any_log(9), label="events")]
    instant = data.draw(st.sampled_from([START, *(times.parse_moment(day) for day in strategies.DAYS)]))
    ledger = store.empty()
    accepted: list[Event] = []
    digests = [ledger.digest()]
    answers = [everything(ledger, Question(valid_at=instant))]
    for event in drawn:
        store.clock.now = START + 3 * HOUR * len(accepted)
        if record(ledger, [event]):
            accepted.append(event)
            digests.append(ledger.digest())
            answers.append(everything(ledger, Question(valid_at=instant)))
    replayed = store.holding(accepted)
    assert replayed.size() == len(accepted)

    for rebuilt in (False, True):
        if rebuilt:
            assert ledger.rebuild()["equal"] is True
        for size, (digest, given_then) in enumerate(zip(digests, answers, strict=True)):
            question = Question(valid_at=instant, at_size=size)
            assert ledger.digest(size) == replayed.digest(size) == digest, (rebuilt, size)
            assert everything(ledger, question) == given_then, (rebuilt, size)
            renamed = f"ledgers/{replayed.name}/".encode(), f"ledgers/{ledger.name}/".encode()
            elsewhere = everything(replayed, question)
            assert {key: body.replace(*renamed) for key, body in elsewhere.items()} == given_then, (rebuilt, size)


# ---- 3. Belief is a function of the set ----------------------------------------------------------------


def spoken_apart(log: Sequence[Event], said: Sequence[int]) -> list[Event]:
    """Return a log in which every assertion gives its `asserted_at`, and no two the same."""
    apart = iter(said)
    return [
        {**event, "data": {**event["data"], "asserted_at": times.format_instant(next(apart))}}
        if oracle.is_a("assertion", event)
        else event
        for event in log
    ]


def untargeted(log: Sequence[Event]) -> list[int]:
    """Return the positions of assertions that nothing targets or would target elsewhere, and that target nothing."""
    wheres = [
        {name: wanted for name, wanted in event["data"]["where"].items() if not name.endswith("_position")}
        for event in log
        if "where" in event["data"]
    ]
    return [
        position
        for position, event in enumerate(log)
        if oracle.is_a("assertion", event)
        and "corrects" not in event["data"]
        and not any(oracle.matches(where, position, event) for where in wheres)
        and not any("where" not in e["data"] and oracle.targets(e, position, event) for e in log[position + 1 :])
    ]


def draw_permuted(data: st.DataObject, preamble: Sequence[Event], store: Store) -> tuple[Ledger, Ledger]:
    """Record a drawn log, and the same with the assertions that nothing targets permuted among their positions."""
    drawn = [*preamble, *data.draw(strategies.logs(12, least=3), label="log")]
    day = st.integers(0, 6 * 24 * 4).map(lambda quarter: times.parse_moment("2021-09-01") + quarter * HOUR // 4)
    said = data.draw(st.lists(day, min_size=len(drawn), max_size=len(drawn), unique=True), label="asserted_at")
    ledger = store.holding(spoken_apart(drawn, said), LATER)
    log = read_log(ledger)
    places = untargeted(log)
    permuted = data.draw(st.permutations(places), label="order")
    accepted = {(event["source"], event["id"]): event for event in spoken_apart(drawn, said)}
    posted = [accepted[event["source"], event["id"]] for event in log]
    moved = list(posted)
    for place, origin in zip(places, permuted, strict=True):
        moved[place] = posted[origin]
    other = store.empty(LATER)
    assert record(other, moved) == moved
    return ledger, other


@more
@given(data=st.data())
def test_law_3_belief_is_a_function_of_the_set(data: st.DataObject, store: Store) -> None:
    """Permuting assertions among their positions changes no answer but for the positions in it.

    Held where every assertion gives an `asserted_at` of its own that lies before all recording, nothing targets
    the permuted, they correct nothing, all other events keep their places, and an event before them has named
    every id, so that the canonical members of clusters stay the same.
    """
    ledger, other = draw_permuted(data, [DECLARE_PLACE, NAME_ALL], store)
    log = read_log(ledger)
    for instant in data.draw(st.lists(st.sampled_from(moments(log)), min_size=1, max_size=3, unique=True)):
        question = Question(
            valid_at=instant,
            method=data.draw(st.sampled_from([None, *METHODS])),
            when=data.draw(st.sampled_from(evidence.STRENGTHS)),
            identity_at_size=data.draw(st.one_of(st.none(), st.integers(2, len(log)))),
        )
        same_but_for_position(everything(ledger, question), everything(other, question))


def nameless(ledger: Ledger, entity: str, predicate: str, question: Question) -> Any:
    """Return the belief in a slot with every id replaced by its cluster, the values in an order of their own."""
    log = read_log(ledger)
    clusters = oracle.clusters(log, len(log))

    def cluster(found: str) -> list[str]:
        return next((sorted(members) for members in clusters if found in members), [found])

    explained = without(ask(ledger, "why", entity, predicate, question), "coordinates", "permalink", "position")
    if isinstance(explained, bytes):
        return explained
    explained["canonical"] = cluster(explained["canonical"])
    del explained["sentence"]  # names values
    roles = [explained[role] for role in ("superseded", "outdated", "not_in_force", "no_surety")]
    for value in explained["values"]:
        roles += [value["for"], value["against"]]
    for item in [*explained["values"], *itertools.chain(*roles)]:
        if isinstance(item["value"], dict):
            item["value"] = cluster(item["value"]["entity"])
        for name in item.keys() & {"origin", "outlet"}:
            item[name] = cluster(item[name])
    explained["values"].sort(key=lambda value: (-value["probability"], json.dumps(value["value"])))
    return explained


@some
@given(data=st.data())
def test_law_3_up_to_the_naming_of_clusters(data: st.DataObject, store: Store) -> None:
    """As above, but without the event that names every id: equal once ids are replaced by their clusters."""
    ledger, other = draw_permuted(data, [DECLARE_PLACE], store)
    for instant in data.draw(st.lists(st.sampled_from(moments(read_log(ledger))), min_size=1, max_size=2)):
        for entity in SUBJECTS:
            question = Question(valid_at=instant)
            assert nameless(ledger, entity, "place", question) == nameless(other, entity, "place", question)


# ---- 4. A repeat is no witness -------------------------------------------------------------------------


@some
@given(data=st.data())
def test_law_4_recording_the_same_event_again_changes_nothing(data: st.DataObject, store: Store) -> None:
    """A repeated event has the receipt of the first; head, digest and every answer keep their bytes."""
    ledger = store.holding([DECLARE_PLACE, *data.draw(strategies.logs(10))])
    posted = {(e["source"], e["id"]): e for e in read_log(ledger)}
    question = Question(valid_at=START)

    def state() -> tuple[Any, ...]:
        return ledger.describe(), ledger.digest(), everything(ledger, question, history=True), read_log(ledger)

    before = state()
    again = [strategies.as_posted(event) for event in posted.values()]
    assert record(ledger, data.draw(st.permutations(again))) != []
    assert state() == before


@more
@given(data=st.data())
def test_law_4_an_origin_that_repeats_itself_is_no_witness(data: st.DataObject, store: Store) -> None:
    """An origin that repeats a stance of q = 1, with the same valid and asserted_at, changes no P and no status.

    Held where the assertions of an origin differ in asserted_at (positions break ties), the repeated one is in
    force, and what passes the repeat on has a fidelity of 1.
    """
    drawn = [data.draw(declared), NAME_ALL, *data.draw(strategies.crowded_logs(10))]
    day = st.integers(0, 6 * 24 * 4).map(lambda quarter: times.parse_moment("2021-09-01") + quarter * HOUR // 4)
    said = data.draw(st.lists(day, min_size=len(drawn), max_size=len(drawn), unique=True), label="asserted_at")
    ledger = store.holding(spoken_apart(drawn, said), LATER)
    log = read_log(ledger)
    world = oracle.World(log, oracle.Coordinates(len(log), START))
    sure = [c for c in world.claims("e:1", "place") if c.position in world.standing and c.q == 1]
    faithful = [agent for agent in strategies.AGENTS if world.agent(agent, "fidelity", 1) == 1]
    sources = [source for source in strategies.SOURCES if world.agent(source, "fidelity", 1) == 1]
    if not (sure and faithful and sources):
        return
    first = log[data.draw(st.sampled_from(sure)).position]
    provenance = first["data"]["provenance"]
    repeat = {
        **strategies.as_posted(first),
        "source": data.draw(st.sampled_from(sources)),
        "id": "repeat",
        "data": {
            **{name: member for name, member in first["data"].items() if name != "corrects"},
            "provenance": {
                "outlet": data.draw(st.sampled_from(faithful)),
                "speakers": (provenance.get("speakers") or [provenance["outlet"]])[:1],
            },
        },
    }
    assert record(ledger, [repeat])
    for method in METHODS:
        believed = [
            without(ask(ledger, "timeline", "e:1", "place", Question(at_size=size, method=method)), *UNPINNED)
            for size in (len(log), len(log) + 1)
        ]
        assert believed[0] == believed[1]


UNPINNED = ("coordinates", "permalink")


# ---- 5. Retract, then retract the retraction; merge, then split ----------------------------------------


def shifted(event: Event, at: int, by: int) -> Event:
    """Return an event for a ledger in which everything from a position on stands later."""
    data = dict(event["data"])
    for name in ("targets", "corrects"):
        if name in data:
            data[name] = [ref + by if ref >= at else ref for ref in data[name]]
    if "where" in data:
        moves = ("from_position", "to_position")
        data["where"] = {n: c + by if n in moves and c >= at else c for n, c in data["where"].items()}
    return {**event, "data": data}


def assert_undone(data: st.DataObject, store: Store, pair: Callable[[list[Event]], Sequence[Event]]) -> None:
    """Check that two events that undo each other leave belief as it was, at once and whatever comes later.

    `pair` makes the two from the log so far; the second names the first by its (source, id).
    """
    drawn = [DECLARE_PLACE, NAME_ALL, *data.draw(strategies.logs(8), label="before")]
    ledger = store.holding(drawn, LATER)
    log = read_log(ledger)
    done, undone = pair(log)
    if not record(ledger, [done]):
        note("refused")
        return
    assert record(ledger, [undone]), "what is accepted can be taken back"
    size, instant = len(log), data.draw(st.sampled_from(moments(log)), label="instant")
    question = Question(
        valid_at=instant,
        at_size=size,
        method=data.draw(st.sampled_from([None, *METHODS])),
        when=data.draw(st.sampled_from(evidence.STRENGTHS)),
    )
    then, now = (everything(ledger, Question(**{**_fields(question), "at_size": n})) for n in (size, size + 2))
    same_but_for_position(then, now)

    without_it = store.holding(drawn, LATER)
    for event in data.draw(strategies.logs(6), label="after"):
        later = {**event, "id": f"later-{event['id']}"}
        if oracle.is_a("assertion", later):  # as `recorded_at` differs by two events
            later["data"].setdefault("asserted_at", "2021-09-05")
        assert len(record(without_it, [later])) == len(record(ledger, [shifted(later, size, 2)])), later
    question = Question(**{**_fields(question), "at_size": None})
    same_but_for_position(everything(without_it, question), everything(ledger, question))


def _fields(question: Question) -> dict[str, Any]:
    return {name: getattr(question, name) for name in Question.__dataclass_fields__}


def _retraction(number: int, **data: Any) -> Event:
    return {
        "specversion": "1.0",
        "type": "factledger.retraction.v1",
        "source": "x:one@1",
        "id": f"undo-{number}",
        "data": {"reason": "other", **data},
    }


@more
@given(data=st.data())
def test_law_5_a_retraction_retracted_never_happened(data: st.DataObject, store: Store) -> None:
    """Retracting a retraction of any events restores every answer but for positions, and later ones too.

    Held against a second ledger that never had the two events; every id was named before.
    """

    def pair(log: list[Event]) -> Sequence[Event]:
        targets = data.draw(st.lists(st.sampled_from(range(len(log))), min_size=1, max_size=3), label="targets")
        return _retraction(1, targets=targets), _retraction(2, targets=[{"id": "undo-1"}])

    assert_undone(data, store, pair)


@some
@given(data=st.data())
def test_law_5_a_bulk_retraction_retracted_never_happened(data: st.DataObject, store: Store) -> None:
    """As above, for a retraction by criteria."""

    def pair(_log: list[Event]) -> Sequence[Event]:
        bulk = data.draw(strategies.retractions(0), label="where")
        return {**_retraction(1), "data": bulk["data"]}, _retraction(2, targets=[{"id": "undo-1"}])

    assert_undone(data, store, pair)


@some
@given(data=st.data())
def test_law_5_a_merge_split_again_never_happened(data: st.DataObject, store: Store) -> None:
    """As above, for a `same` judgement and its retraction: held for ids that were named before the merge."""

    def pair(_log: list[Event]) -> Sequence[Event]:
        merge = data.draw(strategies.identities(), label="merge")
        judged = {**merge["data"], "judgement": "same"}
        done = {**merge, "specversion": "1.0", "source": "x:one@1", "id": "merge", "data": judged}
        return done, _retraction(2, targets=[{"id": "merge"}])

    assert_undone(data, store, pair)


# ---- 6. Locality ---------------------------------------------------------------------------------------


class Reach:
    """Which slots an event may change: worked out from the log alone, before and after the event."""

    def __init__(self, log: Sequence[Event], position: int) -> None:
        self.worlds = [oracle.World(log, oracle.Coordinates(n, START)) for n in (position, position + 1)]
        before, after = (world.standing for world in self.worlds)
        # The event itself, and whatever it takes out of force or brings back.
        self.changed = [log[p] for p in sorted({position} | (before ^ after))]
        self._claims = [e for e in log[: position + 1] if oracle.is_a("assertion", e)]

    def cluster(self, found: str) -> set[str]:
        """An id with all that it is judged the same as, before or after."""
        return {member for world in self.worlds for member in world.members(found)}

    def chain(self, agent: str) -> set[str]:
        """An agent with all that its word is traced to, before or after."""
        met: set[str] = set()
        for world in self.worlds:
            pending = {agent}
            while pending:
                here = pending.pop()
                if world.canonical(here) not in met:
                    met |= {world.canonical(here), *world.members(here)}
                    pending.add(world.agent(here, "relays", default=here))
        return met

    def touches(self, subject: str, predicate: str) -> bool:
        """Tell whether any of the changed events touches the slot."""
        subjects = self.cluster(subject)
        own = [e for e in self._claims if e["data"]["subject"] in subjects and e["data"]["predicate"] == predicate]
        ids, agents = set(subjects), set[str]()
        for e in own:
            value, provenance = e["data"]["value"], e["data"]["provenance"]
            if isinstance(value, dict):
                ids |= self.cluster(value["entity"])
            for agent in (*(provenance.get("speakers") or ()), provenance["outlet"], e["source"]):
                agents |= self.chain(agent)
        return any(self._touched_by(e, subjects, predicate, ids | agents, agents) for e in self.changed)

    def _touched_by(self, e: Event, subjects: set[str], predicate: str, ids: set[str], agents: set[str]) -> bool:
        data = e["data"]
        kind = e["type"].split(".")[1]
        return (
            kind == "policy"
            or (kind == "assertion" and data["subject"] in subjects and data["predicate"] == predicate)
            or (kind == "predicate" and data["predicate"] == predicate)
            or (kind == "agent" and data["agent"] in agents)
            or (kind == "identity" and data["judgement"] == "same" and not ids.isdisjoint(data["entities"]))
        )


@more
@given(data=st.data())
def test_law_6_locality(data: st.DataObject, store: Store) -> None:
    """An event changes only slots that it touches, itself or by what it takes out of force or brings back.

    Touched by an assertion: its own slot. By a declaration: the predicate's slots. By what is said of an agent:
    slots with an assertion through or by whoever leads to it. By a merge: slots whose subject, values or agents
    it joins. By a policy: all. By a judgement that is not `same`: none. Of all other slots, belief over all of
    valid time and the believed state around its boundaries stay the same.
    """
    ledger = store.holding([DECLARE_PLACE, *data.draw(any_log(12))])
    log = read_log(ledger)
    position = data.draw(st.integers(1, len(log) - 1), label="position") if len(log) > 1 else 0
    reach = Reach(log, position)
    around = data.draw(st.lists(st.sampled_from(moments(log)), min_size=2, max_size=2), label="instants")
    for subject, predicate in itertools.product(SUBJECTS, PREDICATES):
        if not reach.touches(subject, predicate):
            for view in ("timeline", "entity", "entity"):
                instant = around.pop() if around else START
                before, after = (
                    _slot_answer(ledger, view, subject, predicate, Question(valid_at=instant, at_size=size))
                    for size in (position, position + 1)
                )
                assert before == after, (view, subject, predicate, log[position])


def _slot_answer(ledger: Ledger, view: str, subject: str, predicate: str, question: Question) -> Any:
    """Return what a view says of one slot; of an entity that nobody has named, what it would say if it were."""
    answer = without(ask(ledger, view, subject, predicate, question), *UNPINNED)
    if isinstance(answer, bytes):
        answer = {"facts": {}, "segments": [{"from": None, "to": None, "status": "unknown", "values": []}]}
    return answer["segments"] if view == "timeline" else answer["facts"].get(predicate)


# ---- 7. Monotone ---------------------------------------------------------------------------------------


@more
@given(data=st.data())
def test_law_7_monotone(data: st.DataObject, store: Store) -> None:
    """One more affirmation of a value, by a new origin and ending nothing, never lowers the value's score.

    Held under `weighed`, at instants around the slot's boundaries, whether the affirmation covers them or not.
    """
    ledger = store.holding([data.draw(declared), *data.draw(strategies.crowded_logs(10))])
    size = ledger.size()
    affirmed = data.draw(st.sampled_from(strategies.VALUES[:3]), label="value")
    content: Event = {
        "subject": "e:1",
        "predicate": "place",
        "value": affirmed,
        "provenance": {"outlet": "a:new"},
        "asserted_at": data.draw(st.sampled_from(strategies.DAYS)),
        "confidence": data.draw(st.sampled_from([1, 0.93, 0.5, 0.1])),
    }
    # Ends nothing: a single date announces no end, an interval here has none.
    valid = data.draw(
        st.sampled_from([v for v in strategies.VALIDS if not v or "/" not in v or v.endswith(("/", ".."))])
    )
    if valid not in (None, ".."):
        content["valid"] = valid
    kind = "factledger.assertion.v1"
    new = {"specversion": "1.0", "type": kind, "source": "x:one@1", "id": "new", "data": content}
    assert record(ledger, [new])
    log = read_log(ledger)
    world = oracle.World(log, oracle.Coordinates(len(log), START))
    wanted = {"entity": world.canonical(affirmed["entity"])}
    around = instants(log, "e:1", "place", len(log))
    for instant in data.draw(st.permutations(around), label="order")[:10]:
        scores = []
        for n in (size, size + 1):
            question = Question(valid_at=instant, at_size=n, identity_at_size=len(log), method="weighed")
            answer = without(ask(ledger, "why", "e:1", "place", question))
            values = [] if isinstance(answer, bytes) else answer["values"]
            scores.append(next((v["score"] for v in values if v["value"] == wanted), 0.0))
        assert scores[0] <= scores[1], instant


# ---- What follows for the timeline, the memo and history -----------------------------------------------


@more
@given(data=st.data())
def test_timeline_is_belief_at_every_instant(data: st.DataObject, store: Store) -> None:
    """Segments hold the belief at each boundary, beside it and between it and the next, and are maximal.

    For every method and every `when`.
    """
    ledger = store.holding([data.draw(declared), *data.draw(strategies.crowded_logs(14))])
    for method in METHODS:
        with ledger.snapshot(Question(method=method)) as snapshot:
            slot = snapshot.slot_of("e:1", "place")
        if slot is None:
            return
        edges = [times.BEGINNING, *slot.boundaries(), times.FOREVER]
        asked = {i for edge in edges for i in (edge - 1, edge, edge + 1)} | {
            (a + b) // 2 for a, b in itertools.pairwise(edges)
        }
        for weakest in range(len(evidence.STRENGTHS)):
            found = segments(slot, weakest)
            assert [s.begins for s in found] == [times.BEGINNING, *(s.ends for s in found[:-1])]
            assert found[-1].ends == times.FOREVER
            assert all((a.status, a.values) != (b.status, b.values) for a, b in itertools.pairwise(found))
            for instant in sorted(asked):
                if times.BEGINNING <= instant < times.FOREVER:
                    there = next(s for s in found if s.begins <= instant < s.ends)
                    belief = believe(slot, instant, weakest)
                    values = tuple((v.value, v.status, v.probability, v.strength) for v in belief.values)
                    assert (there.status, there.values) == (belief.status, values), (method, weakest, instant)


@more
@given(data=st.data())
def test_a_memo_never_answers_otherwise_than_a_fresh_reading(data: st.DataObject, store: Store) -> None:
    """After every event, around every boundary and at earlier sizes, the memo says what a reading without it says.

    Memos are made at some instants, in memory and on disk, and are asked again while events go on arriving.
    """
    ledger, size = store.holding([DECLARE_PLACE]), 1
    days = st.sampled_from([START, START + 1, *(times.parse_moment(day) for day in strategies.DAYS)])
    watched = data.draw(st.lists(days, min_size=1, max_size=2, unique=True), label="watched")
    for event in data.draw(any_log(9)):
        size += len(record(ledger, [event]))
        check_memo(ledger, size, watched)
        if data.draw(st.sampled_from([False, False, True]), label="save"):
            ledger.save_memo()
    around = data.draw(st.permutations(moments(read_log(ledger))), label="order")[:4]
    for at_size in (size, data.draw(st.integers(1, size), label="earlier size"), size):
        check_memo(ledger, at_size, [*around, *watched])


def check_memo(ledger: Ledger, at_size: int, asked: Iterable[int]) -> None:
    """Compare answers that the memo may give with those that it may not."""
    for instant, entity in itertools.product(asked, SUBJECTS):
        kept = ask(ledger, "entity", entity, None, Question(valid_at=instant, at_size=at_size))
        if kept.startswith(b"{"):
            # A method that is asked for is never answered from the memo.
            method = json.loads(kept)["coordinates"]["method"]
            question = Question(valid_at=instant, at_size=at_size, method=method)
            assert kept == ask(ledger, "entity", entity, None, question), (at_size, instant, entity)


@more
@given(data=st.data())
def test_history_tells_every_change_and_nothing_else(data: st.DataObject, store: Store) -> None:
    """Changes are where and how the timelines before and after an event differ, and none is left out."""
    ledger = store.holding([DECLARE_PLACE, *data.draw(any_log(10))])
    when = data.draw(st.sampled_from(evidence.STRENGTHS))
    for entity in SUBJECTS[:2]:
        check_history(ledger, entity, when)


def check_history(ledger: Ledger, entity: str, when: str) -> None:
    """Compare a history with the differences between timelines."""
    answer = without(ask(ledger, "history", entity, None, Question(when=when)))
    if isinstance(answer, bytes):
        return
    told = {
        (change["position"], change["predicate"], change["valid"]["from"], change["valid"]["to"]): (
            change["before"],
            change["after"],
        )
        for change in answer["changes"]
    }
    assert len(told) == len(answer["changes"])
    assert [c["position"] for c in answer["changes"]] == sorted(c["position"] for c in answer["changes"])
    expected = {}
    for predicate in PREDICATES:
        sizes = range(answer["coordinates"]["at_size"] + 1)
        held = [_held(ledger, entity, predicate, Question(at_size=size, when=when)) for size in sizes]
        for position, (old, new) in enumerate(itertools.pairwise(held)):
            for begins, ends, before, after in _differences(old, new):
                expected[position, predicate, begins, ends] = (before, after)
    assert told == expected


Held = list[tuple[str | None, Any]]  # (from, belief), rising


def _held(ledger: Ledger, entity: str, predicate: str, question: Question) -> Held:
    """Return what a timeline holds from when, as far as a history tells it."""
    segments_of_it = _slot_answer(ledger, "timeline", entity, predicate, question)
    told = []
    for segment in segments_of_it:
        values = [{name: v[name] for name in ("value", "status", "probability")} for v in segment["values"]]
        told.append((segment["from"], {"status": segment["status"], "values": values}))
    return told


def _differences(old: Held, new: Held) -> list[tuple[str | None, str | None, Any, Any]]:
    """Return where two timelines differ, in maximal spans of one difference."""

    def at(held: Held, edge: str | None) -> Any:
        return [belief for begins, belief in held if begins is None or (edge is not None and begins <= edge)][-1]

    edges = sorted({begins for begins, _ in (*old, *new)}, key=lambda edge: edge or "")
    spans: list[tuple[str | None, str | None, Any, Any]] = []
    for edge, following in zip(edges, [*edges[1:], None], strict=True):
        pair = at(old, edge), at(new, edge)
        if spans and spans[-1][1] == edge and edge is not None and spans[-1][2:] == pair:
            spans[-1] = (spans[-1][0], following, *pair)
        else:
            spans.append((edge, following, *pair))
    return [span for span in spans if span[2] != span[3]]


# ---- All of it at length -------------------------------------------------------------------------------

LAWS = [
    test_law_1_the_past_does_not_move,
    test_law_2_incremental_equals_rebuild_equals_replay,
    test_law_3_belief_is_a_function_of_the_set,
    test_law_3_up_to_the_naming_of_clusters,
    test_law_4_recording_the_same_event_again_changes_nothing,
    test_law_4_an_origin_that_repeats_itself_is_no_witness,
    test_law_5_a_retraction_retracted_never_happened,
    test_law_5_a_bulk_retraction_retracted_never_happened,
    test_law_5_a_merge_split_again_never_happened,
    test_law_6_locality,
    test_law_7_monotone,
    test_timeline_is_belief_at_every_instant,
    test_a_memo_never_answers_otherwise_than_a_fresh_reading,
    test_history_tells_every_change_and_nothing_else,
]


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_at_length(law: Any, store: Store) -> None:
    """The same property on many more logs."""
    property_of_it = given(data=st.data())(law.hypothesis.inner_test)
    settings(some, max_examples=100 * some.max_examples)(property_of_it)(store=store)


@pytest.mark.slow
@settings(some, max_examples=500)
@given(log=strategies.logs(40, least=20))
def test_long_logs_check_out(log: list[Event], store: Store) -> None:
    """Everything stored for a long log follows from it."""
    ledger = store.holding([DECLARE_PLACE, *log])
    everything(ledger, Question(valid_at=START), history=True)
    ledger.save_memo()
    check_ledger(store.ledgers, ledger.name)
