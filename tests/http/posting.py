"""Events to post, and what the service says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from httpx2 import Response
from starlette.testclient import TestClient

Event = dict[str, Any]

EVENTS = "/v1/ledgers/main/events"
ENTITIES = "/v1/ledgers/main/entities"


def event(event_id: str, kind: str, data: Event, *, source: str = "extractor:test@1", **attributes: Any) -> Event:
    """A CloudEvent in structured form."""
    return {
        "specversion": "1.0",
        "type": f"factledger.{kind}.v1",
        "source": source,
        "id": event_id,
        **attributes,
        "data": data,
    }


def assertion(event_id: str, subject: str = "person:a", predicate: str = "location", **data: Any) -> Event:
    """An assertion with its required members; `data` adds to them and replaces them."""
    content: Event = {
        "subject": subject,
        "predicate": predicate,
        "value": {"entity": "place:b"},
        "provenance": {"outlet": "outlet:c"},
        **data,
    }
    return event(event_id, "assertion", content)


def post(client: TestClient, events: Event | Sequence[Event], **options: Any) -> Response:
    """Append one event, or a batch."""
    return client.post(EVENTS, json=events, **options)


def size(client: TestClient, ledger: str = "main") -> int:
    """How many events are recorded."""
    answer = client.get(f"/v1/ledgers/{ledger}")
    assert answer.status_code == 200
    recorded: int = answer.json()["size"]
    return recorded


def problem(answer: Response, status: int, code: str) -> Event:
    """The body of an answer that must be this problem (RFC 9457), and say nothing else."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: Event = answer.json()
    assert body.keys() == {"type", "title", "status", "detail", "code", "errors"}
    assert (body["status"], body["code"], body["type"]) == (status, code, f"/problems/{code}")
    assert all(fault.keys() == {"pointer", "detail"} for fault in body["errors"])
    return body


def pointers(answer: Response) -> list[str]:
    """Where a problem says that the faults lie."""
    return [fault["pointer"] for fault in answer.json()["errors"]]
