"""Every row of the tables of belief, every date that its text takes apart, and its rules.

Each belief is asked of the oracle and of a real ledger, which must agree, and then compared with the table.
"""

from __future__ import annotations

import itertools
import tempfile
from itertools import count
from typing import Any

import pytest

from factledger.core.events import read_event
from factledger.recording import Request, Sources
from factledger.wiring import open_ledgers
from tests.core.test_belief import assert_agrees
from tests.oracle import (
    DAY,
    Coordinates,
    believe,
    boundaries,
    canonical_entity,
    first_instant,
    in_force,
    span,
)

ids = count()


def event(kind: str, data: dict[str, Any], **attributes: Any) -> dict[str, Any]:
    envelope = {"type": f"factledger.{kind}.v1", "source": "extractor:x", "id": f"e{next(ids)}"}
    return envelope | attributes | {"data": data}


def says(
    who: str,
    value: Any,
    said: str = "2021-09-01",
    *,
    outlet: str = "outlet:o",
    source: str = "extractor:x",
    **data: Any,
) -> dict[str, Any]:
    """An assertion about `s p`: a speaker affirms a value unless `polarity` says otherwise."""
    provenance = {"outlet": outlet, "speakers": [who]}
    about = {"subject": "s", "predicate": "p", "value": value, "asserted_at": said, "provenance": provenance}
    return event("assertion", about | data, source=source)


def denies(who: str, value: Any, said: str = "2021-09-01", **data: Any) -> dict[str, Any]:
    return says(who, value, said, polarity="denies", **data)


def retracts(*positions: int) -> dict[str, Any]:
    return event("retraction", {"targets": list(positions), "reason": "other"})


def same(*entities: str) -> dict[str, Any]:
    return event("identity", {"entities": list(entities), "judgement": "same"})


def agent(agent: str, **fields: Any) -> dict[str, Any]:
    return event("agent", {"agent": agent} | fields)


def vocabulary(cardinality: str, **fields: Any) -> dict[str, Any]:
    return event("predicate", {"predicate": "p", "cardinality": cardinality} | fields)


ONE, MANY = vocabulary("one"), vocabulary("many")


def log(*events: dict[str, Any]) -> list[dict[str, Any]]:
    """As recorded in 2022, a microsecond apart."""
    return [e | {"recordedat": f"2022-01-01T00:00:00.{i:06d}Z"} for i, e in enumerate(events)]


def belief(*events: dict[str, Any], at: str = "2021-09-02", **coordinates: Any) -> dict[str, Any]:
    asked = Coordinates(len(events), first_instant(at), **coordinates)
    clock = itertools.count(first_instant("2022-01-01"))
    with tempfile.TemporaryDirectory() as folder:
        sources = Sources(now=lambda: next(clock), salt=lambda: bytes(32))
        ledgers = open_ledgers(f"sqlite:///{folder}/ledger.db", sources)
        ledger = ledgers.get("main")
        for posted in events:
            ledger.append_one(Request([read_event({"specversion": "1.0", **posted})]))
        assert_agrees(ledger, log(*events), "s", "p", asked)
        ledgers.close()
    return believe(log(*events), "s", "p", asked)


def summary(answer: dict[str, Any]) -> dict[str, tuple[float, str]]:
    return {str(v["value"]): (round(v["probability"], 3), v["status"]) for v in answer["values"]}


def chances(answer: dict[str, Any]) -> dict[str, float]:
    return {value: probability for value, (probability, _) in summary(answer).items()}


def bounds(valid: str | None, said: str = "2021-12-31", lapse_days: int | None = None) -> list[float]:
    """The four bounds in days since 1 September 2021, as asserted at the end of that year."""
    assertion = says("a", "x", said) if valid is None else says("a", "x", said, valid=valid)
    taken = span(log(assertion)[0], lapse_days)
    instants = (taken.start_earliest, taken.start_latest, taken.end_earliest, taken.end_latest)
    return [(instant - first_instant("2021-09-01")) / DAY for instant in instants]


