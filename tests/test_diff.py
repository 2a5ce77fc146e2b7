"""Differences between two sizes: what every slot says at both, and nothing else."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from factledger import comparing
from factledger.core import times
from factledger.ledger import Ledger, Ledgers, State
from factledger.reading import Question
from tests import oracle, strategies
from tests.checking import read_log, record
from tests.core.test_belief import START, instants
from tests.http.posting import assertion, event, post, problem
from tests.test_preview import ANY_LOG, Slot, bound, fresh, frozen, told

__all__ = ["frozen"]
DIFF = "/v1/ledgers/main/diff"


def whole_diff(ledger: Ledger, question: Question, a: int, b: int, limit: int) -> list[dict[str, Any]]:
    found, after = [], None
    while True:
        answer = ledger.diff(question, since=State(a), until=State(b), after=after, limit=limit)
        page = json.loads(answer.body)
        assert (page["from"]["size"], page["to"]["size"], answer.size) == (a, b, b)
        found += page["changes"]
        if page["next"] is None:
            return found
        (after,) = parse_qs(urlsplit(page["next"]).query)["after"]


@pytest.mark.parametrize("gathered", [comparing.MAX_GATHERED, 1], ids=["gathering", "walking"])
@settings(max_examples=30)
@given(data=st.data())
def test_a_diff_is_where_belief_at_two_sizes_differs(
    frozen: Ledgers, monkeypatch: pytest.MonkeyPatch, gathered: int, data: st.DataObject
) -> None:
    monkeypatch.setattr(comparing, "MAX_GATHERED", gathered)
    ledger = fresh(frozen)
    record(ledger, [strategies.DECLARE_PLACE, *data.draw(ANY_LOG, label="log")])
    log = read_log(ledger)
    a, b = sorted(data.draw(st.tuples(*[st.integers(0, len(log))] * 2), label="sizes"))
    question = Question(
        asserted_before=data.draw(st.sampled_from([None, None, times.parse_moment("2021-09-05")])),
        identity_at_size=data.draw(st.sampled_from([None, None, 0, len(log)])),
        method=data.draw(st.sampled_from([None, None, "latest", "majority"])),
        when=data.draw(st.sampled_from(["possible", "possible", "presumed", "definite"])),
    )
    changes = whole_diff(ledger, question, a, b, data.draw(st.sampled_from([1, 100]), label="limit"))
    assert changes == sorted(changes, key=lambda c: told(c)[:3])
    for change in changes:
        assert all(a <= position < b for position in change["causes"])
    if a == b:
        assert changes == []
        return
    check_slots(log, question, (a, b), changes)


def check_slots(log: list[Any], question: Question, sizes: tuple[int, int], changes: list[dict[str, Any]]) -> None:
    """Compare with the oracle in every slot, all around every boundary."""

    def at(size: int, instant: int) -> oracle.Coordinates:
        return oracle.Coordinates(
            size, instant, question.asserted_before, question.identity_at_size, question.method, question.when
        )

    slots: set[Slot] = set()
    for size in sizes:
        world = oracle.World(log, at(size, START))
        said = [e["data"] for e in log[:size] if oracle.is_a("assertion", e)]
        slots |= {(world.canonical(data["subject"]), data["predicate"]) for data in said}
    assert {told(change)[:2] for change in changes} <= slots
    for slot in sorted(slots):
        for instant in instants(log, *slot, max(sizes)):
            was, now = (oracle.believe(log, *slot, at(size, instant)) for size in sizes)
            shown = [
                c
                for c in changes
                if told(c)[:2] == slot
                and bound(c["valid"]["from"], times.BEGINNING) <= instant < bound(c["valid"]["to"], times.FOREVER)
            ]
            if held(was) == held(now):
                assert shown == [], (slot, instant)
            else:
                (change,) = shown
                assert [held(change["before"]), held(change["after"])] == [nearly(was), nearly(now)]


def held(side: dict[str, Any]) -> Any:
    return side["status"], [(v["value"], v["status"], v["probability"]) for v in side["values"]]


def nearly(side: dict[str, Any]) -> Any:
    status, values = held(side)
    return status, [(value, of_value, pytest.approx(p, abs=2e-9)) for value, of_value, p in values]


# --- one by one


def claim(event_id: str, subject: str = "person:a", outlet: str = "outlet:a") -> dict[str, Any]:
    said: dict[str, Any] = {"asserted_at": "2021-09-01", "valid": "2021-09-01/..", "provenance": {"outlet": outlet}}
    return assertion(event_id, subject, **said)


def test_what_came_and_went_does_not_show(client: TestClient) -> None:
    post(client, claim("c1"))
    post(client, [claim("c2", "person:b"), claim("c3", outlet="outlet:b")])
    post(client, event("r", "retraction", {"targets": [1], "reason": "other"}))
    said = client.get(DIFF, params={"from_size": 1, "to_size": 3}).json()
    assert [c["entity"] for c in said["changes"]] == ["person:a", "person:b"]
    said = client.get(DIFF, params={"from_size": 1}).json()
    assert [(c["entity"], c["causes"]) for c in said["changes"]] == [("person:a", [2]), ("person:b", [1, 3])]
    assert said["changes"][1]["after"]["status"] == "withdrawn"
    post(client, event("rr", "retraction", {"targets": [3], "reason": "other"}))
    same = client.get(DIFF, params={"from_size": 3, "to_size": 5}).json()
    assert (same["changes"], same["next"]) == ([], None)


def test_it_is_cited_and_cached_like_every_answer(client: TestClient) -> None:
    post(client, [claim("c1"), claim("c2", "person:b")])
    answer = client.get(DIFF, params={"from_size": 0})
    link = answer.json()["permalink"]
    assert answer.headers["content-location"] == link
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["ledger-size"] == "2"
    post(client, claim("c3", outlet="outlet:b"))
    again = client.get(link)
    assert again.content == answer.content
    assert "immutable" in again.headers["cache-control"]
    assert client.get(link, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304


def test_pages_fit_together(client: TestClient) -> None:
    post(client, [claim(f"c{n}", f"person:{n}") for n in range(5)])
    whole = client.get(DIFF, params={"from_size": 0, "to_size": 5}).json()["changes"]
    page, found = client.get(DIFF, params={"from_size": 0, "limit": 2}), []
    while True:
        found += page.json()["changes"]
        if page.json()["next"] is None:
            break
        post(client, claim(f"later{len(found)}", "person:4"))
        page = client.get(page.json()["next"])
    assert found == whole
    assert len(found) == 5


def test_sizes_by_what_was_known(client: TestClient) -> None:
    post(client, claim("c1"))
    known = client.get("/v1/ledgers/main").json()["recorded_at"]
    post(client, claim("c2", "person:b"))
    said = client.get(DIFF, params={"from_known_at": "2020-01-01", "to_known_at": known}).json()
    assert said["from"] == {"size": 0, "known_at": None}
    assert said["to"] == {"size": 1, "known_at": known}
    assert [c["entity"] for c in said["changes"]] == ["person:a"]
    said = client.get(DIFF, params={"from_known_at": known, "valid_at": "2021-08-01"}).json()
    assert said["changes"] == []


@pytest.mark.parametrize(
    ("query", "code", "where"),
    [
        ({}, "invalid-request", "/query/from_size"),
        ({"from_size": 0, "from_known_at": "2021-01-01"}, "invalid-request", "/query/from_size"),
        ({"from_size": 0, "to_size": 0, "to_known_at": "2021-01-01"}, "invalid-request", "/query/to_size"),
        ({"from_size": 0, "to_size": 3}, "size-out-of-range", "/query/to_size"),
        ({"from_size": 2, "to_size": 1}, "size-out-of-range", "/query/from_size"),
        ({"from_size": 2, "to_known_at": "2021-01-01"}, "size-out-of-range", "/query/from_size"),
        ({"from_size": 0, "identity_at_size": 9}, "size-out-of-range", "/query/identity_at_size"),
        ({"from_size": 0, "after": "x"}, "page-unknown", "/query/after"),
        ({"from_size": 0, "at_size": 1}, "invalid-request", "/query/at_size"),
    ],
)
def test_what_is_no_range_is_refused(client: TestClient, query: dict[str, Any], code: str, where: str) -> None:
    post(client, [claim("c1"), claim("c2", "person:b")])
    refused = problem(client.get(DIFF, params=query), 422, code)
    assert refused["errors"][0]["pointer"] == where
