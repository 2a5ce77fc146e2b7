"""Reading: coordinates, permalinks, caching, the log and its pages."""

from __future__ import annotations

from collections.abc import Iterable
from threading import BoundedSemaphore
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import orjson
import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from factledger.http import reading
from tests.conftest import Clock
from tests.http.posting import ENTITIES, EVENTS, assertion, event, pointers, post, problem, size

A = f"{ENTITIES}/person:a"
VIEWS = {
    "state": A,
    "timeline": f"{A}/timeline",
    "one timeline": f"{A}/timeline?predicate=location",
    "history": f"{A}/history",
    "one history": f"{A}/history?predicate=location",
    "why": f"{A}/why?predicate=location",
}


def get(client: TestClient, path: str, headers: dict[str, str] | None = None, **query: Any) -> Response:
    joined = "&".join(f"{name}={quote(str(value))}" for name, value in query.items())
    return client.get(path + ("&" if "?" in path else "?") * bool(joined) + joined, headers=headers)


@pytest.fixture
def known(client: TestClient, clock: Clock) -> TestClient:
    """A ledger that learnt three things on three days of March 2026."""
    for day, value in enumerate(("kabul", "dushanbe", "paris"), start=1):
        clock.set(f"2026-03-0{day}T12:00:00Z")
        # The clock moves a microsecond with every look at it.
        clock.instant -= 1
        said = assertion(f"e{day}", value=value, valid=f"2026-02-0{day}/..", asserted_at=f"2026-02-0{day}")
        assert post(client, said).status_code == 201
    clock.set("2026-03-04T00:00:00Z")
    return client


def values(answer: Response) -> list[Any]:
    assert answer.status_code == 200, answer.text
    slot = answer.json()["facts"].get("location", {"values": []})
    return sorted(value["value"] for value in slot["values"])


# --- what is answered