# ---- Evidence on one slot -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        pytest.param([says("a", "x")], {"x": 0.600}, id="one origin says x"),
        pytest.param([says("a", "x"), says("b", "x")], {"x": 0.957}, id="two origins say x"),
        pytest.param([says("a", "x"), says("b", "y")], {"x": 0.385, "y": 0.385}, id="x against y"),
        pytest.param(
            [says("a", "x"), says("b", "x"), says("c", "y")],
            {"x": 0.904, "y": 0.060},
            id="x by two, y by one",
        ),
        pytest.param([says("a", "x"), denies("b", "x")], {"x": 0.500}, id="one affirms x, one denies x"),
        pytest.param(
            [agent("b", reliability="B"), agent("d", reliability="D"), says("b", "x"), says("d", "y")],
            {"x": 0.767, "y": 0.111},
            id="x by a B source, y by a D source",
        ),
        pytest.param([says("a", "x", confidence=0.5)], {"x": 0.345}, id="confidence .5"),
        pytest.param([says("a", "x", certainty="probable")], {"x": 0.473}, id="probable"),
        *(
            pytest.param([agent("a", reliability=rating), says("a", "x")], {"x": expected}, id=f"rated {rating}")
            for rating, expected in {"A": 0.950, "C": 0.700, "D": 0.450, "E": 0.100}.items()
        ),
    ],
)
def test_evidence_table(evidence: list[dict[str, Any]], expected: dict[str, float]) -> None:
    assert chances(belief(ONE, *evidence)) == expected


@pytest.mark.parametrize(
    ("evidence", "status"),
    [
        pytest.param([says("a", "x")], "reported", id="one unrated report"),
        pytest.param([says("a", "x"), says("b", "x")], "accepted", id="two independent ones"),
        pytest.param([agent("a", reliability="C"), says("a", "x")], "accepted", id="one from a C source"),
        pytest.param([agent("a", reliability="A"), says("a", "x")], "accepted", id="one from a better one"),
    ],
)
def test_what_is_reported_and_what_is_accepted(evidence: list[dict[str, Any]], status: str) -> None:
    assert belief(ONE, *evidence)["status"] == status


# ---- Worked examples ------------------------------------------------------------------------------------

BANO = [
    says("agent:defence-minister", "opposition", "2021-08-22", valid="2021-08-16/.."),
    says("agent:taliban-spokesman", "taliban", "2021-08-23", valid="2021-08-23/.."),
]
PANJSHIR = [
    says("agent:reuters", "resistance", "2021-08-23", valid="2021-08-15/.."),
    says("agent:taliban-spokesman", "taliban", "2021-09-06", valid="2021-09-06/.."),
    denies("agent:resistance-spokesman", "taliban", "2021-09-06"),
    says("agent:resistance-spokesman", "resistance", "2021-09-06"),
]
CONCEDED = [*PANJSHIR, says("agent:massoud", "taliban", "2021-09-07", valid="2021-09-06/..")]
SALEH = [
    says("agent:the-times", "panjshir", "2021-09-05"),
    says("agent:atalayar", "tajikistan", "2021-09-07", valid="2021-09/..", certainty="probable"),
]


@pytest.mark.parametrize(
    ("evidence", "at", "status", "values", "outdated"),
    [
        (BANO, "2021-08-20", "reported", {"opposition": (0.600, "reported")}, {}),
        (BANO, "2021-08-24", "reported", {"taliban": (0.600, "reported")}, {1: [2]}),
        (PANJSHIR, "2021-09-01", "reported", {"resistance": (0.600, "reported")}, {}),
        (
            PANJSHIR,
            "2021-09-10",
            "contested",
            {"resistance": (0.441, "contested"), "taliban": (0.294, "contested")},
            {1: [2]},
        ),
        (
            CONCEDED,
            "2021-09-10",
            "accepted",
            {"taliban": (0.862, "accepted"), "resistance": (0.086, "outweighed")},
            {1: [2, 5]},
        ),
        (
            SALEH,
            "2021-09-06",
            "contested",
            {"panjshir": (0.455, "contested"), "tajikistan": (0.272, "contested")},
            {},
        ),
        (SALEH, "2021-09-10", "reported", {"tajikistan": (0.473, "reported")}, {1: [2]}),
    ],
)
def test_worked_examples(
    evidence: list[dict[str, Any]],
    at: str,
    status: str,
    values: dict[str, Any],
    outdated: dict[int, list[int]],
) -> None:
    answer = belief(ONE, *evidence, at=at)
    assert (answer["status"], summary(answer), answer["outdated"]) == (status, values, outdated)
    assert list(summary(answer)) == list(values)  # best first


