"""Wikidata entities: ranks, times, values, references, and what another revision says no longer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docs.importers import wikidata
from docs.importers.importing import LeftOut
from factledger.client import Ledger
from factledger.core import times
from tests.importers.conftest import SAMPLES, Run

JANUARY, MARCH = SAMPLES / "entities-january.json", SAMPLES / "entities-march.json"
JANE = "wd:Q900000001"

Row = dict[str, Any]


def time(text: str, precision: int = 11, *, julian: bool = False) -> Row:
    calendar = "Q1985786" if julian else "Q1985727"
    return {"time": text, "precision": precision, "calendarmodel": f"http://www.wikidata.org/entity/{calendar}"}


def snak(name: str, kind: str, value: Any, datatype: str = "") -> Row:
    return {"snaktype": "value", "property": name, "datatype": datatype or kind} | {
        "datavalue": {"type": kind, "value": value}
    }


def item(name: str, item_id: str) -> Row:
    return snak(name, "wikibase-entityid", {"entity-type": "item", "id": item_id}, "wikibase-item")


def claim(mainsnak: Row, rank: str = "normal", *, guid: str = "Q1$1", **more: Any) -> Row:
    return {"id": guid, "type": "statement", "mainsnak": mainsnak, "rank": rank, **more}


def qualified(*snaks: Row) -> dict[str, list[Row]]:
    by: dict[str, list[Row]] = {}
    for one in snaks:
        by.setdefault(one["property"], []).append(one)
    return by


def entity(*claims: Row, revision: int = 1, **more: Any) -> Row:
    """An item whose claims are all of one property."""
    name = claims[0]["mainsnak"]["property"] if claims else "P1"
    empty = {"labels": {}, "aliases": [], "claims": {name: list(claims)} if claims else []}
    return {"id": "Q1", "type": "item", "lastrevid": revision, "modified": "2024-01-02T08:00:00Z", **empty, **more}


def made(row: Row) -> list[Any]:
    """The events of an entity, and what is left out."""
    one = wikidata.Entity(row)
    return [event for name, group in one.groups().items() for event in one.events(name, group)]


# --- times


@pytest.mark.parametrize(
    ("text", "precision", "julian", "expected"),
    [
        ("+1994-05-07T00:00:00Z", 11, False, "1994-05-07"),
        ("+00000001994-05-07T00:00:00Z", 11, False, "1994-05-07"),
        ("+1994-05-00T00:00:00Z", 10, False, "1994-05"),
        ("+1994-00-00T00:00:00Z", 9, False, "1994"),
        ("+1994-01-01T00:00:00Z", 8, False, "199X"),
        ("+0007-00-00T00:00:00Z", 8, False, "000X"),
        ("+1901-00-00T00:00:00Z", 7, False, "19XX"),
        ("+2000-00-00T00:00:00Z", 7, False, "19XX"),
        ("+2001-00-00T00:00:00Z", 7, False, "20XX"),
        ("+2000-00-00T00:00:00Z", 6, False, "1XXX"),
        ("+2001-12-31T13:14:15Z", 14, False, "2001-12-31T13:14:15Z"),
        ("+2001-12-31T13:00:00Z", 12, False, "2001-12-31"),
        ("+12345-00-00T00:00:00Z", 9, False, "Y12345"),
        ("-0001-00-00T00:00:00Z", 9, False, "0000"),
        ("-0044-03-15T00:00:00Z", 11, False, "-0043-03-15"),
        ("-0044-00-00T00:00:00Z", 8, False, "-00XX"),
        ("-0100-00-00T00:00:00Z", 7, False, "-00XX"),
        ("-0101-00-00T00:00:00Z", 7, False, "-01XX"),
        ("-1000-00-00T00:00:00Z", 6, False, "-0XXX"),
        ("-0044-03-15T00:00:00Z", 11, True, "-0043-03-13"),
        ("+1642-12-25T00:00:00Z", 11, True, "1643-01-04"),
        ("+1752-09-02T00:00:00Z", 11, True, "1752-09-13"),
        ("+1700-02-29T00:00:00Z", 11, True, "1700-03-11"),
        ("+1642-12-00T00:00:00Z", 10, True, "1642-12~"),
        ("+1642-00-00T00:00:00Z", 9, True, "1642~"),
        ("+1600-00-00T00:00:00Z", 7, True, "15XX"),
    ],
)
def test_times(text: str, precision: int, julian: bool, expected: str) -> None:
    written = wikidata.edtf(time(text, precision, julian=julian))
    assert written == expected
    times.parse_valid(written)


@given(year=st.integers(-3000, 3000).filter(bool), month=st.integers(1, 12), day=st.integers(1, 28))
def test_the_calendars_drift_apart_by_three_days_in_four_centuries(year: int, month: int, day: int) -> None:
    julian = wikidata.edtf(time(f"{year:+05d}-{month:02d}-{day:02d}T00:00:00Z", julian=True))
    astronomical = year + (year < 0)
    leap_days_from = astronomical - (month < 3)  # a leap day that is in one calendar alone comes in February
    apart = leap_days_from // 100 - leap_days_from // 400 - 2
    gregorian = times.days_from_civil(astronomical, month, day)
    assert times.first_instant(julian) == (gregorian + apart) * times.DAY


@pytest.mark.parametrize("text", ["+0000-00-00T00:00:00Z", "1994", "+1994-01-01"])
def test_no_times(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        wikidata.edtf(time(text, 9))


@pytest.mark.parametrize(("text", "precision"), [("-13798000000-00-00T00:00:00Z", 3), ("+10001-00-00T00:00:00Z", 7)])
def test_times_that_edtf_cannot_say(text: str, precision: int) -> None:
    with pytest.raises(ValueError, match=r"is coarser than|is beyond"):
        wikidata.edtf(time(text, precision))


SOME, NONE = {"snaktype": "somevalue", "datatype": "time"}, {"snaktype": "novalue", "datatype": "time"}
START = snak("P580", "time", time("+1699-00-00T00:00:00Z", 9))
END = snak("P582", "time", time("+1727-03-20T00:00:00Z"))
POINT = snak("P585", "time", time("+1705-04-00T00:00:00Z", 10))


@pytest.mark.parametrize(
    ("qualifiers", "timeless", "expected"),
    [
        ([], False, None),
        ([], True, "../.."),
        ([START], True, "1699/"),
        ([START, END], False, "1699/1727-03-20"),
        ([END], False, "/1727-03-20"),
        ([POINT], False, "1705-04"),
        ([{**SOME, "property": "P580"}, END], False, "/1727-03-20"),
        ([{**NONE, "property": "P580"}, END], False, "../1727-03-20"),
        ([START, {**NONE, "property": "P582"}], False, "1699/.."),
        ([START, {**SOME, "property": "P582"}], False, "1699/XXXX"),
        ([{**SOME, "property": "P582"}], False, "XXXX/2024-01-02"),
        ([{**SOME, "property": "P585"}], False, None),
    ],
)
def test_spans(qualifiers: list[Row], timeless: bool, expected: str | None) -> None:
    span = wikidata.valid(qualified(*qualifiers), timeless=timeless, by="2024-01-02")
    assert span == expected
    if span is not None:
        times.parse_valid(span)


def test_two_starts_are_left_out() -> None:
    (left_out,) = made(entity(claim(item("P39", "Q2"), qualifiers=qualified(START, START))))
    assert left_out == LeftOut("Q1$1 is qualified by P580 more than once")


# --- values

METRES = "http://www.wikidata.org/entity/Q11573"


@pytest.mark.parametrize(
    ("kind", "said", "expected"),
    [
        ("string", "x", "x"),
        ("wikibase-entityid", {"entity-type": "lexeme", "id": "L1-F2"}, {"entity": "wd:L1-F2"}),
        ("monolingualtext", {"text": "x", "language": "zh-mo"}, {"text": "x", "lang": "zh-mo"}),
        ("time", time("+1994-05-00T00:00:00Z", 10), {"date": "1994-05"}),
        ("quantity", {"amount": "+3", "unit": "1"}, {"quantity": {"amount": 3}}),
        (
            "quantity",
            {"amount": "-10.38", "unit": METRES, "lowerBound": "-10.375", "upperBound": "-10.385"},
            {"quantity": {"amount": -10.38, "low": -10.385, "high": -10.375, "unit": "wd:Q11573"}},
        ),
        (
            "quantity",
            {"amount": "+0", "unit": "1", "lowerBound": "+0", "upperBound": "+1"},
            {"quantity": {"amount": 0, "low": 0, "high": 1}},
        ),
        (
            "globecoordinate",
            {"latitude": 0.00002, "longitude": -13.5, "globe": wikidata.EARTH},
            "geo:0.00002,-13.5",
        ),
    ],
)
def test_values(kind: str, said: Any, expected: Any) -> None:
    assert wikidata.value(snak("P1", kind, said), "Q1$1") == expected


@pytest.mark.parametrize(
    ("kind", "said", "why"),
    [
        ("quantity", {"amount": "+9007199254740993", "unit": "1"}, "more digits"),
        (
            "globecoordinate",
            {"latitude": 1, "longitude": 1, "globe": "http://www.wikidata.org/entity/Q405"},
            "type globe",
        ),
        ("wikibase-sense", {}, "for which the ledger has none"),
    ],
)
def test_values_that_the_ledger_does_not_have(kind: str, said: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        wikidata.value(snak("P1", kind, said), "Q1$1")


def test_something_and_nothing() -> None:
    some, none = ({"snaktype": kind, "property": "P40"} for kind in ("somevalue", "novalue"))
    assert wikidata.value(some, "Q1$1") == {"entity": "wd:somevalue/Q1$1"}
    assert wikidata.value(none, "Q1$1") == {"entity": "wd:novalue"}


# --- ranks and references

BOOK: Row = {"hash": "b", "snaks": qualified(item("P248", "Q10"), snak("P577", "time", time("+1980-05-02T00:00:00Z")))}
SITE: Row = {
    "hash": "s",
    "snaks": qualified(
        snak("P854", "string", "https://a.example/1"), snak("P813", "time", time("+2020-02-03T00:00:00Z"))
    ),
}
BARE: Row = {"hash": "r", "snaks": qualified(snak("P813", "time", time("+2020-02-03T00:00:00Z")))}


@pytest.mark.parametrize(
    ("rank", "references", "expected"),
    [
        ("normal", [], [("affirms", None)]),
        ("normal", [BOOK], [("affirms", "wd:Q10")]),
        ("normal", [BARE], [("affirms", None)]),
        ("preferred", [BOOK, SITE], [("affirms", "wd:Q10"), ("affirms", "site:a.example"), ("affirms", None)]),
        ("deprecated", [BOOK], [("affirms", "wd:Q10"), ("denies", None)]),
        ("deprecated", [BARE], [("denies", None)]),
    ],
)
def test_whose_word_a_statement_is(rank: str, references: list[Row], expected: list[tuple[str, str | None]]) -> None:
    events = made(entity(claim(item("P39", "Q2"), rank, references=references)))
    assert [
        (event["data"].get("polarity", "affirms"), (event["data"]["provenance"].get("speakers") or [None])[0])
        for event in events
    ] == expected
    assert {event["data"]["provenance"]["outlet"] for event in events} == {wikidata.WIKIDATA}


def test_what_a_reference_says_of_its_source() -> None:
    title = snak("P1476", "monolingualtext", {"text": "On Q1", "language": "en"})
    book, site = (one["snaks"] for one in (BOOK, SITE))
    both = {"hash": "x", "snaks": {**book, **site, **qualified(title)}}
    (event,) = made(entity(claim(item("P39", "Q2"), references=[both])))
    assert event["data"]["asserted_at"] == "1980-05-02"
    assert event["data"]["provenance"]["document"] == {
        "uri": "https://a.example/1",
        "published_at": "1980-05-02",
        "title": "On Q1",
        "language": "en",
    }
    (event,) = made(entity(claim(item("P39", "Q2"), references=[SITE])))
    assert event["data"]["asserted_at"] == "2020-02-03"


def test_who_disputes_a_statement_denies_it() -> None:
    affirmed, denied = sorted(
        made(entity(claim(item("P39", "Q2"), qualifiers=qualified(item("P1310", "Q7"))))),
        key=lambda event: "polarity" in event["data"],
    )
    assert "speakers" not in affirmed["data"]["provenance"]
    assert (denied["data"]["polarity"], denied["data"]["provenance"]["speakers"]) == ("denies", ["wd:Q7"])


def test_sourcing_circumstances() -> None:
    presumably, circa = item("P1480", "Q18122778"), item("P1480", "Q5727902")
    born = snak("P569", "time", time("+1643-00-00T00:00:00Z", 9))
    (event,) = made(entity(claim(born, qualifiers=qualified(presumably, circa))))
    assert (event["data"]["certainty"], event["data"]["value"]) == ("probable", {"date": "1643~"})


def test_of_what_wikidata_says_itself_the_best_ranked_counts(
    run: Run, remote: Ledger, written: Callable[..., Path]
) -> None:
    single = claim(item("P2302", "Q19474404"), guid="P19$1")
    birthplace = entity(
        single,
        id="P19",
        type="property",
        datatype="wikibase-item",
        labels={"en": {"language": "en", "value": "place of birth"}},
    )
    better, other = claim(item("P19", "Q2"), "preferred"), claim(item("P19", "Q3"), guid="Q1$2")
    assert run(wikidata, written("e.json", birthplace, entity(better, other)))[0] == 0
    fact = remote.believed("wd:Q1")["p19"]
    assert (fact.cardinality, fact.status) == ("one", "reported")
    assert [one.value for one in fact.values] == [{"entity": "wd:Q2"}]


def test_the_sample(run: Run, remote: Ledger) -> None:
    code, _, complaints = run(wikidata, JANUARY)
    assert code == 2
    assert "is narrowed by P518" in complaints
    assert "p69" not in remote.believed(JANE)
    born = remote.believed(JANE, valid_at="1700")["p569"]
    assert [(one.value["date"], one.status) for one in born.values] == [
        ("1643-01-04", "accepted"),
        ("1643", "outweighed"),
        ("16XX", "outweighed"),
    ]
    assert (born.values[2].support.origins, born.values[2].opposition.origins) == (1, 1)
    offices = [
        [one.value for one in remote.believed(JANE, valid_at=year)["p39"].values] for year in ("1698", "1710", "1730")
    ]
    assert offices == [[], [{"entity": "wd:Q900000020"}], []]
    (residence,) = remote.believed(JANE, valid_at="1710")["p551"].values
    assert (residence.when, round(residence.probability, 3)) == ("possible", 0.575)


def test_another_revision_replaces_the_properties_that_differ(run: Run, remote: Ledger) -> None:
    run(wikidata, JANUARY)
    size = remote.size()
    run(wikidata, MARCH, previous=JANUARY)
    state = remote.believed(JANE, valid_at="2024-06-01")
    assert state["p569"].best is not None
    assert state["p569"].best.value == {"date": "1643"}
    assert state["p1477"].status == "withdrawn"
    assert remote.believed(JANE, valid_at="2024-06-01", at_size=size)["p1477"].status == "reported"
    posted = {event["data"].get("predicate") for event in remote.events(from_position=size)}
    assert posted == {"p569", None}  # and the retraction of p1477


def test_what_comes_back_holds_again(run: Run, remote: Ledger, written: Callable[..., Path]) -> None:
    later = json.loads(JANUARY.read_text("utf-8"))[1] | {"lastrevid": 7003, "modified": "2024-05-01T08:00:00Z"}
    run(wikidata, JANUARY)
    run(wikidata, MARCH, previous=JANUARY)
    run(wikidata, written("may.json", later), previous=MARCH)
    state = remote.believed(JANE, valid_at="2024-06-01")
    assert state["p1477"].status == "reported"
    assert state["p569"].best is not None
    assert state["p569"].best.value == {"date": "1643-01-04"}


def test_an_entity_that_is_gone_is_withdrawn(run: Run, remote: Ledger, written: Callable[..., Path]) -> None:
    other = claim(item("P39", "Q3"), guid="Q2$1")
    both = written("1.json", entity(claim(item("P39", "Q2"))), entity(other, id="Q2"))
    run(wikidata, both)
    run(wikidata, written("2.json", entity(other, id="Q2")), previous=both)
    assert remote.believed("wd:Q1")["p39"].status == "withdrawn"
    assert remote.believed("wd:Q2")["p39"].status == "reported"


def test_special_entitydata_is_read_too(run: Run, remote: Ledger, written: Callable[..., Path]) -> None:
    file = written("q1.json", {"entities": {"Q1": entity(claim(item("P39", "Q2")))}})
    assert run(wikidata, file)[0] == 0
    assert remote.believed("wd:Q1")["p39"].status == "reported"


def test_a_bad_statement_leaves_the_others(run: Run, remote: Ledger, written: Callable[..., Path]) -> None:
    broken = claim({"snaktype": "value", "property": "P39"}, guid="Q1$2")
    code, _, complaints = run(wikidata, written("e.json", entity(claim(item("P39", "Q2")), broken)))
    assert (code, complaints) == (2, "e.json:1: left out: Q1$2 has no 'datavalue'\n")
    assert remote.believed("wd:Q1")["p39"].status == "reported"
