"""The event types, field by field: what each accepts, what it refuses, and where the refusal points."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from itertools import chain
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factledger.core import encoding, events, times
from factledger.core.errors import Category, LedgerError
from factledger.core.events import MAX_ATTRIBUTE_BYTES, MAX_EVENT_BYTES, read_event
from tests import oracle

Data = dict[str, Any]
Examples = tuple[list[Any], list[Any]]  # good, bad

LONG_ID, LONG_TEXT = "i" * 256, "t" * 4096
SHA = "0123456789abcdef" * 4

MINIMAL: dict[str, Data] = {
    "assertion": {"subject": "s", "predicate": "p", "value": "v", "provenance": {"outlet": "o"}},
    "retraction": {"targets": [0], "reason": "other"},
    "identity": {"entities": ["a", "b"], "judgement": "same"},
    "predicate": {"predicate": "p", "cardinality": "one"},
    "agent": {"agent": "a"},
    "policy": {},
    "erasure": {"subject": "s", "basis": "a request"},
}

# ---- What each field takes, and what it does not -------------------------------------------------------

ID = (
    ["x", "e:1", "https://example.org/a%2Fb?c#d", "Ω:é", "😀", LONG_ID, "\u200b", '"', "a/b~c"],
    ["", " ", "a b", "a\tb", "a\n", "\x00", "\x7f", "\x85", "\xa0", "\u2028", "\u3000", "\ufeff", LONG_ID + "i"],
)
NOT_TEXT: list[Any] = [None, True, 0, 1.5, [], {}, ["x"]]
PREDICATE_NAME = (["p", "a_b_9", "p" * 64], ["", "P", "9a", "_a", "a-b", "a b", "é", "p" * 65, "p\n", *NOT_TEXT])
UNIT = ([0, 1, 0.5, 1.0, 0.0, 1e-300], [-0.1, 1.1, 2, -1, True, False, "0.5", None, [], {}])
OPEN_UNIT = ([0.5, 1e-9, 0.999999], [0, 1, 0.0, 1.0, -0.5, 1.5, True, "0.5", None])
MOMENT = (
    ["2021-09-07", "2021-09-07T10:02:11Z", "2021-09-07T10:02:11.123456+02:00", "-0044-03-15"],
    ["", "2021-09", "2021", "2021-02-29", "2021-09-07T10:02:11", "yesterday", "2021-09-07/..", 20210907, None, True],
)
EDTF = (
    ["2021", "2021-09/..", "../2021", "2021-08-2X", "2021-21", "Y12345", "/", "2021-09-06T12:00:00Z/"],
    ["", "..", "x", "2021-13", "2021-02-30", "2021/2020", "2021/2022/2023", "1" * 129, 2021, None, [], {}],
)
SHA256 = ([SHA], ["", SHA.upper(), SHA[1:], SHA + "0", "g" * 64, 0, None])
LANGUAGE = (["en", "prs-AF", "zh-Hant-TW"], ["", "e", "en_GB", "en-", "é", "english-" + "x" * 9, 1, None])
INDEX = ([0, 1, 2**53 - 1], [-1, 1.0, 0.5, 2**53, True, "0", None, []])
REFS: Examples = (
    [[0], [1, 2], [{"id": "x"}], [{"source": "s", "id": "x"}], [0, {"id": "x"}], [2**53 - 1]],
    [[], {}, None, "x", 0],
)
BAD_REFS: dict[str, list[Any]] = {  # deeper than the list itself
    "/0": [[-1], [True], [1.5], [None], ["x"], [[0]]],
    "/1": [[0, -1]],
    "/0/id": [[{}], [{"source": "s"}], [{"id": ""}], [{"id": 7}], [{"id": "x" * 1025}]],
    "/0/source": [[{"id": "x", "source": ""}], [{"id": "x", "source": "a b"}]],
    "/0/position": [[{"id": "x", "position": 1}]],
}


def text(limit: int, least: int = 0) -> Examples:
    return ["x" * least, "é" * limit, "a b\n"], ["x" * (limit + 1), *([""] if least else []), *NOT_TEXT]


def one_of(*allowed: str) -> Examples:
    return list(allowed), ["", allowed[0].title(), allowed[0] + " ", *NOT_TEXT]


def or_null(field: Examples) -> Examples:
    good, bad = field
    return [*good, None], [wrong for wrong in bad if wrong is not None]


VALUE: Examples = (
    [
        *("", "x", 0, -1.5, True, False, {"entity": "e:1"}, {"date": "2021-08-2X"}),
        *({"text": "x", "lang": "prs-AF"}, {"text": "", "lang": "en"}, {"quantity": {"amount": 3}}),
        {"quantity": {"amount": 3, "low": 3, "high": 3.5, "unit": "km"}},
    ],
    [None, [], {}, {"x": 1}],
)
BAD_VALUES: dict[str, list[Any]] = {
    "/entity": [{"entity": "a b"}, {"entity": 1}, {"entity": None}, {"entity": {"entity": "x"}}],
    "/date": [{"date": "2021-13"}, {"date": 2021}, {"entity": "x", "date": "2021"}],
    "/text": [{"text": 1, "lang": "en"}, {"text": None, "lang": "en"}],
    "/lang": [{"text": "x"}, {"text": "x", "lang": "e"}, {"text": "x", "lang": None}, {"entity": "x", "lang": "en"}],
    "/quantity": [
        {"quantity": 3},
        {"quantity": []},
        {"quantity": {"amount": 1, "low": 2}},
        {"quantity": {"amount": 3, "high": 2}},
    ],
    "/quantity/amount": [
        {"quantity": {}},
        {"quantity": {"amount": "3"}},
        {"quantity": {"amount": True}},
        {"quantity": {"amount": None}},
    ],
    "/quantity/low": [{"quantity": {"amount": 3, "low": "1"}}],
    "/quantity/high": [{"quantity": {"amount": 3, "high": None}}],
    "/quantity/unit": [{"quantity": {"amount": 3, "unit": u}} for u in ("", "u" * 65, 1, None)],
    "/quantity/x": [{"quantity": {"amount": 3, "x": 1}}],
    "/x": [{"entity": "e", "x": 1}, {"date": "2021", "x": 1}],
}

FIELDS: dict[str, dict[str, Examples]] = {
    "assertion": {
        "subject": ID,
        "predicate": PREDICATE_NAME,
        "value": VALUE,
        "polarity": one_of("affirms", "denies"),
        "valid": EDTF,
        "valid_text": text(1024),
        "asserted_at": MOMENT,
        "certainty": one_of("certain", "probable", "possible"),
        "confidence": UNIT,
        "corrects": REFS,
        "provenance": ([{"outlet": "o"}], [None, [], "x", 1]),
        "provenance/outlet": ID,
        "provenance/speakers": ([[], ["a"], ["a", "a"], ["a"] * 64], [None, "a", {}, ["a"] * 65]),
        "provenance/document": ([{}], [None, [], "x"]),
        "provenance/document/uri": (["x", "u" * 2048, "é" * 1024], ["", "u" * 2049, "é" * 1025, *NOT_TEXT]),
        "provenance/document/sha256": SHA256,
        "provenance/document/title": text(1024),
        "provenance/document/published_at": MOMENT,
        "provenance/document/language": LANGUAGE,
        "provenance/evidence": ([{}], [None, [], "x"]),
        "provenance/evidence/start": INDEX,
        "provenance/evidence/end": INDEX,
        "provenance/evidence/quote": text(65_536),
        "provenance/evidence/sha256": SHA256,
        "provenance/method": ([{}], [None, [], "x"]),
        "provenance/method/kind": text(256),
        "provenance/method/model": text(256),
        "provenance/method/run": text(256),
    },
    "retraction": {
        "targets": REFS,
        "where": ([{"source": "s"}], [None, [], "x", 0]),
        "where/source": ID,
        "where/source_prefix": text(256, 1),
        "where/outlet": ID,
        "where/document_uri": (["x"], ["", "u" * 2049, *NOT_TEXT]),
        "where/run": text(256),
        "where/subject": ID,
        "where/predicate": PREDICATE_NAME,
        "where/from_position": INDEX,
        "where/to_position": INDEX,
        "reason": one_of("extractor_error", "resolver_error", "source_withdrew", "duplicate", "legal", "other"),
        "note": text(4096),
    },
    "identity": {
        "entities": ([["a", "b"], ["a", "b", "c"]], [[], ["a"], None, "ab", {}, ["a", "a"], ["a", "b", "a"]]),
        "judgement": one_of("same", "different", "unsure"),
        "score": UNIT,
        "note": text(4096),
    },
    "predicate": {
        "predicate": PREDICATE_NAME,
        "cardinality": one_of("one", "many"),
        "value_type": one_of("any", "text", "number", "boolean", "date", "entity", "quantity"),
        "plausible_values": ([1, 10, 10**9], [0, -1, 1.0, 1.5, True, "1", None, 10**9 + 1]),
        "lapse_days": ([0, 1, 0.5, 10**6], [-1, 10**6 + 1, True, "1", None]),
        "unit": text(64),
        "label": text(256),
        "description": text(4096),
        "personal": ([True, False], [None, 0, 1, "true", []]),
    },
    "agent": {
        "agent": ID,
        "label": or_null(text(256)),
        "reliability": or_null(
            (["A", "B", "C", "D", "E", "F", *OPEN_UNIT[0]], ["G", "a", "", "AB", [], *OPEN_UNIT[1]])
        ),
        "fidelity": or_null(UNIT),
        "relays": or_null(ID),
        "note": or_null(text(4096)),
    },
    "policy": {
        "method": one_of("weighed", "latest", "majority"),
        "parameters": ([{}], [None, [], "x"]),
        "parameters/reliability": ([{}], [None, [], 0.5]),
        **{f"parameters/reliability/{grade}": OPEN_UNIT for grade in ("A", "B", "C", "D", "E", "F", "unrated")},
        "parameters/certainty": ([{}], [None, [], 0.5]),
        **{f"parameters/certainty/{word}": UNIT for word in ("certain", "probable", "possible")},
        "parameters/accept": UNIT,
        "parameters/change": UNIT,
        "parameters/min_origins": ([1, 2, 10**6], [0, -1, 1.0, True, "1", None, 10**6 + 1]),
        "note": text(4096),
    },
    "erasure": {"targets": REFS, "subject": ID, "basis": text(4096)},
}
REQUIRED = {
    "assertion": ["subject", "predicate", "value", "provenance", "provenance/outlet"],
    "retraction": ["reason"],
    "identity": ["entities", "judgement"],
    "predicate": ["predicate", "cardinality"],
    "agent": ["agent"],
    "policy": [],
    "erasure": ["basis"],
}
OBJECTS = {
    "assertion": ["", "/provenance", "/provenance/document", "/provenance/evidence", "/provenance/method"],
    "retraction": ["", "/where"],
    "policy": ["", "/parameters", "/parameters/reliability", "/parameters/certainty"],
    **{kind: [""] for kind in ("identity", "predicate", "agent", "erasure")},
}


def event(kind: str, data: Any, **attributes: Any) -> Data:
    envelope = {"specversion": "1.0", "type": f"factledger.{kind}.v1", "source": "x:one@1", "id": "e1"}
    return {**envelope, **attributes, "data": data}


def put(kind: str, path: str, value: Any) -> Data:
    """The least data of a kind with one field set, and with what must give way to it taken out."""
    data = deepcopy(MINIMAL[kind])
    if path.startswith("where"):
        data.pop("targets")
        if path.endswith("_position"):
            data["where"] = {"subject": "s"}
    if kind == "erasure" and path == "targets":
        data.pop("subject")
    *parents, name = path.split("/")
    place = data
    for parent in parents:
        place = place.setdefault(parent, {})
    place[name] = value
    return data


def refused(given: Any) -> dict[str, str]:
    """Read what must be refused, and return the faults by pointer."""
    with pytest.raises(LedgerError) as refusal:
        read_event(given)
    assert (refusal.value.category, refusal.value.code) == (Category.INVALID, "invalid-event")
    assert refusal.value.errors
    return {fault.pointer: fault.detail for fault in refusal.value.errors}


def cases(which: int) -> Iterator[Any]:
    for kind, fields in FIELDS.items():
        for path, examples in fields.items():
            for n, example in enumerate(examples[which]):
                yield pytest.param(kind, path, example, id=f"{kind}-{path}-{n}")


@pytest.mark.parametrize("kind", MINIMAL)
def test_the_least_event_of_each_kind(kind: str) -> None:
    given = event(kind, MINIMAL[kind])
    draft = read_event(given)
    assert (draft.type, draft.source, draft.id) == (given["type"], given["source"], given["id"])
    assert draft.data == MINIMAL[kind]
    assert draft.data_bytes == encoding.canonical_bytes(MINIMAL[kind])
    assert {**draft.attributes, "data": draft.data} == given


@pytest.mark.parametrize(("kind", "path", "value"), list(cases(0)))
def test_a_field_takes(kind: str, path: str, value: Any) -> None:
    draft = read_event(event(kind, put(kind, path, value)))
    assert draft.data == put(kind, path, value)


@pytest.mark.parametrize(("kind", "path", "value"), list(cases(1)))
def test_a_field_refuses(kind: str, path: str, value: Any) -> None:
    assert f"/data/{path}" in refused(event(kind, put(kind, path, value)))


def deep_cases() -> Iterator[Any]:
    places: list[tuple[str, str, dict[str, list[Any]]]] = [
        ("assertion", "value", BAD_VALUES),
        ("assertion", "corrects", BAD_REFS),
        ("retraction", "targets", BAD_REFS),
        ("erasure", "targets", BAD_REFS),
        ("assertion", "provenance/speakers", {"/0": [[""], ["a b"], [1], [None]], "/1": [["a", ""]]}),
        ("identity", "entities", {"/0": [["", "a"], [1, "a"]], "/1": [["a", "a b"], ["a", None]]}),
    ]
    for kind, path, bad in places:
        for below, values in bad.items():
            for n, value in enumerate(values):
                yield pytest.param(kind, path, below, value, id=f"{kind}-{path}{below}-{n}")


@pytest.mark.parametrize(("kind", "path", "below", "value"), list(deep_cases()))
def test_a_refusal_points_below_the_field(kind: str, path: str, below: str, value: Any) -> None:
    assert f"/data/{path}{below}" in refused(event(kind, put(kind, path, value)))


def test_every_field_is_tried() -> None:
    """A field that is added to the code must be added to the table above."""

    def fields(shape: Any, prefix: str = "") -> Iterator[str]:
        for name, check in shape.fields.items():
            yield prefix + name
            if hasattr(check, "fields"):
                yield from fields(check, f"{prefix}{name}/")

    known = {kind.split(".")[1]: set(fields(shape)) for kind, shape in events._DATA.items()}
    assert known == {kind: set(paths) for kind, paths in FIELDS.items()}


@pytest.mark.parametrize(("kind", "path"), [(kind, path) for kind, paths in REQUIRED.items() for path in paths])
def test_a_required_field_must_be_there(kind: str, path: str) -> None:
    data = deepcopy(MINIMAL[kind])
    *parents, name = path.split("/")
    place = data
    for parent in parents:
        place = place[parent]
    del place[name]
    assert refused(event(kind, data)) == {f"/data/{path}": "is required"}


@pytest.mark.parametrize(
    ("kind", "path"),
    [(kind, path) for kind in FIELDS for path in FIELDS[kind] if "/" not in path and path not in REQUIRED[kind]],
)
def test_any_other_field_may_be_left_out(kind: str, path: str) -> None:
    data = deepcopy(MINIMAL[kind])
    if data.pop(path, None) is not None:  # exactly one of two
        other: dict[str, Data] = {"retraction": {"where": {"run": "r"}}, "erasure": {"targets": [0]}}
        data |= other[kind]
    read_event(event(kind, data))


@pytest.mark.parametrize(("kind", "path"), [(kind, path) for kind, paths in OBJECTS.items() for path in paths])
def test_an_unknown_field_is_refused(kind: str, path: str) -> None:
    unknown = {"x~/y": 1, "matched": {}, "x" * 100: None}
    if path == "":
        data = {**deepcopy(MINIMAL[kind]), **unknown}
    else:
        data = put(kind, path[1:], {**({"outlet": "o"} if path == "/provenance" else {}), **unknown})
    faults = refused(event(kind, data))
    assert faults.keys() >= {f"/data{path}/x~0~1y", f"/data{path}/matched", f"/data{path}/{'x' * 64}"}
    assert faults[f"/data{path}/matched"] == "is added by the ledger; leave it out"
    assert faults[f"/data{path}/x~0~1y"].startswith("is not a known field here; known: ")


# ---- Between fields ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "data", "pointer"),
    [
        ("retraction", {"reason": "other"}, "/data"),
        ("retraction", {"reason": "other", "targets": [0], "where": {"run": "r"}}, "/data"),
        ("retraction", {"reason": "other", "where": {}}, "/data/where"),
        ("retraction", {"reason": "other", "where": {"from_position": 0}}, "/data/where"),
        ("retraction", {"reason": "other", "where": {"from_position": 0, "to_position": 9}}, "/data/where"),
        ("erasure", {"basis": "b"}, "/data"),
        ("erasure", {"basis": "b", "subject": "s", "targets": [0]}, "/data"),
    ],
)
def test_fields_that_exclude_each_other(kind: str, data: Data, pointer: str) -> None:
    assert refused(event(kind, data)).keys() == {pointer}


def test_evidence_must_not_end_before_it_starts() -> None:
    for evidence in ({"start": 5, "end": 5}, {"start": 5}, {"end": 0}, {"start": 0, "end": 9}):
        read_event(event("assertion", put("assertion", "provenance/evidence", evidence)))
    backwards = put("assertion", "provenance/evidence", {"start": 5, "end": 4})
    assert refused(event("assertion", backwards)).keys() == {"/data/provenance/evidence/end"}


def test_every_fault_is_named_at_once() -> None:
    data = {"subject": "", "predicate": "P", "value": None, "provenance": {"speakers": [1, "ok", ""]}, "x": 1}
    assert refused(event("assertion", data, id="", time="now")).keys() == {
        *("/id", "/time", "/data/subject", "/data/predicate", "/data/value", "/data/x"),
        *("/data/provenance/outlet", "/data/provenance/speakers/0", "/data/provenance/speakers/2"),
    }


def test_a_refusal_names_fifty_faults_at_most() -> None:
    data = {"entities": ["a b"] * 1000, "judgement": "same"}
    with pytest.raises(LedgerError) as refusal:
        read_event(event("identity", data))
    assert len(refusal.value.errors) == 50


# ---- The envelope --------------------------------------------------------------------------------------

KEY = (["x", "doc4#17", " ", "k" * 1024, "é" * 512], ["", "k" * 1025, "é" * 513, 1, True, [], {}])
ENVELOPE: dict[str, Examples] = {
    "specversion": (["1.0"], ["", "0.3", "1", 1.0, 1, True, "1.0 "]),
    "type": (
        [],
        ["", "x", "factledger.assertion.v2", "factledger.assertion", "Factledger.Assertion.v1", 1, True, [], {}],
    ),
    "source": (ID[0], [*ID[1], 1, True, [], {}]),
    "id": KEY,
    "time": (
        ["2021-09-07T10:02:11Z", "1985-04-12t23:20:50.52z", "1996-12-19T16:39:57-08:00"],
        ["", "2021-09-07", "2021-09-07T10:02:11", "now", 1, True, "2021-02-29T00:00:00Z"],
    ),
    "datacontenttype": (
        ["application/json", "Application/JSON; charset=utf-8", "application/cloudevents+json", "text/json"],
        ["", "application/xml", "json", "text/plain", 1, True],
    ),
    "dataschema": (["https://example.org/schema"], ["", 1, True, {}]),
    "subject": (["x"], ["", 1, True]),
    "traceparent": (["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "", True, 0, 2**31 - 1, -(2**31)], []),
    "x9": ([False], [1.5, 1.0, 2**31, -(2**31) - 1, [], {}, ["x"], {"a": 1}]),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, good) for name, examples in ENVELOPE.items() for good in examples[0]]
)
def test_an_attribute_takes_and_is_kept(name: str, value: Any) -> None:
    draft = read_event(event("agent", {"agent": "a"}, **{name: value}))
    assert draft.attributes[name] == value
    assert type(draft.attributes[name]) is type(value)


@pytest.mark.parametrize(("name", "value"), [(name, bad) for name, examples in ENVELOPE.items() for bad in examples[1]])
def test_an_attribute_refuses(name: str, value: Any) -> None:
    assert f"/{name}" in refused(event("agent", {"agent": "a"}, **{name: value}))


@pytest.mark.parametrize("name", ["specversion", "type", "source", "id"])
def test_an_attribute_that_is_required_may_be_neither_missing_nor_null(name: str) -> None:
    given = event("agent", {"agent": "a"})
    assert refused({**given, name: None})[f"/{name}"] == "is required"
    del given[name]
    assert refused(given)[f"/{name}"] == "is required"


def test_an_attribute_that_is_null_is_not_there() -> None:
    draft = read_event(event("agent", {"agent": "a"}, time=None, traceparent=None, dataschema=None))
    assert draft.attributes.keys() == {"specversion", "type", "source", "id"}


@pytest.mark.parametrize("name", ["Trace", "trace_parent", "trace-parent", "é", "", "a" * 65, "a b", "a/b", "~"])
def test_names_that_are_no_attribute_names_are_refused(name: str) -> None:
    (pointer,) = refused(event("agent", {"agent": "a"}, **{name: "x"}))
    assert pointer == "/" + name[:64].replace("~", "~0").replace("/", "~1")


@pytest.mark.parametrize(
    "name", ["ledger", "position", "recordedat", "recordedby", "datasha256", "datasalt", "inforce"]
)
def test_what_the_ledger_sets_is_refused(name: str) -> None:
    assert refused(event("agent", {"agent": "a"}, **{name: "x"})) == {f"/{name}": "is set by the ledger; leave it out"}


def test_content_must_be_json() -> None:
    given = event("agent", {"agent": "a"}, data_base64="e30=")
    assert refused(given).keys() == {"/data_base64"}
    assert refused(event("agent", None)) == {"/data": "is required"}
    without = event("agent", None)
    del without["data"]
    assert refused(without) == {"/data": "is required"}
    for wrong in ([], "x", 1, True, [{"agent": "a"}]):
        assert refused(event("agent", wrong)).keys() == {"/data"}


@pytest.mark.parametrize("given", [None, [], "x", 1, True, [event("agent", {"agent": "a"})]])
def test_an_event_is_an_object(given: Any) -> None:
    assert refused(given).keys() == {""}


# ---- Limits --------------------------------------------------------------------------------------------


def too_large(given: Data) -> None:
    with pytest.raises(LedgerError) as refusal:
        read_event(given)
    assert (refusal.value.category, refusal.value.code) == (Category.TOO_LARGE, "event-too-large")


def test_attributes_have_a_limit_to_the_byte() -> None:
    given = event("agent", {"agent": "a"}, fill="")
    attributes = {name: member for name, member in given.items() if name != "data"}
    given["fill"] = "x" * (MAX_ATTRIBUTE_BYTES - len(encoding.canonical_bytes(attributes)))
    read_event(given)
    too_large({**given, "fill": given["fill"] + "x"})


def test_an_event_has_a_limit_to_the_byte() -> None:
    assert MAX_EVENT_BYTES == 256 * 1024
    given = event("assertion", put("assertion", "value", ""))
    attributes = {name: member for name, member in given.items() if name != "data"}
    used = len(encoding.canonical_bytes(attributes)) + len(encoding.canonical_bytes(given["data"]))
    given["data"]["value"] = "x" * (MAX_EVENT_BYTES - used)
    read_event(given)
    given["data"]["value"] += "x"
    too_large(given)


# ---- What an event says of others ----------------------------------------------------------------------


def test_refs_name_events_by_position_or_by_source_and_id() -> None:
    given = [3, {"id": "x"}, {"source": "s", "id": "x"}, 0]
    expected = [3, ("x:one@1", "x"), ("s", "x"), 0]
    for kind, name in (("assertion", "corrects"), ("retraction", "targets"), ("erasure", "targets")):
        draft = read_event(event(kind, put(kind, name, given)))
        assert draft.refs() == expected
        assert [draft.ref_pointer(n) for n in range(4)] == [f"/data/{name}/{n}" for n in range(4)]
    assert read_event(event("agent", {"agent": "a"})).refs() == []


@pytest.mark.parametrize(
    ("given", "published", "time", "expected"),
    [
        ("2021-09-01", "2021-09-02", "2021-09-03T00:00:00Z", "2021-09-01"),
        (None, "2021-09-02", "2021-09-03T00:00:00Z", "2021-09-02"),
        (None, None, "2021-09-03T00:00:00Z", "2021-09-03"),
        (None, None, None, "2021-09-05"),
        ("2021-09-09", "2021-09-02", None, "2021-09-05"),
        (None, "2021-09-09", "2021-09-03T00:00:00Z", "2021-09-05"),
        (None, None, "2021-09-09T00:00:00Z", "2021-09-05"),
    ],
)
def test_when_an_assertion_was_said(given: Any, published: Any, time: Any, expected: str) -> None:
    data = deepcopy(MINIMAL["assertion"])
    if given:
        data["asserted_at"] = given
    if published:
        data["provenance"]["document"] = {"published_at": published}
    recorded_at = times.parse_moment("2021-09-05")
    assert events.asserted_at(data, time, recorded_at) == times.parse_moment(expected)


ids = st.sampled_from(["a", "b", "c", "d", "e"])
refs = st.one_of(st.integers(0, 9), st.fixed_dictionaries({"id": st.just("i")}))
named = st.one_of(
    st.fixed_dictionaries(
        {
            "subject": ids,
            "predicate": st.just("p"),
            "value": st.one_of(ids, ids.map(lambda found: {"entity": found}), st.just({"date": "2021"})),
            "provenance": st.fixed_dictionaries({"outlet": ids}, optional={"speakers": st.lists(ids, max_size=3)}),
        },
        optional={"corrects": st.lists(refs, min_size=1, max_size=2)},
    ).map(lambda data: event("assertion", data)),
    st.fixed_dictionaries(
        {
            "reason": st.just("other"),
            "where": st.fixed_dictionaries({"source": ids}, optional={"subject": ids, "outlet": ids}),
        }
    ).map(lambda data: event("retraction", data)),
    st.lists(ids, min_size=2, unique=True).map(
        lambda found: event("identity", {"entities": found, "judgement": "same"})
    ),
    st.fixed_dictionaries({"agent": ids}, optional={"relays": ids, "label": ids}).map(
        lambda data: event("agent", data)
    ),
)


@settings(max_examples=300)
@given(named, ids)
def test_ids_are_named_in_the_order_of_the_canonical_bytes(given: Data, source: str) -> None:
    given = {**given, "source": source}
    found = list(events.named_ids(source, given["data"]))
    assert found == list(oracle.names(given))
    body = encoding.canonical_bytes(given).decode()
    assert all(json.dumps(name) in body for name in found)


def test_every_field_that_holds_an_id_names_it() -> None:
    held = {
        "assertion": {"s", "e", "o", "a1", "a2", "x:one@1", "src"},
        "retraction": {"ws", "wo", "wx", "x:one@1"},
        "agent": {"a", "r", "x:one@1"},
        "erasure": {"s", "x:one@1"},
    }
    data: dict[str, Data] = {
        "assertion": {
            **MINIMAL["assertion"],
            "value": {"entity": "e"},
            "provenance": {"outlet": "o", "speakers": ["a1", "a2"], "document": {"title": "t"}, "method": {"run": "r"}},
            "corrects": [{"source": "src", "id": "i"}],
        },
        "retraction": {
            "reason": "other",
            "where": {"source": "ws", "outlet": "wo", "subject": "wx", "source_prefix": "x"},
        },
        "agent": {"agent": "a", "relays": "r", "label": "l"},
        "erasure": MINIMAL["erasure"],
    }
    for kind, expected in held.items():
        assert set(events.named_ids("x:one@1", data[kind])) == expected


def test_what_the_ledger_adds_can_be_told_apart() -> None:
    posted = {"reason": "other", "where": {"run": "r"}}
    matched = {"count": 1, "size": 2, "sha256": SHA}
    sealed = events.sealed_data(posted, matched)
    assert sealed == {**posted, "matched": matched}
    assert events.posted_data(sealed) == posted
    assert events.sealed_data(posted, None) == posted
    envelope = {"id": "x", "ledger": "main", "position": 1, "recordedat": "…", "recordedby": "k", "datasha256": SHA}
    assert events.posted_attributes(envelope) == {"id": "x"}


@settings(max_examples=400)
@given(
    st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-5, 5),
            st.floats(allow_nan=False, allow_infinity=False),
            st.text(max_size=4),
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(sorted({*chain(*FIELDS.values()), "id", "type", "data"})), inner, max_size=4
            ),
        ),
        max_leaves=12,
    ),
    st.sampled_from([*FIELDS, None]),
)
def test_any_json_is_read_or_refused_and_nothing_else(given: Any, kind: str | None) -> None:
    with_kind = given if kind is None else event(kind, given)
    try:
        draft = read_event(with_kind)
    except LedgerError as refusal:
        assert refusal.code in ("invalid-event", "event-too-large")
        assert all(fault.pointer == "" or fault.pointer.startswith("/") for fault in refusal.errors)
    else:
        assert draft.data == given
