"""Published vectors: CloudEvents' conformance events and batches, and the test data of RFC 8785.

Both under the Apache License 2.0, beside the vectors: cloudevents/conformance (LICENSE) and
cyberphone/json-canonicalization (LICENSE.jcs).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from factledger.core.encoding import canonical_bytes, parse_json
from factledger.core.errors import LedgerError
from factledger.core.events import ASSERTION, read_event

VECTORS = Path(__file__).parent / "vectors"
CLOUDEVENTS: dict[str, dict[str, Any]] = json.loads((VECTORS / "cloudevents.json").read_text(encoding="utf-8"))
CANONICAL: dict[str, dict[str, str]] = json.loads((VECTORS / "jcs.json").read_text(encoding="utf-8"))

# What the ledger asks beyond CloudEvents: one of its own types, with content of that type, in JSON.
OURS = ("/type", "/data", "/datacontenttype")
CONTENT = {"subject": "e:1", "predicate": "p", "value": 1, "provenance": {"outlet": "o:1"}}


def as_assertion(event: Any) -> Any:
    """The event with our type and content, and its envelope otherwise as it is."""
    if not isinstance(event, dict):
        return event
    kind = {"type": ASSERTION} if event.get("type") == "io.cloudevents.test" else {}
    json_content = {"datacontenttype": "application/json"} if event.get("datacontenttype") == "text/plain" else {}
    return {**event, **kind, **json_content, "data": CONTENT}


def faults(event: Any) -> list[str]:
    with pytest.raises(LedgerError) as refused:
        read_event(event)
    return [fault.pointer for fault in refused.value.errors]


@pytest.mark.parametrize("name", CLOUDEVENTS["valid-events"])
def test_a_valid_envelope_is_taken(name: str) -> None:
    event = CLOUDEVENTS["valid-events"][name]
    assert set(faults(event)) <= set(OURS)
    draft = read_event(parse_json(json.dumps(as_assertion(event)).encode()))
    kept = {key: value for key, value in as_assertion(event).items() if key != "data" and value is not None}
    assert draft.attributes == kept


@pytest.mark.parametrize("name", CLOUDEVENTS["invalid-events"])
def test_an_invalid_envelope_is_refused_for_what_is_wrong_with_it(name: str) -> None:
    found = faults(as_assertion(CLOUDEVENTS["invalid-events"][name]))
    assert found
    assert "/data" not in found


@pytest.mark.parametrize("name", CLOUDEVENTS["valid-batches"])
def test_every_event_of_a_valid_batch_is_taken(name: str) -> None:
    for event in CLOUDEVENTS["valid-batches"][name]:
        read_event(as_assertion(event))


@pytest.mark.parametrize("name", CLOUDEVENTS["invalid-batches"])
def test_an_invalid_batch_has_an_event_that_is_refused(name: str) -> None:
    def is_taken(event: Any) -> bool:
        try:
            read_event(as_assertion(event))
        except LedgerError:
            return False
        return True

    assert not all(map(is_taken, CLOUDEVENTS["invalid-batches"][name]))


@pytest.mark.parametrize("name", CANONICAL)
def test_canonical_bytes_are_those_of_rfc_8785(name: str) -> None:
    vector = CANONICAL[name]
    assert canonical_bytes(parse_json(vector["input"].encode())).hex() == vector["outhex"]
