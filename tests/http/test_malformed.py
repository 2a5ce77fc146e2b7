"""Whatever is posted: a refusal that says where, never a 5xx, never an echo, and nothing recorded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from factledger.http.app import create_app
from factledger.settings import Settings
from tests.conftest import Clock, copied_database, open_test_ledgers
from tests.http.posting import EVENTS, Event, assertion, event, pointers, problem, size
from tests.postgres import PostgresServer

JSON = {"content-type": "application/json"}
PREVIEW = "/v1/ledgers/main/preview"
MARK = "Zanzibar"  # stands in every refused body, and must stand in no answer


@pytest.fixture(scope="module")
def both(
    postgres: PostgresServer, postgres_template: str, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[TestClient]]:
    """The service over SQLite and over PostgreSQL, both empty for as long as nothing malformed is recorded."""
    copy = tmp_path_factory.mktemp("malformed") / "ledger.db"
    copy.write_bytes(sqlite_template.read_bytes())
    with copied_database(postgres, postgres_template) as url:
        yield from clients(f"sqlite:///{copy}", url)


@pytest.fixture
def pair(sqlite_url: str, postgresql_url: str) -> Iterator[list[TestClient]]:
    """The service over SQLite and over PostgreSQL, for one test to record in."""
    yield from clients(sqlite_url, postgresql_url)


def clients(*urls: str) -> Iterator[list[TestClient]]:
    with ExitStack() as stack:
        yield [stack.enter_context(TestClient(create_app(open_test_ledgers(url, Clock()), Settings()))) for url in urls]


def refused(both: list[TestClient], body: bytes, headers: dict[str, str] = JSON) -> Any:
    """Post to both; both must refuse alike, repeat nothing and record nothing."""
    answers = [client.post(EVENTS, content=body, headers=headers) for client in both]
    assert all(400 <= answer.status_code < 500 for answer in answers), [answer.text for answer in answers]
    assert answers[0].content == answers[1].content
    assert MARK not in answers[0].text
    assert answers[0].json()["errors"] or answers[0].status_code in (413, 415)
    assert [size(client) for client in both] == [0, 0]
    return answers[0]


def raw(**replaced: bytes) -> bytes:
    """An assertion's bytes, with some members replaced by bytes that no JSON writer would make."""
    members = {"value": b'"Zanzibar"', "confidence": b"1", **replaced}
    inner = b",".join(b'"%s":%s' % (name.encode(), value) for name, value in members.items())
    return (
        b'{"specversion":"1.0","type":"factledger.assertion.v1","source":"x","id":"1","data":{"subject":"s",'
        b'"predicate":"p","provenance":{"outlet":"o"},' + inner + b"}}"
    )


