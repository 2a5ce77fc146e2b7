"""The ledger as programs use it: every verb, every question, every type of error."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from starlette.responses import Response

from factledger import client
from factledger.client import (
    ConflictError,
    InvalidError,
    Ledger,
    LedgerError,
    NotFoundError,
    ServiceError,
    UnavailableError,
    assertion,
    entity,
    errors,
)
from factledger.http.app import create_app
from factledger.ledger import Ledgers
from factledger.settings import Settings
from tests.client.test_posting import answering
from tests.serving import serving

NOBODY = "http://127.0.0.1:1"


def test_the_example_of_the_contract(url: str) -> None:
    ledger = Ledger(url, ledger="main", source="extractor:newsre@1.4.2")
    ledger.affirm(
        "person:amrullah-saleh",
        "location",
        entity("place:tajikistan"),
        outlet="outlet:atalayar",
        valid="2021-09/..",
        id="doc4#17",
    )
    for result in ledger.post([assertion("e:1", "seen", 1, outlet="o:1")]):
        assert result.result == "recorded"
    fact = ledger.believed("person:amrullah-saleh", valid_at="2021-09-10")["location"]
    assert fact.best is not None
    assert fact.best.value == entity("place:tajikistan")
    ledger.close()


# --- every verb


def test_affirming_denying_correcting_and_retracting(remote: Ledger) -> None:
    place = entity("place:t")
    first = remote.affirm("e:1", "location", place, outlet="o:1", valid="2021")
    assert (first.result, first.position, first.source) == ("recorded", 0, "extractor:test@1")
    remote.deny("e:1", "location", place, outlet="o:2", valid="2021")
    assert remote.believed("e:1", valid_at="2021-06-01")["location"].status == "contested"
    remote.correct(first.id, "e:1", "location", entity("place:u"), outlet="o:1", valid="2021")
    believed = remote.believed("e:1", valid_at="2021-06-01")["location"]
    assert [value.value for value in believed.values if value.status == "reported"] == [entity("place:u")]
    remote.retract(2, reason="extractor_error", note="misread")
    assert remote.event(2)["inforce"] is False
    remote.retract(reason="other", where={"outlet": "o:2"})
    assert remote.believed("e:1", valid_at="2021-06-01")["location"].status == "reported"
    assert remote.event(4)["data"]["matched"]["count"] == 1


def test_judging_declaring_rating_and_adopting(remote: Ledger) -> None:
    remote.affirm("person:a", "seen", 1, outlet="o:1")
    joined = remote.same("person:a", "person:b", score=0.9)
    assert remote.believed("person:b").members == ("person:a", "person:b")
    remote.retract(joined.position, reason="resolver_error")
    remote.unsure("person:a", "person:b")
    remote.different("person:a", "person:b", note="two men")
    assert remote.believed("person:a").members == ("person:a",)
    assert [e["data"]["judgement"] for e in remote.events(type="factledger.identity.v1")] == [
        "same",
        "unsure",
        "different",
    ]
    remote.declare("location", "one", value_type="entity", label="where")
    with pytest.raises(InvalidError) as caught:
        remote.affirm("person:a", "location", "nowhere", outlet="o:1")
    assert [fault.pointer for fault in caught.value.errors] == ["/data/value"]
    remote.rate("o:1", reliability="A", fidelity=0.9)
    remote.rate("o:1", fidelity=None)
    assert remote.why("person:a", "seen").values[0].for_[0].reliability > 0.9
    remote.adopt("latest", note="for a test")
    assert remote.believed("person:a").coordinates.method == "latest"


def test_together_is_all_or_none(remote: Ledger) -> None:
    good = [assertion("e:1", "seen", n, outlet="o:1") for n in range(2)]
    with pytest.raises(InvalidError) as caught:
        remote.record_together([*good, assertion("e:1", "Seen", 1, outlet="o:1")])
    assert [fault.pointer for fault in caught.value.errors] == ["/2/data/predicate"]
    assert remote.size() == 0
    receipts = remote.record_together(good)
    assert (receipts.size, [receipt.position for receipt in receipts.results]) == (2, [0, 1])


def test_ids_come_from_their_maker(url: str) -> None:
    with Ledger(url, source="s:1", new_id=iter(["one", "two"]).__next__) as ledger:
        assert ledger.affirm("e:1", "seen", 1, outlet="o:1").id == "one"
        assert ledger.affirm("e:1", "seen", 1, outlet="o:1", id="mine").id == "mine"
        assert [r.position for r in ledger.post([assertion("e:1", "seen", 1, outlet="o:1")])] == [2]
        assert ledger.event(2)["id"] == "two"


# --- every question


@pytest.fixture
def told(remote: Ledger) -> Ledger:
    remote.declare("location", "one")
    remote.affirm("e:1", "location", entity("p:1"), outlet="o:1", valid="2021-01/..", asserted_at="2021-01-05")
    remote.affirm("e:1", "location", entity("p:2"), outlet="o:2", valid="2021-06/..", asserted_at="2021-06-05")
    remote.affirm("e:1", "name", client.text("یک", "prs"), outlet="o:1", valid="2021")
    return remote


def test_believing_at_coordinates(told: Ledger) -> None:
    def where(**at: Any) -> Any:
        fact = told.believed("e:1", **at).get("location")
        return fact and fact.best and fact.best.value["entity"]

    assert where(valid_at="2021-03-01") == "p:1"
    assert where(valid_at=datetime.date(2021, 7, 1)) == "p:2"
    assert where(valid_at="2021-07-01", asserted_before="2021-06-01") == "p:1"
    assert where(valid_at="2021-07-01", at_size=2) == "p:1"
    assert where(valid_at="2021-07-01", known_at=told.event(1)["recordedat"]) == "p:1"
    assert where(valid_at="2021-07-01", when="presumed", method="latest", identity_at_size=1, min_size=4) == "p:2"
    state = told.believed("e:1", valid_at="2021-07-01")
    assert set(state) == {"location", "name"}
    assert len(state) == 2
    assert "name" in state
    assert state["name"].best is not None
    assert state["name"].best.value == client.text("یک", "prs")
    assert state.coordinates.at_size == 4


def test_why_timeline_and_history(told: Ledger) -> None:
    why = told.why("e:1", "location", valid_at="2021-07-01")
    assert why.values[0].for_[0].outlet == "o:2"
    assert why.outdated[0].by.position == 2
    assert "reported" in why.sentence
    line = told.timeline("e:1", "location")
    assert line.segments[0].from_ is None
    assert told.timelines("e:1")["location"] == line.segments
    changes = list(told.history("e:1", "location"))
    assert [change.position for change in changes] == [1, 2, 2]
    assert list(told.history("e:1", "location", from_size=2)) == changes[1:]
    assert changes[-1].before.values[0].value == entity("p:1")


def test_history_and_log_page_by_themselves(remote: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    from factledger.client import ledger as module

    monkeypatch.setattr(module, "EVENTS_PAGE", 7)
    monkeypatch.setattr(module, "CHANGES_PAGE", 3)
    remote.post(assertion("e:1", "seen", n, outlet=f"o:{n % 2}", id=f"c{n}") for n in range(30)).finish()
    assert [event["position"] for event in remote.events()] == list(range(30))
    assert [event["position"] for event in remote.events(from_position=25)] == list(range(25, 30))
    assert [event["id"] for event in remote.events(outlet="o:1", at_size=5)] == ["c1", "c3"]
    assert list(remote.events(source="s:nobody")) == []
    assert len(list(remote.history("e:1"))) == 30


def test_ids_of_any_kind_are_asked_for(remote: Ledger) -> None:
    for name in ("https://example.org/a?b=c#d", "a/b", "شخص:یک", "100%", "a&b=c+d"):
        remote.affirm(name, "seen", 1, outlet="o:1")
        assert remote.believed(name).entity == name


# --- errors


@pytest.mark.parametrize(
    ("ask", "kind", "code"),
    [
        (lambda ledger: ledger.believed("e:nobody"), NotFoundError, "entity-not-found"),
        (lambda ledger: ledger.event(99), NotFoundError, "event-not-found"),
        (lambda ledger: ledger.believed("e:1", at_size=99), InvalidError, "size-out-of-range"),
        (lambda ledger: ledger.believed("e:1", valid_at="soon"), InvalidError, "invalid-request"),
        (lambda ledger: ledger.affirm("a b", "seen", 1, outlet="o:1"), InvalidError, "invalid-event"),
        (lambda ledger: ledger.retract(reason="other"), InvalidError, "invalid-event"),
        (lambda ledger: ledger.record({"data": 1}), InvalidError, "invalid-event"),
    ],
)
def test_refusals_are_typed(remote: Ledger, ask: Callable[[Ledger], object], kind: type, code: str) -> None:
    with pytest.raises(LedgerError) as caught:
        ask(remote)
    assert type(caught.value) is kind
    assert caught.value.code == code
    assert caught.value.detail


def test_contradictions_are_conflicts(remote: Ledger) -> None:
    remote.different("e:1", "e:2")
    with pytest.raises(ConflictError) as caught:
        remote.same("e:1", "e:2", source="human:other")
    assert caught.value.code == "identity-conflict"


def test_a_service_that_is_not_there_is_unavailable() -> None:
    with Ledger(NOBODY, patience=0.1) as ledger, pytest.raises(UnavailableError) as caught:
        ledger.size()
    assert caught.value.code == "server-unavailable"


@pytest.mark.parametrize("url", ["nowhere", "ftp://example.org", "", "http://", "http://[", "http://a b"])
def test_what_is_no_url_is_invalid(url: str) -> None:
    with pytest.raises(InvalidError) as caught, Ledger(url, patience=0.1) as ledger:
        ledger.size()
    assert caught.value.code == "invalid-url"


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"results": 1}', b"\xff"])
def test_an_answer_of_something_else_is_named(body: bytes) -> None:
    def asked(ask: Callable[[Ledger], object]) -> str:
        with (
            answering(Response(body)) as (url, _),
            Ledger(url, source="s:1") as ledger,
            pytest.raises(ServiceError) as caught,
        ):
            ask(ledger)
        return caught.value.code

    assert asked(lambda ledger: ledger.believed("e:1")) == "answer-unreadable"
    assert asked(lambda ledger: ledger.affirm("e:1", "seen", 1, outlet="o:1")) == "answer-unreadable"
    assert asked(lambda ledger: ledger.size()) == "answer-unreadable"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidError),
        (401, client.ForbiddenError),
        (403, client.ForbiddenError),
        (404, NotFoundError),
        (405, InvalidError),
        (308, InvalidError),
        (409, ConflictError),
        (412, ConflictError),
        (429, UnavailableError),
        (500, ServiceError),
        (501, InvalidError),
        (502, UnavailableError),
        (503, UnavailableError),
        (504, UnavailableError),
        (507, ServiceError),
    ],
)
def test_every_status_has_its_type(status: int, kind: type) -> None:
    assert type(errors.stated({"status": status})) is kind


def test_what_is_newer_in_an_answer_is_passed_over() -> None:
    receipt = {"result": "recorded", "position": 1, "source": "s", "id": "i", "recorded_at": "t", "new": 1}
    answer = Response(orjson.dumps({"results": [receipt], "size": 2, "newer": {}}))
    with answering(answer) as (url, _), Ledger(url, source="s:1") as ledger:
        assert ledger.affirm("e:1", "seen", 1, outlet="o:1").position == 1


def test_a_key_is_sent_and_not_shown(ledgers: Ledgers) -> None:
    seen: list[Any] = []
    app = create_app(ledgers, Settings(log_level="error"))

    async def watching(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(value for name, value in scope.get("headers", ()) if name == b"authorization")
        await app(scope, receive, send)

    with serving(watching) as url, Ledger(url, key="fl_secret", source="s:1") as ledger:
        ledger.size()
        assert "secret" not in repr(ledger)
        assert repr(ledger) == f"Ledger('{url}', 'main', source='s:1')"
    assert seen == [b"Bearer fl_secret"]


def test_nothing_that_is_posted_is_logged(remote: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        remote.affirm("e:1", "seen", "secret", outlet="o:1", id="secret")
        remote.post([assertion("e:1", "seen", "secret", outlet="o:1", id="secret")]).finish()
    assert caplog.records
    assert "secret" not in caplog.text