def test_an_older_claim_is_outdated_from_the_day_of_the_change() -> None:
    assert belief(ONE, *BANO, at="2021-08-22T23:59:59.999999Z")["outdated"] == {}
    assert belief(ONE, *BANO, at="2021-08-23")["outdated"] == {1: [2]}


def test_claims_made_on_a_day_about_that_day_are_rivals() -> None:
    rivals = [says(who, who, "2021-09-06", valid="2021-09-06/..") for who in ("a", "b")]
    answer = belief(ONE, *rivals, at="2021-09-10")
    assert (chances(answer), answer["outdated"]) == ({"a": 0.385, "b": 0.385}, {})


# ---- Spans of valid time --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("valid", "expected"),
    [
        ("2021-09/..", [0, 29, float("inf"), float("inf")]),
        ("2021-08-01/2021-09", [-31, -31, 1, 30]),
        ("2021-08-01/2021-08-2X", [-31, -31, -11, -2]),
        ("2021-08-2X/..", [-12, -3, float("inf"), float("inf")]),
        ("2021-09/2021-09", [0, 29, 1, 30]),
        ("2021-09-06", [5, 5, 6, 6]),  # a day has equal bounds
        ("2021-09", [0, 29, 1, 30]),  # an observation covers its days
        ("2021-09~", [0, 29, 1, 30]),  # flags move no bound
        ("2021?-%09-~06", [5, 5, 6, 6]),
        ("2021-09-01T12:00:00Z/2021-09-01T18:00:00Z", [0.5, 0.5, 0.75, 0.75]),
        ("2021-09-01T14:00:00+02:00/2021-09-01T18:00:00", [0.5, 0.5, 0.75, 0.75]),
        ("../2021-09-06", [-float("inf"), -float("inf"), 6, 6]),
        ("2021-XX-15/..", [-229, 105, float("inf"), float("inf")]),
        ("2021-23/..", [0, 90, float("inf"), float("inf")]),
        ("2020-24", [-274, -185, -273, -184]),  # winter ends in the next year
        ("201X", [-4261, -610, -4260, -609]),
        ("2021-09-06/2021-09", [5, 5, 6, 30]),  # an end comes a day after the start at the earliest
        ("/2021-09-06", [5, 5, 6, 6]),  # unknown start, ended before it was said: the last day covered
        ("/2021-09", [29, 29, 30, 30]),
        ("/", [121, 121, float("inf"), float("inf")]),  # it held when it was said
        (None, [121, 121, float("inf"), float("inf")]),
    ],
)
def test_bounds(valid: str | None, expected: list[float]) -> None:
    assert bounds(valid) == expected


def test_an_instant_covers_its_microsecond() -> None:
    taken = span(log(says("a", "x", valid="2021-09-01T12:00:00Z"))[0])
    assert taken.end_latest - taken.start_earliest == 1
    assert taken.covers(taken.start_earliest)


def test_a_start_had_happened_when_it_was_said() -> None:
    assert bounds("2021-09/..", "2021-09-07")[:2] == [0, 6]
    assert bounds("2021-09/..", "2021-08-31")[:2] == [0, 29]


def test_an_open_end_lapses_and_a_known_one_does_not() -> None:
    assert bounds("2021-09-06/..", "2021-09-02", lapse_days=10)[2:] == [15, 15]
    assert bounds(None, "2021-09-10", lapse_days=10)[2:] == [19, 19]
    assert bounds("2021-09-06", "2021-09-10", lapse_days=10)[2:] == [6, 6]


