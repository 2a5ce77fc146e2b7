"""Appending: one event, batches, binary mode; what is answered, and that a repeat is safe."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from starlette.testclient import TestClient

from factledger.appender import Appender
from factledger.core.errors import Category, LedgerError
from factledger.http.service import Service
from tests.conftest import Clock
from tests.http.posting import EVENTS, Event, assertion, event, pointers, post, problem, size

BATCH = {"content-type": "application/cloudevents-batch+json"}
STRUCTURED = {"content-type": "application/cloudevents+json"}


def test_one_event_is_recorded_and_answered(client: TestClient, clock: Clock) -> None:
    clock.set("2026-02-03T04:05:06Z")
    answer = post(client, assertion("doc4#17"))
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["location"] == f"{EVENTS}/0"
    assert answer.headers["ledger-size"] == "1"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json() == {
        "results": [
            {
                "result": "recorded",
                "position": 0,
                "source": "extractor:test@1",
                "id": "doc4#17",
                "recorded_at": "2026-02-03T04:05:06.000001Z",
            }
        ],
        "recorded": 1,
        "duplicate": 0,
        "size": 1,
    }
    shown = client.get(f"{EVENTS}/0").json()
    assert shown["recordedby"] == "anonymous"
    assert shown["data"] == assertion("doc4#17")["data"]


def test_what_was_written_is_read_at_once(client: TestClient) -> None:
    for number in range(5):
        answer = post(client, assertion(f"e{number}", value=number))
        assert "projected" not in answer.json()
        shown = client.get("/v1/ledgers/main/entities/person:a")
        assert shown.headers["ledger-size"] == str(number + 1)
        assert len(shown.json()["facts"]["location"]["values"]) == number + 1


@pytest.mark.parametrize(
    "kind", ["application/json", "application/cloudevents+json", "application/json; charset=UTF-8"]
)
def test_an_object_is_one_event(client: TestClient, kind: str) -> None:
    answer = client.post(EVENTS, content=orjson.dumps(assertion("1")), headers={"content-type": kind})
    assert answer.status_code == 201
    assert answer.json()["size"] == 1


@pytest.mark.parametrize("kind", ["application/json", "application/cloudevents-batch+json"])
def test_an_array_is_a_batch(client: TestClient, kind: str) -> None:
    batch = [assertion("1"), assertion("2"), assertion("1")]
    answer = client.post(EVENTS, content=orjson.dumps(batch), headers={"content-type": kind})
    assert answer.status_code == 201
    body = answer.json()
    assert [(r["result"], r["position"]) for r in body["results"]] == [
        ("recorded", 0),
        ("recorded", 1),
        ("duplicate", 0),
    ]
    assert (body["recorded"], body["duplicate"], body["size"]) == (2, 1, 2)
    assert "location" not in answer.headers


def test_an_empty_batch_records_nothing(client: TestClient) -> None:
    answer = post(client, [])
    assert answer.status_code == 200
    assert answer.json() == {"results": [], "recorded": 0, "duplicate": 0, "size": 0}


def test_a_repeat_finds_the_first(client: TestClient) -> None:
    first = post(client, [assertion("1"), assertion("2")])
    again = post(client, [assertion("2"), assertion("1")])
    assert (first.status_code, again.status_code) == (201, 200)
    assert [r["position"] for r in again.json()["results"]] == [1, 0]
    assert {r["recorded_at"] for r in again.json()["results"]} == {r["recorded_at"] for r in first.json()["results"]}
    assert (again.json()["recorded"], again.json()["duplicate"], again.json()["size"]) == (0, 2, 2)
    some = post(client, [assertion("2"), assertion("3")])
    assert some.status_code == 201
    assert size(client) == 3


def test_a_repeat_may_be_written_otherwise(client: TestClient) -> None:
    post(client, assertion("1", confidence=1))
    turned = dict(reversed(assertion("1", confidence=1.0).items()))
    spaced = orjson.dumps(turned, option=orjson.OPT_INDENT_2).replace(b'"location"', rb'"lo\u0063ation"')
    answer = client.post(EVENTS, content=spaced, headers=STRUCTURED)
    assert answer.status_code == 200
    assert answer.json()["results"][0]["result"] == "duplicate"


@pytest.mark.parametrize(
    "other",
    [assertion("1", value=8), {**assertion("1"), "time": "2021-09-07T10:02:11Z"}, {**assertion("1"), "zone": "x"}],
    ids=["data", "time", "extension"],
)
def test_other_content_under_an_id_is_409(client: TestClient, other: Event) -> None:
    post(client, assertion("1"))
    refused = problem(post(client, other), 409, "id-reused")
    assert refused["errors"][0]["pointer"] == "/id"
    assert pointers(post(client, [assertion("2"), other])) == ["/1/id"]
    assert size(client) == 1


def test_an_id_that_a_batch_gives_twice_is_not_said_to_be_recorded(client: TestClient) -> None:
    refused = problem(post(client, [assertion("1"), assertion("1", value=9)]), 409, "id-reused")
    assert refused["errors"][0]["pointer"] == "/1/id"
    assert "position" not in refused["detail"]
    assert size(client) == 0
    post(client, assertion("1"))
    assert "at position 0" in problem(post(client, [assertion("1", value=9)]), 409, "id-reused")["detail"]


def test_sources_have_ids_of_their_own(client: TestClient) -> None:
    post(client, {**assertion("1"), "source": "a"})
    assert post(client, {**assertion("1", value=2), "source": "b"}).status_code == 201


def test_fifty_at_once_with_one_id_are_recorded_once(client: TestClient) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: post(client, assertion("1")), range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [201]
    assert {answer.json()["results"][0]["position"] for answer in answers} == {0}
    assert size(client) == 1


def test_a_batch_is_all_or_nothing(client: TestClient) -> None:
    batch = [assertion(str(n)) for n in range(5)]
    batch[3]["data"]["provenance"] = {"outlet": ""}
    refused = problem(post(client, batch), 422, "invalid-event")
    assert [fault["pointer"] for fault in refused["errors"]] == ["/3/data/provenance/outlet"]
    batch[3] = assertion("3", corrects=[99])
    assert pointers(post(client, batch)) == ["/3/data/corrects/0"]
    assert size(client) == 0
    batch[3] = assertion("3", corrects=[2])  # earlier in the same batch
    assert post(client, batch).status_code == 201
    assert size(client) == 5


def test_a_batch_names_all_its_faults(client: TestClient) -> None:
    batch: list[Any] = [assertion("0", subject=""), assertion("1"), assertion("2", predicate="X", value=None), 7]
    assert pointers(post(client, batch)) == ["/0/data/subject", "/2/data/predicate", "/2/data/value", "/3"]
    assert len(pointers(post(client, [{}] * 100))) == 50


def test_a_conflict_of_identities_is_409(client: TestClient) -> None:
    assert post(client, event("1", "identity", {"entities": ["a", "b"], "judgement": "different"})).status_code == 201
    problem(
        post(client, event("2", "identity", {"entities": ["a", "b"], "judgement": "same"})), 409, "identity-conflict"
    )


def test_a_conflict_names_no_position_that_is_not_recorded(client: TestClient) -> None:
    post(client, event("1", "identity", {"entities": ["a", "b"], "judgement": "same"}))
    refused = problem(
        post(client, event("2", "identity", {"entities": ["a", "b"], "judgement": "different"})),
        409,
        "identity-conflict",
    )
    assert "position" not in refused["detail"]
    assert "`same`" in refused["detail"]
    assert size(client) == 1


def test_a_cycle_of_relays_is_409(client: TestClient) -> None:
    assert post(client, event("1", "agent", {"agent": "a", "relays": "b"})).status_code == 201
    problem(post(client, event("2", "agent", {"agent": "b", "relays": "a"})), 409, "relay-cycle")
    assert size(client) == 1


def test_erasure_is_501_until_it_can_be_done(client: TestClient) -> None:
    post(client, assertion("1"))
    problem(post(client, event("2", "erasure", {"targets": [0], "basis": "art. 17"})), 501, "erasure-unavailable")
    assert size(client) == 1


def test_a_strict_ledger_refuses_undeclared_predicates(client: TestClient) -> None:
    assert client.put("/v1/ledgers/strict", json={"strict": True}).status_code == 201
    path = "/v1/ledgers/strict/events"
    assert pointers(client.post(path, json=assertion("1"))) == ["/data/predicate"]
    declared = event("0", "predicate", {"predicate": "location", "cardinality": "one"})
    assert client.post(path, json=[declared, assertion("1")]).status_code == 201


def test_an_unknown_ledger_is_404(client: TestClient) -> None:
    for name in ("nowhere", "MAIN", "a%2Fb", "%00", "a%20b", "x" * 300):
        path = f"/v1/ledgers/{name}/events"
        problem(client.post(path, json=assertion("1")), 404, "ledger-not-found")
        lines = {"content-type": "application/x-ndjson"}
        problem(client.post(path, content=b"{}", headers=lines), 404, "ledger-not-found")
        problem(client.get(path), 404, "ledger-not-found")


# --- conditions and preferences


def test_if_match_demands_a_size(client: TestClient) -> None:
    assert post(client, assertion("1"), headers={"if-match": '"0"'}).status_code == 201
    for stale in ('"0"', '"2"', 'W/"1"', '"01"', '"abc"', '""', '"99999999999999999999"'):
        problem(post(client, assertion("2"), headers={"if-match": stale}), 412, "size-changed")
    assert size(client) == 1
    assert post(client, assertion("2"), headers={"if-match": '"1"'}).status_code == 201
    assert post(client, assertion("3"), headers={"if-match": "*"}).status_code == 201


def test_an_if_match_that_cannot_be_read_is_400(client: TestClient) -> None:
    for condition in ("1", '"1', '"0", "1"', "", '"é"'):
        answer = post(client, assertion("1"), headers={"if-match": condition.encode()})
        problem(answer, 400, "malformed-request")
        assert pointers(answer) == ["/headers/if-match"]
    assert size(client) == 0


def test_of_two_with_one_condition_one_is_recorded(client: TestClient) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: post(client, assertion(str(n)), headers={"if-match": '"0"'}), range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [412] * 7


def test_a_preference_for_not_waiting_is_heeded(client: TestClient) -> None:
    answer = post(client, assertion("1"), headers={"prefer": "respond-async, wait=5"})
    assert answer.status_code == 201
    assert answer.headers["preference-applied"] == "respond-async"


def test_an_append_takes_no_query(client: TestClient) -> None:
    assert pointers(client.post(f"{EVENTS}?a=1&a=2", json=assertion("1"))) == ["/query/a"]


# --- CloudEvents' binary mode


def binary(event_id: str, **changed: str | None) -> dict[str, str]:
    given = {
        "content-type": "application/json",
        "ce-specversion": "1.0",
        "ce-type": "factledger.assertion.v1",
        "ce-source": "extractor:test@1",
        "ce-id": event_id,
        **{f"ce-{name}" if name != "kind" else "content-type": value for name, value in changed.items()},
    }
    return {name: value for name, value in given.items() if value is not None}


def data(**changed: Any) -> bytes:
    return orjson.dumps(assertion("", **changed)["data"])


def test_binary_mode_carries_the_same_event(client: TestClient) -> None:
    headers = binary("1", time="2021-09-07T10:02:11Z", zone="kabul")
    assert client.post(EVENTS, content=data(), headers=headers).status_code == 201
    structured = {**assertion("1"), "time": "2021-09-07T10:02:11Z", "zone": "kabul"}
    again = post(client, structured)
    assert again.status_code == 200
    assert again.json()["results"][0]["result"] == "duplicate"


ESCAPED = [
    ("doc4%2317", "doc4#17"),
    ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
    ("100%25", "100%"),
    ("%2525", "%25"),  # one round of decoding
    ("a%2Fb", "a/b"),
    ('"doc4#17"', "doc4#17"),
    (r'"say \"yes\""', 'say "yes"'),
    ("50%", "50%"),
]


def test_header_values_are_unescaped_once(client: TestClient) -> None:
    for number, (sent, meant) in enumerate(ESCAPED):
        answer = client.post(EVENTS, content=data(), headers=binary(sent, source=f"s:{number}"))
        assert answer.status_code == 201
        assert answer.json()["results"][0]["id"] == meant


def test_a_raw_header_in_utf_8_is_read_as_such(client: TestClient) -> None:
    headers = {name.encode(): value.encode() for name, value in binary("é€").items()}
    assert client.post(EVENTS, content=data(), headers=headers).json()["results"][0]["id"] == "é€"


BAD_HEADERS = [
    (binary("1", specversion=None), 422, "/specversion"),
    (binary("1", type=None), 422, "/type"),
    (binary("1", source="a%20b"), 422, "/source"),
    (binary("", subject="x"), 422, "/id"),
    (binary("1", Zone_="x"), 422, "/zone_"),
    (binary("1", position="7"), 422, "/position"),
    (binary("%FF"), 400, "/headers/ce-id"),
    (binary("%00"), 400, "/headers/ce-id"),
    (binary("1", data="x"), 400, "/headers/ce-data"),
    (binary("1", datacontenttype="x"), 400, "/headers/ce-datacontenttype"),
]


def test_bad_headers_are_refused(client: TestClient) -> None:
    for headers, status, where in BAD_HEADERS:
        answer = client.post(EVENTS, content=data(), headers=headers)
        assert answer.status_code == status
        assert where in pointers(answer)
    assert size(client) == 0


def test_a_header_given_twice_is_refused(client: TestClient) -> None:
    headers = [*binary("1").items(), ("CE-ID", "2")]
    assert pointers(client.post(EVENTS, content=data(), headers=headers)) == ["/headers/ce-id"]


def test_binary_data_is_json(client: TestClient) -> None:
    problem(client.post(EVENTS, content=b"{", headers=binary("1")), 400, "malformed-json")
    problem(client.post(EVENTS, content=b"x", headers=binary("1", kind="text/plain")), 415, "unsupported-media-type")
    assert pointers(client.post(EVENTS, content=b"[]", headers=binary("1"))) == ["/data"]
    other = client.post(EVENTS, content=data(), headers=binary("1", kind="application/ld+json"))
    assert other.status_code == 201
    assert client.get(f"{EVENTS}/0").json()["datacontenttype"] == "application/ld+json"


def test_a_structured_event_pays_no_heed_to_ce_headers(client: TestClient) -> None:
    headers = {**binary("other"), **STRUCTURED}
    answer = client.post(EVENTS, content=orjson.dumps(assertion("1")), headers=headers)
    assert answer.json()["results"][0]["id"] == "1"


# --- odd but good


def test_unicode_and_odd_ids_come_back_as_they_were(client: TestClient) -> None:
    odd = [
        "شخص:امرالله-صالح",
        "https://example.org/a/b?c=d#e",
        "a%2Fb",
        "a/b",
        "😀",
        "a+b&c=d",
        "é",
        "e\u0301",
        '"',
        "\\",
    ]
    posted = [{**assertion(f"{n} {subject}", subject=subject), "subject": subject} for n, subject in enumerate(odd)]
    assert post(client, posted).status_code == 201
    read = client.get(EVENTS).json()["events"]
    assert [(e["id"], e["subject"], e["data"]["subject"]) for e in read] == [
        (p["id"], p["subject"], p["data"]["subject"]) for p in posted
    ]
    for subject in odd:
        shown = client.get(f"/v1/ledgers/main/entities/{quote(subject, safe='')}").json()
        assert shown["entity"] == subject
        assert client.get(EVENTS, params={"subject": subject}).json()["events"][0]["data"]["subject"] == subject


def test_a_null_attribute_is_one_that_is_not_there(client: TestClient) -> None:
    post(client, {**assertion("1"), "time": None, "zone": None})
    assert post(client, assertion("1")).json()["results"][0]["result"] == "duplicate"


# --- a service in trouble


class Broken:
    """An appender whose outcomes are given."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def enqueue(self, *_: Any) -> Any:
        raise self._error


@pytest.mark.parametrize(
    ("category", "code", "status"),
    [(Category.BUSY, "queue-full", 429), (Category.UNAVAILABLE, "database-unavailable", 503)],
)
def test_what_passes_is_answered_with_when_to_come_back(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, category: Category, code: str, status: int
) -> None:
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    broken: Any = Broken(LedgerError(category, code, "Later.", retry_after=1))
    monkeypatch.setattr(client.app.state, "service", Service(service.ledgers, broken, service.settings))  # type: ignore[attr-defined]
    answer = post(client, assertion("1"))
    problem(answer, status, code)
    assert answer.headers["retry-after"] == "1"


def test_a_queue_that_is_full_refuses_at_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    appender: Appender = client.app.state.service.appender  # type: ignore[attr-defined]
    monkeypatch.setattr(appender, "_capacity", 0)
    problem(post(client, assertion("1")), 429, "queue-full")
    assert size(client) == 0
    monkeypatch.undo()
    assert post(client, assertion("1")).status_code == 201
