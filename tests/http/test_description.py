"""The API's description: it is valid OpenAPI, live answers are as it says, and nothing it allows gives a 5xx."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from jsonschema_rs import Draft202012Validator
from openapi_spec_validator import validate
from schemathesis.python import asgi
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

from factledger.core import events
from factledger.core.errors import LedgerError
from factledger.http import describing, envelopes, questions
from factledger.http.app import create_app
from factledger.ledger import Ledgers
from factledger.recording import Request
from factledger.settings import Settings
from tests import strategies
from tests.http.posting import ENTITIES, EVENTS, Event, assertion, event, post

EXAMPLES = 25  # an operation


@pytest.fixture
def description(client: TestClient) -> Event:
    answer = client.get("/v1/openapi.json")
    assert answer.status_code == 200
    described: Event = answer.json()
    return described


def validator(description: Event, shape: Mapping[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**shape, "components": description["components"]})


def test_it_is_valid_openapi(description: Event) -> None:
    validate(description)
    assert description["openapi"].startswith("3.1")


def test_every_reference_leads_somewhere(description: Event) -> None:
    shapes = description["components"]["schemas"]
    named = set(re.findall(r'"#/components/schemas/(\w+)"', orjson.dumps(description).decode()))
    assert named <= shapes.keys()
    assert shapes.keys() - named <= {"PostedData", "PostedEvent", "PostedBatch"}


def test_it_describes_every_route_and_refusals_alone_as_problems(description: Event) -> None:
    operations = [
        operation
        for path in description["paths"].values()
        for operation in path.values()
        if isinstance(operation, dict)
    ]
    assert len(operations) == 20
    assert len({operation["operationId"] for operation in operations}) == 20
    for operation in operations:
        assert operation["summary"]
        assert operation["description"]
        for status, answer in operation["responses"].items():
            kinds = set(answer.get("content", {}))
            if int(status) >= 400:
                assert kinds == {"application/problem+json"}
            else:
                assert "application/problem+json" not in kinds


# --- events: what the description says may be posted, against what is taken


def members(check: Any) -> tuple[set[str], set[str]]:
    return set(check.fields), set(check.required)


@pytest.mark.parametrize(
    ("model", "check"),
    [
        (envelopes.Assertion, events._DATA[events.ASSERTION]),
        (envelopes.Retraction, events._DATA[events.RETRACTION]),
        (envelopes.Identity, events._DATA[events.IDENTITY]),
        (envelopes.Predicate, events._DATA[events.PREDICATE]),
        (envelopes.Agent, events._DATA[events.AGENT]),
        (envelopes.Policy, events._DATA[events.POLICY]),
        (envelopes.Erasure, events._DATA[events.ERASURE]),
        (envelopes.Provenance, events._PROVENANCE),
        (envelopes.Document, events._PROVENANCE.fields["document"]),
        (envelopes.Quotation, events._PROVENANCE.fields["evidence"]),
        (envelopes.Extraction, events._PROVENANCE.fields["method"]),
        (envelopes.Where, events._WHERE),
        (envelopes.EventKey, events._REF),
    ],
)
def test_shapes_have_the_members_that_are_checked(model: Any, check: Any) -> None:
    shape = model.model_json_schema()
    assert members(check) == (set(shape["properties"]), set(shape.get("required", ())))


def test_the_types_are_those_that_are_known() -> None:
    shape = envelopes.POSTED_EVENT.json_schema()
    assert set(shape["discriminator"]["mapping"]) == set(events._DATA)
    asked = questions.EventsQuery.model_json_schema()["properties"]["type"]["anyOf"][0]["enum"]
    assert set(asked) == set(events._DATA)
    assert set(questions.BeliefQuery.model_json_schema()["properties"]["method"]["anyOf"][0]["enum"]) == set(
        events.METHODS
    )


@settings(max_examples=30)
@given(strategies.logs(8))
def test_what_is_taken_is_as_described(log: list[Event]) -> None:
    check = Draft202012Validator(envelopes.POSTED_EVENT.json_schema())
    for posted in log:
        events.read_event(posted)
        check.validate(posted)


@pytest.mark.parametrize(
    "bad",
    [
        event("1", "assertion", {**assertion("1")["data"], "subject": None}),
        assertion("1", valid=None),
        assertion("1", subjekt="x"),
        assertion("1", confidence=2),
        assertion("1", value=None),
        assertion("1", provenance={"outlet": "o", "document": {"url": "x"}}),
        event("1", "identity", {"entities": ["a"], "judgement": "same"}),
        event("1", "agent", {"agent": "a", "reliability": 1}),
        event("1", "nonsense", {}),
        {**assertion("1"), "zone": {"a": 1}},
    ],
)
def test_what_is_refused_is_not_as_described(bad: Event) -> None:
    assert not Draft202012Validator(envelopes.POSTED_EVENT.json_schema()).is_valid(bad)
    with pytest.raises(LedgerError):
        events.read_event(bad)


# --- answers


def test_live_answers_are_as_described(client: TestClient, description: Event) -> None:
    told = [
        event("p", "predicate", {"predicate": "location", "cardinality": "one"}),
        assertion("1", value={"quantity": {"amount": 1.5, "unit": "km"}}, valid="2021-09/..", certainty="probable"),
        assertion("2", value={"text": "Kabul", "lang": "en"}, asserted_at="2021-09-07", valid="2021-09-05/.."),
        assertion("3", polarity="denies", valid="2021-09-06/2021-09-20"),
        assertion("4", value=True, corrects=[1]),
        assertion("5", value="x", provenance={"outlet": "o", "document": {"uri": "u"}, "evidence": {"quote": "q"}}),
        event("r", "retraction", {"targets": [2], "reason": "source_withdrew"}),
        event("i", "identity", {"entities": ["person:a", "person:b"], "judgement": "same"}),
        event("f", "agent", {"agent": "extractor:test@1", "fidelity": 0}),
    ]
    paths = {
        "/v1/ledgers": "/v1/ledgers",
        "/v1/ledgers/main": "/v1/ledgers/{ledger}",
        f"{EVENTS}?limit=3": "/v1/ledgers/{ledger}/events",
        f"{EVENTS}/1": "/v1/ledgers/{ledger}/events/{position}",
        f"{ENTITIES}/person:a": "/v1/ledgers/{ledger}/entities/{entity}",
        f"{ENTITIES}/person:a/timeline": "/v1/ledgers/{ledger}/entities/{entity}/timeline",
        f"{ENTITIES}/person:a/timeline?predicate=location": "/v1/ledgers/{ledger}/entities/{entity}/timeline",
        f"{ENTITIES}/person:a/history?limit=2": "/v1/ledgers/{ledger}/entities/{entity}/history",
        f"{ENTITIES}/person:a/why?predicate=location": "/v1/ledgers/{ledger}/entities/{entity}/why",
        f"{ENTITIES}/person:a/why?predicate=nothing": "/v1/ledgers/{ledger}/entities/{entity}/why",
        f"{ENTITIES}/nobody": "/v1/ledgers/{ledger}/entities/{entity}",
        f"{EVENTS}?limit=0": "/v1/ledgers/{ledger}/events",
        "/": "/",
        "/livez": "/livez",
        "/readyz": "/readyz",
    }
    for posted in told:
        answer = post(client, posted)
        assert answer.status_code == 201, answer.text
        described = description["paths"]["/v1/ledgers/{ledger}/events"]["post"]["responses"]["201"]
        validator(description, described["content"]["application/json"]["schema"]).validate(answer.json())
        for path, route in paths.items():
            answer = client.get(path)
            described = description["paths"][route]["get"]["responses"][str(answer.status_code)]
            content = described["content"][answer.headers["content-type"]]
            validator(description, content["schema"]).validate(answer.json())
            assert set(described.get("headers", ())) - {"Memento-Datetime", "Link"} <= {
                name.title().replace("Etag", "ETag") for name in answer.headers
            }


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@settings(max_examples=15)
@given(strategies.logs(8))
def test_answers_to_any_log_are_as_described(client: TestClient, log: list[Event]) -> None:
    """The shapes of belief, over logs in which everything collides."""
    described = describing.complete({})
    shapes = {
        name: validator(described, describing.ref(name))
        for name in ("EntityAnswer", "TimelineAnswer", "HistoryAnswer", "WhyAnswer", "Problem")
    }
    ledger = f"l{len(client.get('/v1/ledgers').json()['ledgers'])}"
    assert client.put(f"/v1/ledgers/{ledger}").status_code == 201
    for posted in [strategies.DECLARE_PLACE, *log]:
        assert client.post(f"/v1/ledgers/{ledger}/events", json=posted).status_code in (201, 409, 422)
    for subject in strategies.SUBJECTS:
        path = f"/v1/ledgers/{ledger}/entities/{quote(subject)}"
        for view, shape in (
            ("", "EntityAnswer"),
            ("/timeline", "TimelineAnswer"),
            ("/history", "HistoryAnswer"),
            ("/why?predicate=place", "WhyAnswer"),
        ):
            answer = client.get(path + view)
            assert answer.status_code in (200, 404)
            shapes[shape if answer.status_code == 200 else "Problem"].validate(answer.json())


# --- everything that it allows, and more


def no_failure(_context: Any, answer: Any, _case: Any) -> None:
    """No 5xx, but for a size that is not there yet and what this version cannot do."""
    if answer.status_code >= 500:
        assert (answer.status_code, answer.json()["code"]) in [(503, "size-not-reached"), (501, "erasure-unavailable")]


CHECKS = [
    no_failure,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    allow_header_conformance,
]


def test_nothing_that_it_allows_gives_a_5xx(ledgers: Ledgers) -> None:
    """The cases are drawn from the description, and few are good: what is tried is mostly the refusals."""
    ledgers.get("main").append([Request([events.read_event(assertion(str(n), value=n))]) for n in range(5)])
    app = create_app(ledgers, Settings())
    tried = 0
    try:
        for found in schemathesis.openapi.from_asgi("/v1/openapi.json", app).get_all_operations():
            operation: Any = found.ok()  # type: ignore[union-attr]

            @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
            @given(operation.as_strategy())
            def run(case: Any) -> None:
                case.call_and_validate(checks=CHECKS)

            run()
            tried += 1
    finally:
        asgi.shutdown_lifespans()
    assert tried == 20
