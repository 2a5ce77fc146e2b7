"""Makers of events: what they make is what the ledger takes, field by field."""

from __future__ import annotations

import datetime
import inspect
from typing import Any

import pytest

from factledger import client
from factledger.client.ids import fresh_id
from factledger.core import events, facts
from factledger.core.events import read_event

# For each type: its maker, the least that it takes, and every field of the type with a value.
MAKERS: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
    events.ASSERTION: (
        client.assertion,
        ("e:a", "location", client.entity("e:b")),
        {
            "outlet": "o:1",
            "polarity": "denies",
            "speakers": ["p:1", "p:2"],
            "document": {"uri": "https://example.org"},
            "evidence": {"quote": "q"},
            "method": {"run": "r"},
            "valid": "2021-09/..",
            "valid_text": "since September",
            "asserted_at": "2021-09-07",
            "certainty": "possible",
            "confidence": 0.5,
            "corrects": [3, {"id": "x"}],
        },
    ),
    events.RETRACTION: (client.retraction, (4, "x"), {"reason": "duplicate", "note": "n"}),
    events.IDENTITY: (client.identity, ("e:a", "e:b"), {"judgement": "same", "score": 0.5, "note": "n"}),
    events.PREDICATE: (
        client.predicate,
        ("location", "one"),
        {
            "value_type": "entity",
            "plausible_values": 3,
            "lapse_days": 1.5,
            "unit": "m",
            "label": "l",
            "description": "d",
            "personal": True,
        },
    ),
    events.AGENT: (
        client.agent,
        ("o:1",),
        {"label": "l", "reliability": "B", "fidelity": 0.5, "relays": "o:2", "note": "n"},
    ),
    events.POLICY: (client.policy, ("latest",), {"parameters": {"accept": 0.8}, "note": "n"}),
}
ATTRIBUTES = {"id": "1", "source": "s:1", "time": "2021-09-07T00:00:00Z", "extensions": {"traceid": "t"}}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_maker_makes_what_the_ledger_takes(kind: str) -> None:
    maker, least, more = MAKERS[kind]
    made = maker(*least, **more, **ATTRIBUTES)
    draft = read_event(made)
    assert draft.type == kind
    assert (draft.id, draft.source) == ("1", "s:1")
    assert (made["time"], made["traceid"]) == ("2021-09-07T00:00:00Z", "t")
    stated = {**made["data"], **made["data"].get("provenance", {})}
    assert {name: stated[name] for name in more} == more


@pytest.mark.parametrize("kind", MAKERS)
def test_a_maker_knows_every_field_of_its_type(kind: str) -> None:
    maker, least, more = MAKERS[kind]
    made = maker(*least, **more)
    known = {*made["data"], *inspect.signature(maker).parameters}
    assert set(events._DATA[kind].fields) - known == set()
    provenance = set(events._PROVENANCE.fields) if kind == events.ASSERTION else set()
    assert provenance - set(inspect.signature(maker).parameters) == set()


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_left_out_is_not_there(kind: str) -> None:
    maker, least, more = MAKERS[kind]
    required = {name: more[name] for name in ("outlet", "reason", "judgement") if name in more}
    made = maker(*least, **required)
    assert made.keys() == {"specversion", "type", "data"}
    assert not {name for name in more if name not in required} & made["data"].keys()
    read_event({**made, "id": "1", "source": "s:1"})


def test_every_type_but_erasure_has_a_maker() -> None:
    assert MAKERS.keys() == set(events._DATA) - {events.ERASURE}


@pytest.mark.parametrize(
    "value",
    [
        client.entity("e:a"),
        client.date("2021-09?"),
        client.text("سلام", "prs-AF"),
        client.quantity(5, "km"),
        client.quantity(5.5, low=5, high=6),
        client.quantity(0),
    ],
)
def test_values_are_values(value: Any) -> None:
    assert not facts.check_value(value)


def test_one_speaker_and_one_ref_need_no_list() -> None:
    made = client.assertion("e:a", "p", 1, outlet="o:1", speakers="p:1", corrects="doc#1")
    assert made["data"]["provenance"]["speakers"] == ["p:1"]
    assert made["data"]["corrects"] == [{"id": "doc#1"}]
    assert client.assertion("e:a", "p", 1, outlet="o:1", corrects=0)["data"]["corrects"] == [0]
    made = client.retraction(7, "doc#1", client.ref("x", "s:2"), reason="other")
    assert made["data"]["targets"] == [7, {"id": "doc#1"}, {"source": "s:2", "id": "x"}]
    assert "targets" not in client.retraction(reason="other", where={"run": "r"})["data"]


def test_false_zero_and_empty_are_said() -> None:
    assert client.assertion("e:a", "p", False, outlet="o:1", confidence=0)["data"]["confidence"] == 0
    assert client.predicate("p", "one", personal=False)["data"]["personal"] is False


def test_rating_tells_clearing_from_leaving() -> None:
    assert client.agent("o:1", reliability=None)["data"] == {"agent": "o:1", "reliability": None}


def test_dates_are_written_as_the_ledger_reads_them() -> None:
    zone = datetime.timezone(datetime.timedelta(hours=4, minutes=30))
    made = client.assertion(
        "e:a",
        "p",
        1,
        outlet="o:1",
        asserted_at=datetime.date(2021, 9, 7),
        time=datetime.datetime(2021, 9, 7, 10, 2, tzinfo=zone),
        id="1",
        source="s:1",
    )
    assert (made["data"]["asserted_at"], made["time"]) == ("2021-09-07", "2021-09-07T10:02:00+04:30")
    read_event(made)


def test_fresh_ids_differ_and_sort_as_they_are_made() -> None:
    made = [fresh_id() for _ in range(1000)]
    assert len(set(made)) == 1000
    stamps = [one[:13] for one in made]
    assert stamps == sorted(stamps)
