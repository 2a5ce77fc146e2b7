"""Previews: exactly what an append would change and what would survive it, and no trace of having asked."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest
from httpx2 import Response
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from factledger import comparing
from factledger.core import times
from factledger.core.errors import LedgerError
from factledger.http.problems import problem
from factledger.ledger import Ledger, Ledgers
from factledger.reading import Question
from factledger.recording import Request, Sources
from factledger.wiring import open_ledgers
from tests import oracle, strategies
from tests.checking import Event, read_log, record, request
from tests.core.test_belief import START, instants
from tests.http.posting import ENTITIES, EVENTS, assertion, event, post, size
from tests.http.posting import problem as problem_of

PREVIEW = "/v1/ledgers/main/preview"
DAY = {"valid_at": "2021-09-07"}

names = (f"p{n}" for n in itertools.count())
Slot = tuple[str, str]

ANY_LOG = st.one_of(
    strategies.logs(14, 2), strategies.corrected_logs(14), strategies.crowded_logs(12), strategies.logs(25, 12)
)


@pytest.fixture
def frozen(database_url: str) -> Iterator[Ledgers]:
    """Ledgers whose clock stands still, so that what is tried and what is then done say the same."""
    opened = open_ledgers(database_url, Sources(now=lambda: START, salt=lambda: os.urandom(32)))
    yield opened
    opened.close()


def fresh(ledgers: Ledgers) -> Ledger:
    name = next(names)
    ledgers.create(name)
    return ledgers.get(name)


def previewed(ledger: Ledger, requests: Sequence[Request], limit: int) -> dict[str, Any]:
    """All pages of a preview as one."""
    whole: dict[str, Any] = json.loads(ledger.preview(requests, problem, limit=limit).body)
    following = whole["next"]
    while following is not None:
        (after,) = parse_qs(urlsplit(following).query)["after"]
        page = json.loads(ledger.preview(requests, problem, after=after, limit=limit).body)
        assert page["results"] == whole["results"]
        whole["changes"] += page["changes"]
        whole["survived"] += page["survived"]
        following = page["next"]
    return whole


def slots_of(log: Sequence[Event], size: int) -> set[Slot]:
    """The slots as of a size: by canonical entity and predicate."""
    world = oracle.World(log, oracle.Coordinates(size, START))
    said = [event["data"] for event in log[:size] if oracle.is_a("assertion", event)]
    return {(world.canonical(data["subject"]), data["predicate"]) for data in said}


def differences(ledger: Ledger, log: Sequence[Event], a: int, b: int) -> list[tuple[Any, ...]]:
    """Where belief differs between two sizes, slot by slot, by reading every slot at both."""
    found = []
    for slot in sorted(slots_of(log, a) | slots_of(log, b)):
        with ledger.snapshot(Question()) as snapshot:
            was, now = (comparing.pieces(snapshot.at(size).slot_of(*slot), 0) for size in (a, b))
        found += [(*slot, *difference) for difference in comparing.differences(was, now)]
    return found


def bound(text: str | None, otherwise: int) -> int:
    return otherwise if text is None else times.parse_instant(text)


def told(change: dict[str, Any]) -> tuple[Any, ...]:
    """A change in the terms of `differences`."""
    span = (bound(change["valid"]["from"], times.BEGINNING), bound(change["valid"]["to"], times.FOREVER))
    return change["entity"], change["predicate"], *span, held(change["before"]), held(change["after"])


def held(side: dict[str, Any]) -> Any:
    keys = [json.dumps(v["value"], separators=(",", ":"), ensure_ascii=False) for v in side["values"]]
    return side["status"], tuple(
        (key, v["status"], v["probability"]) for key, v in zip(keys, side["values"], strict=True)
    )


def survivors(log: Sequence[Event], slot: Slot, a: int, b: int, instant: int) -> dict[str, Any]:
    """What a slot stands on at an instant after losing support, by value, as the oracle has it."""
    was, now = (oracle.Slot(oracle.World(log, oracle.Coordinates(size, instant)), *slot) for size in (a, b))
    old, new = (oracle.believe(log, *slot, oracle.Coordinates(size, instant)) for size in (a, b))
    lost = was.world.standing - now.world.standing
    stood, stands = ({json.dumps(v["value"]): v["status"] for v in side["values"]} for side in (old, new))
    found = {}
    for value, status in stood.items():
        affirmed = [c.position for c in was.counting if c.affirms and json.loads(c.value) == json.loads(value)]
        if stands.get(value) == status and lost.intersection(affirmed):
            left = [c.position for c in now.counting if c.affirms and json.loads(c.value) == json.loads(value)]
            found[value] = (status, lost.intersection(affirmed), set(left))
    return found


@pytest.mark.parametrize("gathered", [comparing.MAX_GATHERED, 1], ids=["gathering", "walking"])
@settings(max_examples=40)
@given(data=st.data())
def test_a_preview_says_what_the_append_then_changes(
    frozen: Ledgers, monkeypatch: pytest.MonkeyPatch, gathered: int, data: st.DataObject
) -> None:
    monkeypatch.setattr(comparing, "MAX_GATHERED", gathered)
    ledger = fresh(frozen)
    posted = [strategies.DECLARE_PLACE, *data.draw(ANY_LOG, label="log")]
    kept = data.draw(st.integers(0, len(posted)), label="recorded")
    record(ledger, posted[:kept])
    repeated = posted[:1] if data.draw(st.booleans(), label="repeat") else []
    events = [*repeated, *posted[kept:]]
    together = data.draw(st.booleans(), label="together")
    requests = [request(*events, pointers=True)] if together else [request(event) for event in events]
    before = read_log(ledger)
    digest, described = ledger.digest(), ledger.describe()

    supposed = previewed(ledger, requests, data.draw(st.sampled_from([1, 3, 100]), label="limit"))

    assert (ledger.digest(), ledger.describe()) == (digest, described)
    outcomes = ledger.append(requests)
    results = iter(supposed["results"])
    for outcome in outcomes:
        if isinstance(outcome, LedgerError):
            refusal = next(results)
            assert (refusal["result"], refusal["problem"]["code"]) == ("rejected", outcome.code)
            pointers = [fault.pointer for fault in outcome.errors]
            assert [fault["pointer"] for fault in refusal["problem"]["errors"]] == pointers
            continue
        for result in outcome.results:
            found = next(results)
            assert (found["result"] == "recorded", found["position"]) == (result.recorded, result.position)
            assert (found["source"], found["id"]) == (result.source, result.id)
    assert next(results, None) is None
    log = read_log(ledger)
    a, b = len(before), len(log)
    assert supposed["size"] == b
    for result in supposed["results"]:
        if "matched" in result:
            assert result["matched"] == log[result["position"]]["data"]["matched"]
    assert [told(change) for change in supposed["changes"]] == differences(ledger, log, a, b)
    for change in supposed["changes"]:
        assert a <= min(change["causes"]) and max(change["causes"]) == change["position"] < b
        cause = log[change["position"]]
        assert change["cause"] == {name: cause[name] for name in ("type", "source", "id")}
        assert change["recorded_at"] == cause["recordedat"]
        assert change["retroactive"] == (told(change)[2] < times.parse_instant(cause["recordedat"]))
    check_survivors(log, supposed["survived"], a, b)


def check_survivors(log: list[Event], survived: Sequence[dict[str, Any]], a: int, b: int) -> None:
    for slot in sorted(slots_of(log, a) | slots_of(log, b)):
        for instant in instants(log, *slot, b):
            found: dict[str, Any] = {}
            for s in survived:
                begins = bound(s["valid"]["from"], times.BEGINNING)
                if (s["entity"], s["predicate"]) == slot and begins <= instant < bound(s["valid"]["to"], times.FOREVER):
                    assert json.dumps(s["value"]) not in found
                    lost, support = ({e["position"] for e in s[side]} for side in ("lost", "support"))
                    found[json.dumps(s["value"])] = (s["status"], lost, support)
            expected = survivors(log, slot, a, b, instant)
            assert found.keys() == expected.keys(), (slot, instant)
            for value, (status, lost, support) in found.items():
                assert status == expected[value][0]
                assert lost >= expected[value][1]  # a span names all that counted somewhere in it
                assert support >= expected[value][2]


# --- one by one


def claim(event_id: str, outlet: str = "outlet:a", **data: Any) -> Event:
    return assertion(event_id, provenance={"outlet": outlet}, asserted_at="2021-09-01", valid="2021-09-01/..", **data)


def preview(client: TestClient, events: Any, **options: Any) -> Response:
    return client.post(PREVIEW, json=events, **options)


def test_nothing_of_a_preview_stays(client: TestClient) -> None:
    post(client, claim("c1"))
    post(client, event("same", "identity", {"entities": ["person:a", "person:z"], "judgement": "same"}))
    state = client.get(f"{ENTITIES}/person:a", params=DAY)
    tried = [
        claim("c2", "outlet:b"),
        event("rate", "agent", {"agent": "outlet:a", "reliability": "A"}),
        event("split", "retraction", {"targets": [1], "reason": "resolver_error"}),
        event("many", "predicate", {"predicate": "location", "cardinality": "one"}),
    ]
    answer = preview(client, tried)
    assert answer.status_code == 200
    assert (answer.headers["ledger-size"], answer.headers["cache-control"]) == ("2", "no-store")
    said = answer.json()
    assert (said["recorded"], said["duplicate"], said["rejected"], said["size"]) == (4, 0, 0, 6)
    assert [r["position"] for r in said["results"]] == [2, 3, 4, 5]
    assert client.get(f"{ENTITIES}/person:a", params=DAY).content == state.content
    assert size(client) == 2
    recorded = post(client, tried).json()
    assert [r["result"] for r in recorded["results"]] == ["recorded"] * 4


def test_changes_name_the_events_that_make_them(client: TestClient) -> None:
    post(client, [claim("c1"), claim("c2", subject="person:b")])
    said = preview(client, [claim("c3", "outlet:b"), event("rate", "agent", {"agent": "outlet:a", "reliability": "B"})])
    changes = said.json()["changes"]
    assert [(c["entity"], c["predicate"], c["causes"], c["cause_count"]) for c in changes] == [
        ("person:a", "location", [2, 3], 2),
        ("person:b", "location", [3], 1),
    ]
    assert changes[0]["cause"] == {"type": "factledger.agent.v1", "source": "extractor:test@1", "id": "rate"}
    assert changes[1]["valid"] == {"from": "2021-09-01T00:00:00.000000Z", "to": None}
    assert [v["probability"] for side in ("before", "after") for v in changes[1][side]["values"]] == [0.6, 0.85]
    assert changes[0]["retroactive"] is True


def test_what_survives_is_named_with_what_it_stands_on(client: TestClient) -> None:
    post(client, [claim("c1"), claim("c2", "outlet:b"), claim("c3", "outlet:c"), claim("c4", subject="person:b")])
    bulk = event("bulk", "retraction", {"where": {"outlet": "outlet:a"}, "reason": "other"})
    said = preview(client, bulk).json()
    assert said["results"][0]["matched"]["count"] == 2
    assert [c["entity"] for c in said["changes"]] == ["person:a", "person:b"]
    assert said["changes"][1]["after"] == {"status": "withdrawn", "values": []}
    (survived,) = said["survived"]
    assert (survived["entity"], survived["value"], survived["status"]) == (
        "person:a",
        {"entity": "place:b"},
        "accepted",
    )
    assert survived["valid"] == {"from": "2021-09-01T00:00:00.000000Z", "to": None}
    assert [(e["position"], e["origin"]) for e in survived["lost"]] == [(0, "outlet:a")]
    assert [(e["position"], e["origin"]) for e in survived["support"]] == [(1, "outlet:b"), (2, "outlet:c")]
    assert (survived["lost_count"], survived["support_count"]) == (1, 2)


def test_it_refuses_what_an_append_refuses(client: TestClient) -> None:
    post(client, [claim("c1"), event("d", "identity", {"entities": ["a:1", "a:2"], "judgement": "different"})])
    refused: list[Any] = [
        [claim("c2"), {**claim("c1"), "time": "2021-09-01T00:00:00Z"}],
        [claim("c2"), event("s", "identity", {"entities": ["a:1", "a:2"], "judgement": "same"})],
        [
            event("r", "agent", {"agent": "a:1", "relays": "a:3"}),
            event("s", "agent", {"agent": "a:3", "relays": "a:1"}),
        ],
        [claim("c2"), event("t", "retraction", {"targets": [7], "reason": "other"})],
        [claim("c2"), {"specversion": "1.0"}],
        event("e", "erasure", {"subject": "person:a", "basis": "law"}),
    ]
    for events in refused:
        would, does = preview(client, events), post(client, events)
        assert would.status_code == does.status_code >= 400
        assert would.json() == does.json()
    assert size(client) == 2


def test_lines_are_each_judged_by_themselves(client: TestClient) -> None:
    post(client, claim("c1"))
    lines = [claim("c1"), claim("c2", "outlet:b"), event("t", "retraction", {"targets": [9], "reason": "other"})]
    body = b"\n".join([*(orjson.dumps(line) for line in lines), b"", b"{}"])
    headers = {"Content-Type": "application/x-ndjson"}
    said = client.post(PREVIEW, content=body, headers=headers).json()
    assert [r["result"] for r in said["results"]] == ["duplicate", "recorded", "rejected", "rejected"]
    assert said["results"][2]["problem"]["errors"][0]["pointer"] == "/data/targets/0"
    assert (said["recorded"], said["duplicate"], said["rejected"], said["size"]) == (1, 1, 2, 2)
    problem_of(client.post(PREVIEW, content=b"{}\n" * 10_001, headers=headers), 413, "batch-too-large")
    found = problem_of(
        client.post(PREVIEW, content=body, headers={**headers, "If-Match": '"1"'}), 422, "invalid-request"
    )
    assert found["errors"][0]["pointer"] == "/headers/if-match"


def test_pages_go_on_at_the_size_of_the_first(client: TestClient) -> None:
    post(client, [claim(f"c{n}", subject=f"person:{n}") for n in range(7)])
    rating = event("rate", "agent", {"agent": "outlet:a", "reliability": "A"})
    whole = preview(client, rating).json()
    assert len(whole["changes"]) == 7
    assert whole["next"] is None
    answer = preview(client, rating, params={"limit": 3})
    pages = [answer.json()]
    while (following := pages[-1]["next"]) is not None:
        assert answer.headers["link"] == f'<{following}>; rel="next"'
        post(client, claim(f"later{len(pages)}", subject="person:5"))
        answer = client.post(following, json=rating)
        pages.append(answer.json())
    assert [len(page["changes"]) for page in pages] == [3, 3, 1]
    assert len({change["recorded_at"] for page in pages for change in page["changes"]}) == 1
    found = [{**change, "recorded_at": ""} for page in pages for change in page["changes"]]
    assert found == [{**change, "recorded_at": ""} for change in whole["changes"]]


@pytest.mark.parametrize(
    "after", ["", "x", "W10", "WzEsMSwiYSJd", "WzEsMSwiYSIsIlx1MDAwMCJd", "Wy0xLDEsImEiLCJiIl0", "é"]
)
def test_a_page_that_is_none_is_refused(client: TestClient, after: str) -> None:
    refused = problem_of(preview(client, claim("c1"), params={"after": after}), 422, "page-unknown")
    assert refused["errors"][0]["pointer"] == "/query/after"


def test_it_holds_at_the_size_that_is_demanded(client: TestClient) -> None:
    post(client, claim("c1"))
    assert preview(client, claim("c2"), headers={"If-Match": '"1"'}).status_code == 200
    problem_of(preview(client, claim("c2"), headers={"If-Match": '"0"'}), 412, "size-changed")


def test_a_strict_ledger_is_strict(client: TestClient) -> None:
    client.put("/v1/ledgers/desk", json={"strict": True})
    declared = event("p", "predicate", {"predicate": "location", "cardinality": "one"})
    strict = "/v1/ledgers/desk/preview"
    refused = problem_of(client.post(strict, json=[claim("c1"), declared]), 422, "invalid-event")
    assert refused["errors"][0]["pointer"] == "/0/data/predicate"
    assert client.post(strict, json=[declared, claim("c1")]).json()["recorded"] == 2


def test_an_entity_named_once_more_moves_no_canonical_id(client: TestClient) -> None:
    """Who was named first is decided as of the size, in what is stored and then in what is tried."""
    post(client, claim("c1", subject="person:b"))
    merge = event("m", "identity", {"entities": ["person:0", "person:b"], "judgement": "same"})
    first = claim("c0", subject="person:0", value={"entity": "place:z"})
    changes = preview(client, [first, merge]).json()["changes"]
    assert {change["entity"] for change in changes} == {"person:b"}


@pytest.mark.parametrize("gathered", [comparing.MAX_GATHERED, 1], ids=["gathering", "walking"])
@pytest.mark.parametrize(
    ("tried", "touched"),
    [
        (
            event("m", "identity", {"entities": ["place:b", "place:c"], "judgement": "same"}),
            [f"person:{n}" for n in "abce"],
        ),
        (event("r", "agent", {"agent": "agent:s", "reliability": "A"}), ["person:c"]),
        (event("r", "agent", {"agent": "outlet:b", "reliability": "A"}), ["person:b"]),
        (event("f", "agent", {"agent": "extractor:old@1", "fidelity": 0}), ["person:d"]),
        (event("r", "agent", {"agent": "agent:s", "relays": "outlet:a"}), []),
        (event("p", "predicate", {"predicate": "alias", "cardinality": "many", "lapse_days": 1}), ["person:d"]),
        (event("w", "retraction", {"where": {"source_prefix": "extractor:old"}, "reason": "other"}), ["person:d"]),
        (event("u", "retraction", {"targets": [0], "reason": "other"}), ["person:e"]),
    ],
)
def test_what_an_event_reaches_is_found(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, gathered: int, tried: Event, touched: list[str]
) -> None:
    monkeypatch.setattr(comparing, "MAX_GATHERED", gathered)
    post(client, event("rate", "agent", {"agent": "outlet:e", "reliability": "E"}))
    other, spoken = claim("b2", "outlet:c", subject="person:b"), claim("c", "outlet:x", subject="person:c")
    other["data"]["value"] = {"entity": "place:c"}
    spoken["data"]["provenance"]["speakers"] = ["agent:s"]
    old = claim("d", "outlet:d", subject="person:d", predicate="alias", value="x") | {"source": "extractor:old@1"}
    rest = [claim("a"), claim("b", "outlet:b", subject="person:b"), claim("e", "outlet:e", subject="person:e")]
    post(client, [other, spoken, old, *rest])
    before = client.get(f"{ENTITIES}/person:b", params=DAY).json()["facts"]
    changes = preview(client, tried).json()["changes"]
    post(client, tried)
    after = client.get(f"{ENTITIES}/person:b", params=DAY).json()["facts"]
    assert ("person:b" in {change["entity"] for change in changes}) == (before != after)
    assert sorted({change["entity"] for change in changes}) == touched


def test_an_empty_batch_changes_nothing(client: TestClient) -> None:
    post(client, claim("c1"))
    said = preview(client, []).json()
    assert (said["results"], said["changes"], said["survived"], said["next"], said["size"]) == ([], [], [], None, 1)


@given(st.recursive(st.none() | st.integers(-9, 9) | st.text(max_size=5), lambda inner: st.lists(inner, max_size=4)))
@settings(max_examples=30)
def test_no_body_gives_a_5xx(client: TestClient, body: Any) -> None:
    headers, content = {"Content-Type": "application/json"}, orjson.dumps(body)
    answers = [client.post(path, content=content, headers=headers) for path in (PREVIEW, EVENTS)]
    assert answers[0].status_code in (200, 400, 422)
    assert answers[0].status_code == 200 or answers[0].content == answers[1].content