@pytest.mark.parametrize("path", VIEWS.values(), ids=VIEWS.keys())
def test_every_belief_answer_can_be_cited_and_cached(known: TestClient, path: str) -> None:
    answer = get(known, path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["ledger-size"] == "3"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["vary"] == "Accept-Datetime"
    body = answer.json()
    assert body["entity"] == "person:a"
    assert body["coordinates"].keys() == {
        "valid_at",
        "at_size",
        "known_at",
        "asserted_before",
        "identity_at_size",
        "method",
        "when",
    }
    assert body["coordinates"]["at_size"] == 3
    assert body["coordinates"]["known_at"] == "2026-03-03T12:00:00.000000Z"
    assert answer.headers["content-location"] == body["permalink"]
    assert f'<{body["permalink"]}>; rel="permalink"' in answer.headers["link"]


@pytest.mark.parametrize("path", VIEWS.values(), ids=VIEWS.keys())
def test_a_permalink_gives_the_same_bytes_for_ever(known: TestClient, path: str, clock: Clock) -> None:
    first = get(known, path, asserted_before="2026-02-03")
    link = first.json()["permalink"]
    pinned = known.get(link)
    assert pinned.content == first.content
    assert pinned.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert pinned.headers["etag"] == first.headers["etag"]
    clock.set("2027-01-01T00:00:00Z")
    post(
        known,
        [
            assertion("later", value="rome", valid="2026-02-01/.."),
            event("gone", "retraction", {"targets": [0], "reason": "other"}),
            event("same", "identity", {"entities": ["person:a", "person:0"], "judgement": "same"}),
            event("rated", "agent", {"agent": "outlet:c", "reliability": "F"}),
            event("policy", "policy", {"method": "latest"}),
            event("declared", "predicate", {"predicate": "location", "cardinality": "one"}),
        ],
    )
    assert get(known, path).content != first.content
    again = known.get(link)
    assert again.content == first.content
    assert again.headers["etag"] == first.headers["etag"]
    assert again.json()["permalink"] == link


def test_only_what_is_pinned_by_whoever_asks_is_immutable(known: TestClient) -> None:
    pins: dict[str, Any] = {
        "valid_at": "2026-03-01",
        "at_size": 2,
        "identity_at_size": 2,
        "method": "weighed",
        "when": "possible",
    }
    assert "immutable" in get(known, A, **pins).headers["cache-control"]
    for name in pins:
        fewer = {key: value for key, value in pins.items() if key != name}
        assert get(known, A, **fewer).headers["cache-control"] == "no-cache"


def test_an_etag_is_of_the_body(known: TestClient) -> None:
    pinned: dict[str, Any] = {"valid_at": "2026-03-01", "at_size": 2}
    first, again, other = (get(known, A, **pinned), get(known, A, **pinned), get(known, A, valid_at="2026-03-02"))
    assert first.headers["etag"] == again.headers["etag"] != other.headers["etag"]
    assert first.headers["etag"].startswith('"')
    assert first.content == again.content


@pytest.mark.parametrize("path", [f"{A}?valid_at=2026-03-01", f"{EVENTS}?limit=2", f"{EVENTS}/1"])
def test_what_is_at_hand_is_not_sent_again(known: TestClient, path: str) -> None:
    first = known.get(path)
    tag = first.headers["etag"]
    for held in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        answer = known.get(path, headers={"if-none-match": held})
        assert answer.status_code == 304
        assert answer.content == b""
        for name in ("etag", "cache-control", "ledger-size", "content-location", "vary", "link"):
            assert answer.headers.get(name) == first.headers.get(name)
        assert "content-length" not in answer.headers
    assert known.get(path, headers={"if-none-match": '"x"'}).status_code == 200
    post(known, assertion("more", value="rome"))
    if path != f"{EVENTS}/1":
        assert known.get(path, headers={"if-none-match": tag}).status_code == 200


def test_head_is_get_without_the_body(known: TestClient) -> None:
    for path in (f"{A}?valid_at=2026-03-01", EVENTS, "/v1/ledgers/main", "/livez", "/"):
        got, head = known.get(path), known.head(path)
        assert head.status_code == 200
        assert head.content == b""
        for name in ("content-length", "content-type", "etag"):
            assert head.headers.get(name) == got.headers.get(name)
    assert known.head(f"{ENTITIES}/nobody").status_code == 404


# --- coordinates


def test_valid_at_is_when_it_holds(known: TestClient) -> None:
    assert values(get(known, A, valid_at="2026-01-31")) == []
    assert values(get(known, A, valid_at="2026-02-01")) == ["kabul"]
    assert values(get(known, A, valid_at="2026-02")) == ["kabul"]  # its first instant
    assert values(get(known, A, valid_at="2026-02-02T10:00:00+02:00")) == ["dushanbe", "kabul"]
    assert values(get(known, A)) == ["dushanbe", "kabul", "paris"]
    shown = get(known, A, valid_at="2026-02").json()["coordinates"]["valid_at"]
    assert shown == "2026-02-01T00:00:00.000000Z"


def test_a_permalink_reaches_as_far_as_a_question(known: TestClient) -> None:
    for instant in ("Y12000", "Y-12000", "-0500", "9999-12-31", "0000"):
        first = get(known, A, valid_at=instant)
        again = known.get(first.json()["permalink"])
        assert again.status_code == 200, instant
        assert again.content == first.content


def test_an_offset_need_not_be_escaped(known: TestClient) -> None:
    escaped = get(known, A, valid_at="2026-02-02T10:00:00+02:00", known_at="2026-03-02T12:00:00+00:00")
    raw = known.get(f"{A}?valid_at=2026-02-02T10:00:00+02:00&known_at=2026-03-02T12:00:00+00:00")
    assert raw.content == escaped.content


def test_known_at_is_what_the_ledger_knew(known: TestClient) -> None:
    assert values(get(known, A, known_at="2026-03-02T12:00:00Z")) == ["dushanbe", "kabul"]
    assert values(get(known, A, known_at="2026-03-02T11:59:59.999999Z")) == ["kabul"]
    assert values(get(known, A, known_at="2026-03-02")) == ["kabul"]  # its midnight
    assert values(get(known, A, known_at="2999-01-01")) == ["dushanbe", "kabul", "paris"]
    assert get(known, A, known_at="2026-03-02").json()["coordinates"]["at_size"] == 1
    problem(get(known, A, known_at="2026-03-01"), 404, "entity-not-found")


def test_at_size_is_the_first_so_many_events(known: TestClient) -> None:
    assert values(get(known, A, at_size=2)) == ["dushanbe", "kabul"]
    problem(get(known, A, at_size=0), 404, "entity-not-found")
    answer = get(known, A, at_size=4)
    problem(answer, 422, "size-out-of-range")
    assert pointers(answer) == ["/query/at_size"]
    answer = get(known, A, at_size=2, identity_at_size=4)
    problem(answer, 422, "size-out-of-range")
    assert pointers(answer) == ["/query/identity_at_size"]


def test_known_at_and_at_size_exclude_each_other(known: TestClient) -> None:
    for path in (A, EVENTS, f"{EVENTS}/0"):
        answer = get(known, path, known_at="2026-03-02", at_size=1)
        problem(answer, 422, "invalid-request")
        assert pointers(answer) == ["/query/at_size"]


def test_asserted_before_is_what_had_been_said(known: TestClient) -> None:
    assert values(get(known, A, asserted_before="2026-02-02")) == ["kabul"]
    assert values(get(known, A, asserted_before="2026-02-02T00:00:00.000001Z")) == ["dushanbe", "kabul"]


def test_method_and_when_are_heeded(known: TestClient) -> None:
    post(known, event("d", "predicate", {"predicate": "location", "cardinality": "one"}))
    assert get(known, A, method="latest").json()["coordinates"]["method"] == "latest"
    assert get(known, A, when="definite").json()["coordinates"]["when"] == "definite"


def test_identity_may_be_of_another_size(known: TestClient) -> None:
    post(known, event("i", "identity", {"entities": ["person:a", "person:b"], "judgement": "same"}))
    assert get(known, A).json()["members"] == ["person:a", "person:b"]
    assert get(known, A, identity_at_size=3).json()["members"] == ["person:a"]


def test_min_size_waits_and_then_gives_up(known: TestClient) -> None:
    for path in (A, EVENTS, f"{EVENTS}/0", f"{A}/why?predicate=location", f"{A}/timeline", f"{A}/history"):
        assert get(known, path, min_size=3).status_code == 200
        answer = get(known, path, min_size=4)
        problem(answer, 503, "size-not-reached")
        assert answer.headers["retry-after"] == "1"


def test_few_may_wait_at_once(known: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_WAITING", BoundedSemaphore(1))
    reading._WAITING.acquire()
    problem(get(known, A, min_size=4), 503, "size-not-reached")
    assert get(known, A, min_size=3).status_code == 200
    reading._WAITING.release()
    problem(get(known, A, min_size=4), 503, "size-not-reached")
    assert reading._WAITING.acquire(blocking=False)  # whoever waited has given the place back


def test_an_http_date_means_known_at(known: TestClient) -> None:
    answer = get(known, A, {"accept-datetime": "Mon, 02 Mar 2026 23:59:59 GMT"}, valid_at="2026-03-04")
    assert values(answer) == ["dushanbe", "kabul"]
    assert answer.headers["memento-datetime"] == "Mon, 02 Mar 2026 12:00:00 GMT"
    assert answer.headers["vary"] == "Accept-Datetime"
    assert answer.headers["content-location"] == answer.json()["permalink"]
    assert f'<{A}?valid_at=2026-03-04>; rel="original timegate"' in answer.headers["link"]
    assert known.get(answer.headers["content-location"]).content == answer.content
    assert "memento-datetime" not in get(known, A).headers
    problem(get(known, A, {"accept-datetime": "Sun, 01 Mar 2026 11:59:59 GMT"}), 404, "entity-not-found")


def test_a_query_goes_before_an_http_date(known: TestClient) -> None:
    header = {"accept-datetime": "Sun, 01 Mar 2026 23:59:59 GMT"}
    assert values(get(known, A, header, at_size=3)) == ["dushanbe", "kabul", "paris"]
    assert values(get(known, A, header, known_at="2026-03-03")) == ["dushanbe", "kabul"]
    assert values(get(known, A, {"accept-datetime": "nonsense"}, at_size=1)) == ["kabul"]


DATES = [
    "",
    "yesterday",
    "2026-03-02T12:00:00Z",
    "Mon, 30 Feb 2026 12:00:00 GMT",
    "Mon, 02 Mar 2026 25:00:00 GMT",
    "Mon, 02 Mar 2026 12:00:00 +0100",
    "Monday, 02-Mar-26 12:00:00 GMT",
]


def test_another_date_is_400(known: TestClient) -> None:
    for date in DATES:
        answer = get(known, A, {"accept-datetime": date})
        problem(answer, 400, "malformed-request")
        assert pointers(answer) == ["/headers/accept-datetime"]


BAD = {
    "valid_at=": "valid_at",
    "valid_at=last+week": "valid_at",
    "valid_at=2021-02-30": "valid_at",
    "valid_at=2021-01/2021-02": "valid_at",
    "valid_at=..": "valid_at",
    "valid_at=2021-09-07T10:02:11%2B99:00": "valid_at",
    "valid_at=" + "9" * 5000: "valid_at",
    "valid_at=Y999999999": "valid_at",
    "valid_at=%00": "valid_at",
    "valid_at=%FF": "valid_at",
    "known_at=": "known_at",
    "known_at=2021": "known_at",
    "known_at=2021-09-07T10:02:11": "known_at",
    "known_at=now": "known_at",
    "at_size=": "at_size",
    "at_size=-1": "at_size",
    "at_size=1.0": "at_size",
    "at_size=1e3": "at_size",
    "at_size=+1": "at_size",
    "at_size=0x1": "at_size",
    "at_size=1_0": "at_size",
    "at_size=%D9%A1": "at_size",  # a digit, but not one of ours
    "at_size=9007199254740992": "at_size",
    "at_size=99999999999999999999999": "at_size",
    "identity_at_size=x": "identity_at_size",
    "min_size=x": "min_size",
    "asserted_before=x": "asserted_before",
    "method=": "method",
    "method=vote": "method",
    "when=maybe": "when",
    "valid_att=2021": "valid_att",
    "Valid_at=2021": "Valid_at",
    "a%2Fb~c=1": "a~1b~0c",
    "=": "",
    "at_size=1&at_size=1": "at_size",
    "%F0%28%8C%28=1": "\ufffd(\ufffd(",
}


@pytest.mark.parametrize("view", [A, f"{A}/timeline", f"{A}/history", f"{A}/why"])
def test_a_query_that_cannot_be_heeded_is_422(known: TestClient, view: str) -> None:
    for query, name in BAD.items():
        answer = known.get(f"{view}?{query}" + "&predicate=location" * view.endswith("why"))
        problem(answer, 422, "invalid-request")
        assert pointers(answer) == [f"/query/{name}"], query


def test_why_needs_a_predicate(known: TestClient) -> None:
    answer = get(known, f"{A}/why")
    problem(answer, 422, "invalid-request")
    assert answer.json()["errors"] == [{"pointer": "/query/predicate", "detail": "is required"}]
    for view in ("why", "timeline", "history"):
        assert pointers(get(known, f"{A}/{view}", predicate="Location")) == ["/query/predicate"]
    assert pointers(get(known, A, predicate="location")) == ["/query/predicate"]


def test_pages_of_history(known: TestClient) -> None:
    whole = get(known, f"{A}/history").json()
    assert [change["position"] for change in whole["changes"]][:1] == [0]
    found: list[Any] = []
    path: str | None = f"{A}/history?limit=1"
    while path is not None:
        answer = known.get(path)
        found += answer.json()["changes"]
        path = answer.json()["next"]
        assert (f'<{path}>; rel="next"' in answer.headers["link"]) == (path is not None)
        post(known, assertion(f"meanwhile{len(found)}", value=len(found)))
        assert len(found) < 100
    assert found == whole["changes"]
    assert pointers(get(known, f"{A}/history", limit=0)) == ["/query/limit"]
    assert pointers(get(known, f"{A}/history", limit=1001, from_size="x")) == ["/query/from_size", "/query/limit"]


# --- ids in paths


ODD_IDS = [
    "a/b",
    "a/why",
    "a/timeline",
    "why",
    "https://example.org/a//b/?c=d&e=f#g",
    "a%2Fb",
    "100%",
    "a+b",
    "a:b;c=d,e@f!$&'()*",
    "صالح",
    "😀",
    "e\u0301",
    "a\\b",
    '"<>"',
    "~._-",
    "x" * 256,
    "é" * 256,
]


def test_an_id_may_hold_anything(client: TestClient) -> None:
    assert post(client, [assertion(entity, subject=entity) for entity in ODD_IDS]).status_code == 201
    for entity in ODD_IDS:
        path = f"{ENTITIES}/{quote(entity, safe='')}"
        for view in ("", "/timeline", "/history", "/why?predicate=location"):
            answer = client.get(path + view)
            assert answer.status_code == 200, answer.text
            assert answer.json()["entity"] == entity
            again = client.get(answer.json()["permalink"])
            assert again.content == answer.content
        # Escaping more or less than needed names the same entity.
        everything = "".join(f"%{byte:02x}" for byte in entity.encode())
        assert client.get(f"{ENTITIES}/{everything}").json()["entity"] == entity


def test_a_slash_is_no_escaped_slash(client: TestClient) -> None:
    post(client, [assertion("1", subject="a/why"), assertion("2", subject="a", value="plain")])
    assert client.get(f"{ENTITIES}/a%2Fwhy").json()["entity"] == "a/why"
    assert client.get(f"{ENTITIES}/a/why?predicate=location").json()["entity"] == "a"
    problem(client.get(f"{ENTITIES}/a/b"), 404, "route-not-found")
    problem(client.get(f"{ENTITIES}/a%2Fb"), 404, "entity-not-found")
    problem(client.get(f"{ENTITIES}/"), 404, "route-not-found")
    problem(client.get(f"{ENTITIES}//why"), 404, "route-not-found")


def test_what_can_be_no_id_is_422(client: TestClient) -> None:
    for entity in ("%00", "%20", "a%20b", "a%0Ab", "%FF", "%ED%A0%80", "%E2%80%A8", "x" * 257, "a%09"):
        for view in ("", "/timeline", "/history", "/why?predicate=location"):
            answer = client.get(f"{ENTITIES}/{entity}{view}")
            problem(answer, 422, "invalid-request")
            assert pointers(answer) == ["/path/entity"]


def test_an_unknown_entity_is_404(known: TestClient) -> None:
    for view in ("", "/timeline", "/history", "/why?predicate=location"):
        problem(known.get(f"{ENTITIES}/nobody{view}"), 404, "entity-not-found")
    unknown = known.get(f"{A}/why?predicate=nothing")
    assert unknown.status_code == 200
    assert unknown.json()["status"] == "unknown"


# --- the log


@pytest.fixture
def many(client: TestClient) -> TestClient:
    """Twenty-five assertions, and two other events."""
    post(client, [assertion(str(n), subject=f"s:{n % 3}", value=n) for n in range(25)])
    post(client, event("r", "retraction", {"targets": [4], "reason": "other"}))
    post(client, event("p", "predicate", {"predicate": "location", "cardinality": "many"}))
    return client


def test_the_log_is_read_in_order(many: TestClient) -> None:
    answer = many.get(EVENTS)
    body = answer.json()
    assert body.keys() == {"events", "next", "size"}
    assert [e["position"] for e in body["events"]] == list(range(27))
    assert (body["next"], body["size"]) == (None, 27)
    assert answer.headers["ledger-size"] == "27"
    assert "link" not in answer.headers
    first = body["events"][0]
    assert {"ledger", "position", "recordedat", "recordedby", "datasha256", "datasalt", "inforce"} <= first.keys()
    assert first["ledger"] == "main"
    assert [e["position"] for e in body["events"] if not e["inforce"]] == [4]


def test_all_pages_are_of_one_size(many: TestClient) -> None:
    positions: list[int] = []
    path: str | None = f"{EVENTS}?limit=10"
    while path is not None:
        answer = many.get(path)
        body = answer.json()
        assert body["size"] == 27
        positions += [e["position"] for e in body["events"]]
        path = body["next"]
        if path is not None:
            assert answer.headers["link"] == f'<{path}>; rel="next"'
            assert parse_qs(urlsplit(path).query)["at_size"] == ["27"]
        post(many, assertion(f"meanwhile{len(positions)}"))
    assert positions == list(range(27))
    assert size(many) > 27


FILTERS: list[tuple[str, Iterable[int]]] = [
    ("from=20", range(20, 27)),
    ("from=26", [26]),
    ("from=27", []),
    ("from=9007199254740991", []),
    ("limit=1", [0]),
    ("subject=s:1", range(1, 25, 3)),
    ("subject=nobody", []),
    ("type=factledger.retraction.v1", [25]),
    ("type=factledger.assertion.v1&from=23", [23, 24]),
    ("predicate=location&subject=s:0&from=20", [21, 24]),
    ("source=extractor:test@1&from=25", [25, 26]),
    ("outlet=outlet:c&limit=2", [0, 1]),
    ("document_uri=https://example.org/a%20b", []),
    ("at_size=3", [0, 1, 2]),
    ("at_size=0", []),
    ("known_at=2025-01-01", []),
]


def test_the_log_is_filtered(many: TestClient) -> None:
    for query, expected in FILTERS:
        answer = many.get(f"{EVENTS}?{query}")
        assert answer.status_code == 200
        assert [e["position"] for e in answer.json()["events"]] == list(expected), query


def test_filters_stay_from_page_to_page(many: TestClient) -> None:
    body = many.get(f"{EVENTS}?subject=s:1&limit=2&known_at=2030-01-01").json()
    post(many, assertion("new", subject="s:1"))
    positions = [e["position"] for e in body["events"]]
    while body["next"]:
        body = many.get(body["next"]).json()
        positions += [e["position"] for e in body["events"]]
    assert positions == list(range(1, 25, 3))


BAD_FILTERS = [
    ("from=-1", "from"),
    ("from=x", "from"),
    ("limit=0", "limit"),
    ("limit=1001", "limit"),
    ("type=nonsense", "type"),
    ("subject=", "subject"),
    ("subject=a%20b", "subject"),
    ("subject=%00", "subject"),
    ("source=%00", "source"),
    ("outlet=%0A", "outlet"),
    ("predicate=X", "predicate"),
    ("predicate=%00", "predicate"),
    ("document_uri=", "document_uri"),
    ("document_uri=%00", "document_uri"),
    ("document_uri=" + "x" * 3000, "document_uri"),
    ("valid_at=2021", "valid_at"),
    ("cursor=x", "cursor"),
    ("from_=1", "from_"),
    ("at_size=x", "at_size"),
    ("at_size=28", "at_size"),
]


def test_a_filter_that_cannot_be_heeded_is_422(many: TestClient) -> None:
    for query, name in BAD_FILTERS:
        answer = many.get(f"{EVENTS}?{query}")
        assert answer.status_code == 422
        assert pointers(answer) == [f"/query/{name}"], query


@pytest.mark.parametrize(
    "accept", ["application/x-ndjson", "application/jsonl", "text/html, Application/X-NDJSON;q=0.9"]
)
def test_the_log_is_streamed(many: TestClient, monkeypatch: pytest.MonkeyPatch, accept: str) -> None:
    monkeypatch.setattr(reading, "STREAM_PAGE", 4)
    page = many.get(EVENTS).json()["events"]
    with many.stream("GET", EVENTS, headers={"accept": accept}) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/x-ndjson"
        assert answer.headers["ledger-size"] == "27"
        lines = list(answer.iter_lines())
    assert [orjson.loads(line) for line in lines] == page
    some = many.get(f"{EVENTS}?subject=s:1&from=3", headers={"accept": accept})
    assert [orjson.loads(line)["position"] for line in some.text.splitlines()] == list(range(4, 25, 3))
    limited = many.get(f"{EVENTS}?limit=6", headers={"accept": accept})
    assert len(limited.text.splitlines()) == 6
    assert many.get(f"{EVENTS}?from=99", headers={"accept": accept}).content == b""
    problem(many.get(f"{EVENTS}?at_size=99", headers={"accept": accept}), 422, "size-out-of-range")


def test_a_stream_is_of_one_size(many: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "STREAM_PAGE", 4)
    ask = reading._events

    def grow(*given: Any) -> Any:
        post(many, assertion(f"meanwhile{size(many)}", subject="s:1"))
        return ask(*given)

    monkeypatch.setattr(reading, "_events", grow)
    answer = many.get(EVENTS, headers={"accept": "application/x-ndjson"})
    assert [orjson.loads(line)["position"] for line in answer.text.splitlines()] == list(range(28))
    assert size(many) > 30


def test_one_event(many: TestClient) -> None:
    listed = many.get(EVENTS).json()["events"]
    for position in (0, 4, 26):
        answer = many.get(f"{EVENTS}/{position}")
        assert answer.json() == listed[position]
        assert answer.headers["ledger-size"] == "27"
        assert answer.headers["cache-control"] == "no-cache"
    assert many.get(f"{EVENTS}/4").json()["inforce"] is False
    assert many.get(f"{EVENTS}/4?at_size=25").json()["inforce"] is True
    problem(many.get(f"{EVENTS}/4?at_size=4"), 404, "event-not-found")
    problem(many.get(f"{EVENTS}/27"), 404, "event-not-found")
    problem(many.get(f"{EVENTS}/9007199254740991"), 404, "event-not-found")
    for unfit in ("x", "-1", "1.0", "%00", "9007199254740992", "1%2F2"):
        answer = many.get(f"{EVENTS}/{unfit}")
        problem(answer, 422, "invalid-request")
        assert pointers(answer) == ["/path/position"]
    assert pointers(many.get(f"{EVENTS}/0?valid_at=2021")) == ["/query/valid_at"]