def test_asserted_at_defaults_and_is_no_later_than_recorded_at() -> None:
    def asserted(data: dict[str, Any], **attributes: Any) -> str:
        about = {"subject": "s", "predicate": "p", "value": 1}
        provenance = {"outlet": "o"} | data.pop("provenance", {})
        recorded = log(event("assertion", about | data | {"provenance": provenance}, **attributes))
        given = ("2021-09-01", "2021-09-02", "2021-09-03T10:00:00Z", "2022-01-01")
        start = span(recorded[0]).start_earliest
        return next(text for text in given if first_instant(text) // DAY * DAY == start)

    published = {"provenance": {"document": {"published_at": "2021-09-02"}}}
    time = {"time": "2021-09-03T10:00:00Z"}
    assert asserted({"asserted_at": "2021-09-01", **published}, **time) == "2021-09-01"
    assert asserted({**published}, **time) == "2021-09-02"
    assert asserted({}, **time) == "2021-09-03T10:00:00Z"
    assert asserted({}) == "2022-01-01"
    assert asserted({"asserted_at": "2030-01-01"}) == "2022-01-01"


@pytest.mark.parametrize(
    ("text", "instant"),
    [("2021", "2021-01-01"), ("2021-09", "2021-09-01"), ("2021-08-2X", "2021-08-20"), ("20XX", "2000-01-01")],
)
def test_a_coarse_instant_is_its_first(text: str, instant: str) -> None:
    assert first_instant(text) == first_instant(instant)


@pytest.mark.parametrize("text", ["2021-02-30", "2021-13", "2021-02-3X", "hello"])
def test_no_such_day(text: str) -> None:
    with pytest.raises(ValueError, match=r"no such day|invalid literal"):
        first_instant(text)


@pytest.mark.parametrize(
    ("at", "how"),
    [
        ("2021-09-05", "possible"),
        ("2021-09-06", "definite"),
        ("2021-09-08", "presumed"),
        ("2021-09-21", "possible"),
    ],
)
def test_when(at: str, how: str) -> None:
    claim = says("a", "x", "2021-09-06", valid="2021-09/2021-09-2X")
    assert belief(ONE, claim, at=at)["values"][0]["when"] == how
    for asked in ("possible", "presumed", "definite"):
        strong_enough = ["possible", "presumed", "definite"].index(how) >= (
            ["possible", "presumed", "definite"].index(asked)
        )
        assert bool(belief(ONE, claim, at=at, when=asked)["values"]) == strong_enough


# ---- What drops out -------------------------------------------------------------------------------------


def test_a_speaker_who_changes_his_mind_and_back_supersedes_himself_and_nothing_revives() -> None:
    mind = [says("a", "x", "2021-09-01"), denies("a", "x", "2021-09-02"), says("a", "x", "2021-09-03")]
    answer = belief(ONE, *mind, at="2021-09-04")
    assert (answer["superseded"], chances(answer)) == ({1: [2], 2: [3]}, {"x": 0.6})
    assert belief(MANY, says("a", "x"), says("a", "y"))["superseded"] == {}
    assert belief(ONE, says("a", "x"), says("a", "y", confidence=0.3))["superseded"] == {}


def test_a_known_end_outdates_who_held_that_it_goes_on() -> None:
    held, ended = says("a", "x", "2021-09-01"), says("b", "x", "2021-09-05", valid="2021-08/2021-09-10")
    assert belief(ONE, held, ended, at="2021-09-10T12:00:00Z")["outdated"] == {}
    answer = belief(ONE, held, ended, at="2021-09-11")
    assert (answer["outdated"], answer["status"]) == ({1: [2]}, "unknown")


def test_a_change_is_as_credible_as_what_it_displaces() -> None:
    a = [agent("a", reliability="B"), says("a", "x", "2021-09-01", valid="2021-08/..")]
    moved = [says(who, "y", "2021-09-05", valid="2021-09-05/..") for who in ("b", "c")]
    assert belief(ONE, *a, moved[0], at="2021-09-06")["outdated"] == {}
    assert belief(ONE, *a, *moved, at="2021-09-06")["outdated"] == {2: [3, 4]}


def test_a_vague_start_outdates_only_what_began_before_all_of_it() -> None:
    began, vague = (
        says("a", "x", "2021-09-05", valid="2021-09-03/.."),
        says("b", "y", "2021-09-09", valid="2021-09/.."),
    )
    assert belief(ONE, began, vague, at="2021-09-10")["outdated"] == {}
    began = says("a", "x", "2021-09-05", valid="2021-08-31/..")
    assert belief(ONE, began, vague, at="2021-09-10")["outdated"] == {1: [2]}


def test_a_denial_outdates_nothing_and_is_outdated_by_what_comes_true() -> None:
    denial = denies("a", "x", "2021-09-01")
    answer = belief(MANY, denial, says("b", "x", "2021-09-05", valid="2021-09-05/.."), at="2021-09-06")
    assert (answer["outdated"], summary(answer)) == ({1: [2]}, {"x": (0.6, "reported")})
    assert belief(MANY, denial)["status"] == "denied"


# ---- In force, origins, identity ------------------------------------------------------------------------


def test_retraction_correction_and_their_undoing() -> None:
    x, y = says("a", "x"), says("b", "y", corrects=[1])
    assert chances(belief(ONE, x, y)) == {"y": 0.6}
    assert belief(ONE, x, retracts(1))["status"] == "withdrawn"
    assert chances(belief(ONE, x, retracts(1), retracts(2))) == {"x": 0.6}
    assert chances(belief(ONE, x, y, retracts(2))) == {"x": 0.6}
    assert belief(ONE, x, y)["not_in_force"] == [1]


def test_by_asserted_before_what_was_said_later_corrects_nothing() -> None:
    events = log(ONE, says("a", "x"), says("b", "y", "2021-09-05", corrects=[1]))
    assert in_force(events, 3) == {0, 2}
    assert in_force(events, 3, first_instant("2021-09-05")) == {0, 1}
    assert in_force(events, 2) == {0, 1}


def test_a_where_retraction_takes_all_that_match_every_criterion_and_were_there() -> None:
    claims = [says("a", "x"), says("a", "y", outlet="outlet:other"), event("agent", {"agent": "a"})]
    where = event("retraction", {"where": {"source_prefix": "extractor:", "outlet": "outlet:o"}, "reason": "other"})
    assert in_force(log(*claims, where, says("a", "z")), 5) == {1, 2, 3, 4}


def test_a_relayed_speaker_is_one_witness_with_the_outlets_that_carried_him() -> None:
    relays = [agent("spokesman", relays="body"), agent("body-2", reliability="A"), same("body", "body-2")]
    claims = [says("spokesman", "x", outlet="outlet:1"), says("body-2", "x", outlet="outlet:2")]
    answer = belief(ONE, *relays, *claims)
    assert chances(answer) == {"x": 0.95}
    assert answer["values"][0]["support"] == {"assertions": 2, "origins": 1, "outlets": 2}
    assert chances(belief(ONE, *relays, agent("body", reliability=None), *claims)) == {"x": 0.6}
    assert chances(belief(ONE, *relays, agent("outlet:1", fidelity=0), claims[0])) == {}


def test_the_canonical_member_is_the_one_that_the_log_named_first() -> None:
    claim = says("speaker", {"entity": "value"}, outlet="outlet")
    events = log(claim, same("value", "s"), same("speaker", "value"), same("zoe", "amy"))
    assert [canonical_entity(events, size, "value") for size in (1, 2, 3)] == ["value", "s", "speaker"]
    assert canonical_entity(events, 4, "amy") == "zoe"
    assert believe(events, "value", "p", Coordinates(4, 0, identity_at_size=2))["members"] == ["s", "value"]


@pytest.mark.parametrize(
    ("cardinality", "method", "expected"),
    [
        (ONE, "latest", {"x": (0.0, "contested"), "y": (0.0, "contested")}),
        (ONE, "majority", {"x": (0.5, "contested"), "y": (0.25, "contested")}),
        (MANY, "latest", {"y": (1.0, "accepted"), "x": (0.0, "contested")}),
        (MANY, "majority", {"y": (1.0, "accepted"), "x": (0.667, "accepted")}),
    ],
)
def test_other_methods(cardinality: dict[str, Any], method: str, expected: dict[str, Any]) -> None:
    said = [says("a", "x", "2021-09-01"), says("b", "x", "2021-09-02"), says("c", "y", "2021-09-03")]
    answer = belief(cardinality, *said, denies("d", "x", "2021-09-04"), at="2021-09-05", method=method)
    assert summary(answer) == expected


def test_belief_changes_at_boundaries_only() -> None:
    events = log(ONE, *CONCEDED)
    edges = boundaries(events, "s", "p", len(events))

    def at(instant: int) -> dict[str, Any]:
        return believe(events, "s", "p", Coordinates(len(events), instant))

    assert edges[0] == first_instant("2021-08-15")
    for edge, following in zip(edges, [*edges[1:], edges[-1] + 400 * DAY], strict=True):
        assert at(edge) == at((edge + following) // 2) == at(following - 1)