MALFORMED = {
    "empty": b"",
    "white space": b"  \n",
    "no JSON": b"Zanzibar",
    "cut off": raw()[:-1],
    "trailing comma": raw()[:-1] + b",}",
    "two values": raw() + raw(),
    "comment": b"/* Zanzibar */" + raw(),
    "single quotes": raw().replace(b'"', b"'"),
    "byte order mark": b"\xef\xbb\xbf" + raw(),
    "UTF-16": raw().decode().encode("utf-16"),
    "bad UTF-8": raw(value=b'"\xff\xfe"'),
    "overlong UTF-8": raw(value=b'"\xc0\xaf"'),
    "surrogate in UTF-8": raw(value=b'"\xed\xa0\x80"'),
    "raw NUL": raw(value=b'"\x00"'),
    "escaped NUL": raw(value=rb'"\u0000"'),
    "NUL in a key": raw(value=rb'{"\u0000":1}'),
    "raw control character": raw(value=b'"\x1f"'),
    "raw newline": raw(value=b'"\n"'),
    "lone high surrogate": raw(value=rb'"\ud800"'),
    "lone low surrogate": raw(value=rb'"\udc00 Zanzibar"'),
    "surrogates the wrong way round": raw(value=rb'"\udc00\ud800"'),
    "surrogate in a key": raw(value=rb'{"\ud800":1}'),
    "duplicate key": raw(value=b'1,"value":2'),
    "duplicate key, escaped": raw(value=rb'1,"val\u0075e":2'),
    "duplicate key deep down": raw(value=b'{"quantity":{"amount":1,"amount":2}}'),
    "NaN": raw(confidence=b"NaN"),
    "Infinity": raw(confidence=b"Infinity"),
    "minus Infinity": raw(confidence=b"-Infinity"),
    "1e400": raw(confidence=b"1e400"),
    "-1e400": raw(value=b"-1e400"),
    "integer beyond 2^53": raw(value=b"9007199254740992"),
    "integer below -2^53": raw(value=b"-9007199254740992"),
    "integer of 5,000 digits": raw(value=b"9" * 5_000),
    "leading zero": raw(value=b"01"),
    "leading plus": raw(value=b"+1"),
    "hexadecimal": raw(value=b"0x10"),
    "bare point": raw(value=b"1."),
    "depth 33": raw(value=b"[" * 31 + b"]" * 31),
    "depth 100,000": b"[" * 100_000 + b"]" * 100_000,
    "depth 100,000 in objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "never closed": b"[" * 1_000_000,
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
@pytest.mark.parametrize("kind", ["application/json", "application/cloudevents+json"])
def test_malformed_json_is_400(both: list[TestClient], body: bytes, kind: str) -> None:
    problem(refused(both, body, {"content-type": kind}), 400, "malformed-json")


def test_a_pointer_says_where_a_bad_string_stands(both: list[TestClient]) -> None:
    assert pointers(refused(both, raw(value=rb'{"text":"\ud800","lang":"en"}'))) == ["/data/value/text"]
    assert pointers(refused(both, b"[" + raw(value=rb'"\u0000"') + b"]")) == ["/0/data/value"]


def posted(**data: Any) -> Event:
    return assertion("1", **{"valid_text": MARK, **data})


def without(whole: Event, *path: str) -> Event:
    """An event less one member."""
    *parents, last = path
    inner = whole
    for name in parents:
        inner = inner[name]
    del inner[last]
    return whole


INVALID: dict[str, tuple[Any, list[str]]] = {
    "a string": ("Zanzibar", [""]),
    "a number": (1, [""]),
    "null": (None, [""]),
    "true": (True, [""]),
    "an empty object": ({}, ["/specversion", "/type", "/source", "/id", "/data"]),
    "no type": (without(posted(), "type"), ["/type"]),
    "null id": ({**posted(), "id": None}, ["/id"]),
    "numeric id": ({**posted(), "id": 7}, ["/id"]),
    "empty id": ({**posted(), "id": ""}, ["/id"]),
    "id beyond 1,024 bytes": ({**posted(), "id": "é" * 600}, ["/id"]),
    "null source": ({**posted(), "source": None}, ["/source"]),
    "source with a space": ({**posted(), "source": "x Zanzibar"}, ["/source"]),
    "source of 257 characters": ({**posted(), "source": "x" * 257}, ["/source"]),
    "no data": (without(posted(), "data"), ["/data"]),
    "null data": ({**posted(), "data": None}, ["/data"]),
    "data a list": ({**posted(), "data": [1]}, ["/data"]),
    "data in base64": ({**posted(), "data_base64": "e30="}, ["/data_base64"]),
    "specversion 0.3": ({**posted(), "specversion": "0.3"}, ["/specversion"]),
    "specversion a number": ({**posted(), "specversion": 1.0}, ["/specversion"]),
    "unknown type": ({**posted(), "type": "com.example.Zanzibar"}, ["/type"]),
    "type a list": ({**posted(), "type": ["factledger.assertion.v1"]}, ["/type"]),
    "time without offset": ({**posted(), "time": "2021-09-07T10:02:11"}, ["/time"]),
    "time on 30 February": ({**posted(), "time": "2021-02-30T00:00:00Z"}, ["/time"]),
    "time a number": ({**posted(), "time": 1631008931}, ["/time"]),
    "content of another type": ({**posted(), "datacontenttype": "text/plain"}, ["/datacontenttype"]),
    "the ledger's own attribute": ({**posted(), "recordedby": MARK}, ["/recordedby"]),
    "attribute in capitals": ({**posted(), "Zone": "x"}, ["/Zone"]),
    "attribute an object": ({**posted(), "zone": {"a": 1}}, ["/zone"]),
    "attribute a decimal": ({**posted(), "zone": 1.5}, ["/zone"]),
    "attribute beyond 32 bits": ({**posted(), "zone": 2**31}, ["/zone"]),
    "unknown field": (posted(subjekt=1), ["/data/subjekt"]),
    "unknown field that needs escaping": (posted(**{"a/b~c": 1}), ["/data/a~1b~0c"]),
    "unknown field deep down": (posted(provenance={"outlet": "o", "x": 1}), ["/data/provenance/x"]),
    "no subject": (without(posted(), "data", "subject"), ["/data/subject"]),
    "null subject": (posted(subject=None), ["/data/subject"]),
    "empty subject": (posted(subject=""), ["/data/subject"]),
    "subject with a space": (posted(subject="a Zanzibar"), ["/data/subject"]),
    "subject with a tab": (posted(subject="a\t"), ["/data/subject"]),
    "subject with a no-break space": (posted(subject="a\u00a0b"), ["/data/subject"]),
    "subject with a control character": (posted(subject="a\u0007"), ["/data/subject"]),
    "subject with a line separator": (posted(subject="a\u2028"), ["/data/subject"]),
    "subject of 257 characters": (posted(subject="a" * 257), ["/data/subject"]),
    "predicate in capitals": (posted(predicate="Location"), ["/data/predicate"]),
    "predicate of 65 characters": (posted(predicate="p" * 65), ["/data/predicate"]),
    "no value": (without(posted(), "data", "value"), ["/data/value"]),
    "null value": (posted(value=None), ["/data/value"]),
    "list value": (posted(value=[1]), ["/data/value"]),
    "value of two kinds": (posted(value={"entity": "e", "date": "2021"}), ["/data/value/date"]),
    "value of no kind": (posted(value={"place": "p"}), ["/data/value"]),
    "value an entity without id": (posted(value={"entity": ""}), ["/data/value/entity"]),
    "value a date that is none": (posted(value={"date": "yesterday"}), ["/data/value/date"]),
    "text without language": (posted(value={"text": "t"}), ["/data/value/lang"]),
    "quantity out of its bounds": (posted(value={"quantity": {"amount": 3, "high": 2}}), ["/data/value/quantity"]),
    "no outlet": (posted(provenance={}), ["/data/provenance/outlet"]),
    "provenance a string": (posted(provenance="o"), ["/data/provenance"]),
    "speakers no list": (posted(provenance={"outlet": "o", "speakers": "s"}), ["/data/provenance/speakers"]),
    "polarity": (posted(polarity="maybe"), ["/data/polarity"]),
    "polarity a list": (posted(polarity=["affirms"]), ["/data/polarity"]),
    "valid that is no EDTF": (posted(valid="last week"), ["/data/valid"]),
    "valid that ends before it starts": (posted(valid="2021-09/2021-08"), ["/data/valid"]),
    "valid a number": (posted(valid=2021), ["/data/valid"]),
    "asserted at no time": (posted(asserted_at="soon"), ["/data/asserted_at"]),
    "confidence above 1": (posted(confidence=1.01), ["/data/confidence"]),
    "confidence true": (posted(confidence=True), ["/data/confidence"]),
    "confidence a string": (posted(confidence="1"), ["/data/confidence"]),
    "certainty": (posted(certainty="sure"), ["/data/certainty"]),
    "evidence that ends before it starts": (
        posted(provenance={"outlet": "o", "evidence": {"start": 5, "end": 4}}),
        ["/data/provenance/evidence/end"],
    ),
    "digest in capitals": (
        posted(provenance={"outlet": "o", "document": {"sha256": "A" * 64}}),
        ["/data/provenance/document/sha256"],
    ),
    "corrects nothing": (posted(corrects=[]), ["/data/corrects"]),
    "corrects true": (posted(corrects=[True]), ["/data/corrects/0"]),
    "corrects a negative position": (posted(corrects=[-1]), ["/data/corrects/0"]),
    "corrects what is not there": (posted(corrects=[7, {"id": "x"}]), ["/data/corrects/0", "/data/corrects/1"]),
    "corrects itself": (posted(corrects=[{"id": "1"}]), ["/data/corrects/0"]),
    "corrects a position beyond 63 bits": (posted(corrects=[2**53 - 1]), ["/data/corrects/0"]),
    "many faults": (posted(subject=1, predicate=2, value=[]), ["/data/subject", "/data/predicate", "/data/value"]),
    "retraction of nothing": (event("1", "retraction", {"reason": "other"}), ["/data"]),
    "retraction of both kinds": (
        event("1", "retraction", {"reason": "other", "targets": [0], "where": {"run": "r"}}),
        ["/data"],
    ),
    "retraction without reason": (event("1", "retraction", {"where": {"run": "r"}}), ["/data/reason"]),
    "retraction by positions alone": (
        event("1", "retraction", {"reason": "other", "where": {"from_position": 0}}),
        ["/data/where"],
    ),
    "retraction with the ledger's own field": (
        event("1", "retraction", {"reason": "other", "where": {"run": "r"}, "matched": {}}),
        ["/data/matched"],
    ),
    "identity of one": (event("1", "identity", {"entities": ["a"], "judgement": "same"}), ["/data/entities"]),
    "identity with itself": (event("1", "identity", {"entities": ["a", "a"], "judgement": "same"}), ["/data/entities"]),
    "predicate of no cardinality": (event("1", "predicate", {"predicate": "p"}), ["/data/cardinality"]),
    "agent of reliability 1": (event("1", "agent", {"agent": "a", "reliability": 1}), ["/data/reliability"]),
    "agent of reliability G": (event("1", "agent", {"agent": "a", "reliability": "G"}), ["/data/reliability"]),
    "policy": (
        event("1", "policy", {"method": "vote", "parameters": {"x": 1}}),
        ["/data/method", "/data/parameters/x"],
    ),
    "erasure of nothing": (event("1", "erasure", {"basis": "b"}), ["/data"]),
}


@pytest.mark.parametrize(("body", "where"), INVALID.values(), ids=INVALID.keys())
def test_an_invalid_event_is_422_and_says_where(both: list[TestClient], body: Any, where: list[str]) -> None:
    answer = refused(both, orjson.dumps(body))
    problem(answer, 422, "invalid-event")
    assert pointers(answer) == where


@pytest.mark.parametrize(("body", "where"), INVALID.values(), ids=INVALID.keys())
def test_in_a_batch_the_pointer_has_the_index(both: list[TestClient], body: Any, where: list[str]) -> None:
    batch = [assertion("0", "good"), body]
    headers = {"content-type": "application/cloudevents-batch+json"}
    answer = refused(both, orjson.dumps(batch), headers)
    problem(answer, 422, "invalid-event")
    assert pointers(answer) == [f"/1{pointer}" for pointer in where]


TOO_LARGE = {
    "an event beyond 256 KiB": posted(value="Zanzibar" * 32 * 1024),
    "attributes beyond 8 KiB": {**posted(), "zone": "Zanzibar" * 1024},
}


@pytest.mark.parametrize("body", TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_an_event_that_is_too_large_is_413(both: list[TestClient], body: Event) -> None:
    problem(refused(both, orjson.dumps(body)), 413, "event-too-large")
    assert pointers(refused(both, orjson.dumps([assertion("0"), body]))) == ["/1"]


def test_a_batch_of_more_than_10_000_is_413(both: list[TestClient]) -> None:
    problem(refused(both, orjson.dumps([{}] * 10_001)), 413, "batch-too-large")


def test_a_body_of_more_than_16_mib_is_413(both: list[TestClient]) -> None:
    problem(refused(both, b" " * (16 * 1024 * 1024 + 1)), 413, "body-too-large")

    def chunks() -> Iterator[bytes]:  # without a Content-Length
        for _ in range(17):
            yield b" " * 1024 * 1024

    for client in both:
        problem(client.post(EVENTS, content=chunks(), headers=JSON), 413, "body-too-large")


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/plain",
        "text/json",
        "application/xml",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=latin-1",
        "application/json; charset=utf-16",
        "application/cloudevents+avro",
        "application/ld+json",
        "nonsense",
        "application/json,application/json",
    ],
)
def test_another_content_type_is_415(both: list[TestClient], kind: str) -> None:
    problem(refused(both, orjson.dumps(posted()), {"content-type": kind}), 415, "unsupported-media-type")


def test_a_compressed_body_is_415(both: list[TestClient]) -> None:
    headers = {**JSON, "content-encoding": "gzip"}
    problem(refused(both, orjson.dumps(posted()), headers), 415, "unsupported-media-type")


def test_an_object_where_a_batch_is_announced_is_422(both: list[TestClient]) -> None:
    for body, kind in (([posted()], "application/cloudevents+json"), (posted(), "application/cloudevents-batch+json")):
        answer = refused(both, orjson.dumps(body), {"content-type": kind})
        assert pointers(answer) == [""]


# Every way to write: method, path, content type.
WAYS = [
    ("POST", EVENTS, "application/json"),
    ("POST", EVENTS, "application/cloudevents+json"),
    ("POST", EVENTS, "application/cloudevents-batch+json"),
    ("POST", EVENTS, "application/x-ndjson"),
    ("POST", PREVIEW, "application/json"),
    ("POST", PREVIEW, "application/cloudevents-batch+json"),
    ("PUT", "/v1/ledgers/another", "application/json"),
]
EXAMPLES = int(os.environ.get("MALFORMED_EXAMPLES", "100"))  # of each way


@pytest.mark.parametrize("way", WAYS, ids=[" ".join(way) for way in WAYS])
@settings(max_examples=EXAMPLES)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200).map(str.encode),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(st.sampled_from(["data", "id", "type", "source", "x"]), inner, max_size=5)
            ),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_no_body_gives_a_5xx(both: list[TestClient], way: tuple[str, str, str], body: bytes) -> None:
    method, path, kind = way
    answers = [client.request(method, path, content=body, headers={"content-type": kind}) for client in both]
    assert answers[0].status_code < 500
    assert answers[0].content == answers[1].content
    assert [size(client) for client in both] == [0, 0]


@st.composite
def edits(draw: st.DrawFn) -> bytes:
    """A good event's bytes with a few of them changed."""
    body = bytearray(orjson.dumps(assertion("1", valid="2021-09/..", confidence=0.5)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(body) - 1))
        body[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(body)


@settings(max_examples=EXAMPLES)
@given(edits())
def test_both_stores_answer_a_damaged_event_alike(pair: list[TestClient], body: bytes) -> None:
    answers = [client.post(EVENTS, content=body, headers=JSON) for client in pair]
    assert answers[0].status_code in (200, 201, 400, 409, 422)
    assert answers[0].content == answers[1].content
