"""The seven event types, and the CloudEvents envelope that carries them.

`read_event` turns a parsed JSON object into a `Draft`, or refuses it naming every fault. Only what the event
itself shows is judged here; what depends on the ledger (targets, vocabulary, conflicts) is judged at append.
Source: CloudEvents 1.0.2, sections "Required Attributes" and "Type System"; contract.md, section 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from factledger.core import encoding, facts, times
from factledger.core.errors import Category, Fault, LedgerError, invalid
from factledger.core.facts import NOTHING, Found, within, wrong

ASSERTION = "factledger.assertion.v1"
RETRACTION = "factledger.retraction.v1"
IDENTITY = "factledger.identity.v1"
PREDICATE = "factledger.predicate.v1"
AGENT = "factledger.agent.v1"
POLICY = "factledger.policy.v1"
ERASURE = "factledger.erasure.v1"

MAX_EVENT_BYTES = 256 * 1024
MAX_ATTRIBUTE_BYTES = 8 * 1024
MAX_LIST = 10_000
MAX_FAULTS = 50  # told of one event
MAX_KEY_BYTES = 1024  # keeps every index entry within what PostgreSQL can hold
MAX_URI_BYTES = 2048

LEDGER_ATTRIBUTES = ("ledger", "position", "recordedat", "recordedby", "datasha256", "datasalt", "inforce")

POLARITIES = ("affirms", "denies")
CERTAINTIES = ("certain", "probable", "possible")
REASONS = ("extractor_error", "resolver_error", "source_withdrew", "duplicate", "legal", "other")
JUDGEMENTS = ("same", "different", "unsure")
METHODS = ("weighed", "latest", "majority")
GRADES = ("A", "B", "C", "D", "E", "F")

Ref = int | tuple[str, str]  # a position, or (source, id)


@dataclass(frozen=True, slots=True)
class Draft:
    """A valid event that is not recorded yet: its producer's attributes and its canonical content."""

    type: str
    source: str
    id: str
    attributes: Mapping[str, Any]  # all but `data`, as posted
    data: Mapping[str, Any]
    data_bytes: bytes  # RFC 8785

    def refs(self) -> list[Ref]:
        """Return what the event retracts or corrects, by position or by (source, id), in the order given."""
        given = self.data.get("corrects" if self.type == ASSERTION else "targets")
        if not given:
            return []
        return [ref if isinstance(ref, int) else (ref.get("source", self.source), ref["id"]) for ref in given]

    def ref_pointer(self, index: int) -> str:
        """Return the JSON pointer of the ref at `index` of `refs()`."""
        return f"/data/{'corrects' if self.type == ASSERTION else 'targets'}/{index}"


# ---------------------------------------------------------------------------------------------------------------
# Checks of single fields. Each returns what is wrong with one value.

Check = Callable[[Any], Found]


def _id(value: Any) -> Found:
    if facts.is_id(value):
        return NOTHING
    return wrong("must be an id of 1 to 256 characters without white space or control characters")


def _predicate(value: Any) -> Found:
    return NOTHING if facts.is_predicate(value) else wrong("must match [a-z][a-z0-9_]{0,63}")


def _text(limit: int, least: int = 0) -> Check:
    length = f"{least} to {limit}" if least else f"at most {limit}"

    def check(value: Any) -> Found:
        if isinstance(value, str) and least <= len(value) <= limit:
            return NOTHING
        return wrong(f"must be a string of {length} characters")

    return check


def _one_of(*allowed: str) -> Check:
    def check(value: Any) -> Found:
        return NOTHING if isinstance(value, str) and value in allowed else wrong(f"must be one of {', '.join(allowed)}")

    return check


def _number(low: float, high: float, *, open_ended: bool = False) -> Check:
    def check(value: Any) -> Found:
        if facts.is_number(value) and (low < value < high if open_ended else low <= value <= high):
            return NOTHING
        return wrong(f"must be a number {'strictly ' if open_ended else ''}between {low} and {high}")

    return check


def _whole(low: int, high: int) -> Check:
    def check(value: Any) -> Found:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return NOTHING
        return wrong(f"must be an integer from {low} to {high}")

    return check


def _flag(value: Any) -> Found:
    return NOTHING if isinstance(value, bool) else wrong("must be true or false")


def _moment(value: Any) -> Found:
    if not isinstance(value, str):
        return wrong("must be a string: a date or an RFC 3339 date-time")
    return _parsed(times.parse_moment, value)


def _parsed(parse: Callable[[str], object], text: str) -> Found:
    try:
        parse(text)
    except ValueError as problem:
        return wrong(str(problem))
    return NOTHING


def _sha256(value: Any) -> Found:
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value):
        return NOTHING
    return wrong("must be a SHA-256 digest of 64 lower-case hexadecimal digits")


def _uri(value: Any) -> Found:
    return NOTHING if _is_short(value, MAX_URI_BYTES) else wrong(f"must be a URI of 1 to {MAX_URI_BYTES} bytes")


def _event_id(value: Any) -> Found:
    return NOTHING if _is_short(value, MAX_KEY_BYTES) else wrong(f"must be a string of 1 to {MAX_KEY_BYTES} bytes")


def _is_short(value: Any, limit: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= limit and (value.isascii() or len(value.encode()) <= limit)


def _language(value: Any) -> Found:
    return NOTHING if facts.is_language(value) else wrong("must be a language tag such as en or prs-AF")


def _list(check: Check, least: int = 0, most: int = MAX_LIST) -> Check:
    def check_list(value: Any) -> Found:
        if not isinstance(value, list) or not least <= len(value) <= most:
            return wrong(f"must be a list of {least} to {most} items")
        return [fault for index, item in enumerate(value) for fault in within(index, check(item))]

    return check_list


def _entities(value: Any) -> Found:
    found = [*_list(_id, least=2)(value)]
    if isinstance(value, list) and len({str(item) for item in value}) != len(value):
        found += wrong("must not name the same entity twice")
    return found


def _or_null(check: Check) -> Check:
    def check_or_null(value: Any) -> Found:
        return NOTHING if value is None else check(value)

    return check_or_null


def _ref(value: Any) -> Found:
    if isinstance(value, dict):
        return _REF(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return NOTHING
    return wrong('must be a position, or an object such as {"source": "extractor:x@1", "id": "doc4#17"}')


def _reliability(value: Any) -> Found:
    if value in GRADES if isinstance(value, str) else facts.is_number(value) and 0 < value < 1:
        return NOTHING
    return wrong("must be one of A to F, or a number strictly between 0 and 1")


# ---------------------------------------------------------------------------------------------------------------
# Objects: known fields with their checks; anything else is refused.


@dataclass(frozen=True, slots=True)
class _Shape:
    fields: Mapping[str, Check]
    required: tuple[str, ...] = ()

    def __call__(self, value: Any) -> Found:
        if not isinstance(value, dict):
            return wrong("must be an object")
        found = [(f"/{name}", "is required") for name in self.required if name not in value]
        for name, member in value.items():
            check = self.fields.get(name)
            if check is None:
                found += self._unknown(name)
            elif faults := check(member):
                found += within(name, faults)
        return found

    def _unknown(self, name: str) -> Found:
        if name == "matched":
            return wrong("is added by the ledger; leave it out", "/matched")
        known = ", ".join(self.fields)
        return wrong(f"is not a known field here; known: {known}", f"/{facts.escape(name)}")


_REF = _Shape({"source": _id, "id": _event_id}, ("id",))
_REFS = _list(_ref, least=1)

_PROVENANCE = _Shape(
    {
        "outlet": _id,
        "speakers": _list(_id, most=64),
        "document": _Shape(
            {
                "uri": _uri,
                "sha256": _sha256,
                "title": _text(1024),
                "published_at": _moment,
                "language": _language,
            }
        ),
        "evidence": _Shape(
            {
                "start": _whole(0, encoding.MAX_INTEGER),
                "end": _whole(0, encoding.MAX_INTEGER),
                "quote": _text(65_536),
                "sha256": _sha256,
            }
        ),
        "method": _Shape({"kind": _text(256), "model": _text(256), "run": _text(256)}),
    },
    ("outlet",),
)
_WHERE = _Shape(
    {
        "source": _id,
        "source_prefix": _text(facts.ID_LENGTH, least=1),  # every source begins with nothing
        "outlet": _id,
        "document_uri": _uri,
        "run": _text(256),
        "subject": _id,
        "predicate": _predicate,
        "from_position": _whole(0, encoding.MAX_INTEGER),
        "to_position": _whole(0, encoding.MAX_INTEGER),
    }
)
_UNIT_INTERVAL = _number(0, 1)
_PARAMETERS = _Shape(
    {
        "reliability": _Shape({name: _number(0, 1, open_ended=True) for name in (*GRADES, "unrated")}),
        "certainty": _Shape(dict.fromkeys(CERTAINTIES, _UNIT_INTERVAL)),
        "accept": _UNIT_INTERVAL,
        "change": _UNIT_INTERVAL,
        "min_origins": _whole(1, 1_000_000),
    }
)

_DATA: Mapping[str, _Shape] = {
    ASSERTION: _Shape(
        {
            "subject": _id,
            "predicate": _predicate,
            "value": facts.check_value,
            "polarity": _one_of(*POLARITIES),
            "valid": facts.check_edtf,
            "valid_text": _text(1024),
            "asserted_at": _moment,
            "certainty": _one_of(*CERTAINTIES),
            "confidence": _UNIT_INTERVAL,
            "corrects": _REFS,
            "provenance": _PROVENANCE,
        },
        ("subject", "predicate", "value", "provenance"),
    ),
    RETRACTION: _Shape(
        {"targets": _REFS, "where": _WHERE, "reason": _one_of(*REASONS), "note": _text(4096)}, ("reason",)
    ),
    IDENTITY: _Shape(
        {
            "entities": _entities,
            "judgement": _one_of(*JUDGEMENTS),
            "score": _UNIT_INTERVAL,
            "note": _text(4096),
        },
        ("entities", "judgement"),
    ),
    PREDICATE: _Shape(
        {
            "predicate": _predicate,
            "cardinality": _one_of("one", "many"),
            "value_type": _one_of(*facts.VALUE_TYPES),
            "plausible_values": _whole(1, 1_000_000_000),
            "lapse_days": _number(0, 1_000_000),
            "unit": _text(64),
            "label": _text(256),
            "description": _text(4096),
            "personal": _flag,
        },
        ("predicate", "cardinality"),
    ),
    AGENT: _Shape(
        {
            "agent": _id,
            "label": _or_null(_text(256)),
            "reliability": _or_null(_reliability),
            "fidelity": _or_null(_UNIT_INTERVAL),
            "relays": _or_null(_id),
            "note": _or_null(_text(4096)),
        },
        ("agent",),
    ),
    POLICY: _Shape({"method": _one_of(*METHODS), "parameters": _PARAMETERS, "note": _text(4096)}),
    ERASURE: _Shape({"targets": _REFS, "subject": _id, "basis": _text(4096)}, ("basis",)),
}


def _check_together(kind: str, data: Mapping[str, Any]) -> Found:
    """Return what is wrong between fields that are each right by themselves."""
    found = list[tuple[str, str]]()
    if kind == RETRACTION:
        if ("targets" in data) == ("where" in data):
            found += wrong("must have exactly one of targets and where")
        where = data.get("where")
        if isinstance(where, dict) and not where.keys() - {"from_position", "to_position"}:
            found += wrong("must give at least one criterion besides positions", "/where")
    elif kind == ERASURE and ("targets" in data) == ("subject" in data):
        found += wrong("must have exactly one of targets and subject")
    elif kind == ASSERTION:
        evidence = data["provenance"].get("evidence", {})
        if evidence.get("end", encoding.MAX_INTEGER) < evidence.get("start", 0):
            found += wrong("must not lie before start", "/provenance/evidence/end")
    return found


# ---------------------------------------------------------------------------------------------------------------
# The envelope.

_ATTRIBUTE_NAME = re.compile(r"[a-z0-9]{1,64}")
_JSON_MEDIA_TYPE = re.compile(r"(?i:[a-z]+/([a-z0-9.+-]+\+)?json)\s*(;.*)?")


def _timestamp(value: Any) -> Found:
    if not isinstance(value, str):
        return wrong("must be an RFC 3339 date-time")
    return _parsed(times.parse_instant, value)


def _media_type(value: Any) -> Found:
    if isinstance(value, str) and _JSON_MEDIA_TYPE.fullmatch(value):
        return NOTHING
    return wrong("must be a JSON media type such as application/json")


def _non_empty(value: Any) -> Found:
    return NOTHING if isinstance(value, str) and value else wrong("must be a non-empty string")


_REQUIRED = ("specversion", "type", "source", "id")
_ENVELOPE: Mapping[str, Check] = {
    "specversion": _one_of("1.0"),
    "type": _non_empty,
    "source": _id,
    "id": _event_id,
    "time": _timestamp,
    "datacontenttype": _media_type,
    "dataschema": _non_empty,
    "subject": _non_empty,
}


def _check_envelope(attributes: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = [(f"/{name}", "is required") for name in _REQUIRED if name not in attributes]
    for name, value in attributes.items():
        check = _ENVELOPE.get(name)
        if faults := _extension(name, value) if check is None else check(value):
            found += within(facts.escape(name), faults)
    kind = attributes.get("type")
    if isinstance(kind, str) and kind and kind not in _DATA:
        found += wrong(f"is not known; known: {', '.join(_DATA)}", "/type")
    return found


def _extension(name: str, value: Any) -> Found:
    """Return what is wrong with an attribute that CloudEvents leaves to its producer."""
    if name in LEDGER_ATTRIBUTES:
        return wrong("is set by the ledger; leave it out")
    if name == "data_base64":
        return wrong("is not accepted; give the content as JSON in data")
    if not _ATTRIBUTE_NAME.fullmatch(name):
        return wrong("is no attribute name: lower-case letters and digits only")
    if isinstance(value, float | dict | list) or (isinstance(value, int) and not -(2**31) <= value < 2**31):
        return wrong("must be a string, a boolean or a 32-bit integer")
    return NOTHING


def read_event(event: Any) -> Draft:
    """Return the draft of a parsed CloudEvent in structured form.

    Raises:
        LedgerError: `invalid-event`, naming every fault by its pointer; `event-too-large`.
    """
    if not isinstance(event, dict):
        raise invalid([Fault("", "must be a CloudEvent: a JSON object")])
    # CloudEvents, JSON format: an attribute that is null is one that is not there.
    attributes = {name: value for name, value in event.items() if name != "data" and value is not None}
    found = _check_envelope(attributes)
    kind, data = attributes.get("type"), event.get("data")
    shape = _DATA.get(kind) if isinstance(kind, str) else None
    if data is None:
        found += wrong("is required", "/data")
    elif shape is not None:
        found += within("data", shape(data))
        if not found:
            found += within("data", _check_together(str(kind), data))
    if found or not isinstance(data, dict):
        raise invalid([Fault(pointer, detail) for pointer, detail in found[:MAX_FAULTS]])
    data_bytes = encoding.canonical_bytes(data)
    attribute_bytes = len(encoding.canonical_bytes(attributes))
    for size, limit, what in (
        (attribute_bytes, MAX_ATTRIBUTE_BYTES, "attributes (all but data)"),
        (attribute_bytes + len(data_bytes), MAX_EVENT_BYTES, "event"),
    ):
        if size > limit:
            raise LedgerError(
                Category.TOO_LARGE,
                "event-too-large",
                f"The {what} may have at most {limit} bytes of canonical JSON.",
            )
    return Draft(attributes["type"], attributes["source"], attributes["id"], attributes, data, data_bytes)


def sealed_data(data: Mapping[str, Any], matched: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the content to be recorded: as posted, and for a `where` retraction with what it matched."""
    return data if matched is None else {**data, "matched": dict(matched)}


def posted_data(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the content as its producer posted it, without what the ledger added."""
    return {name: value for name, value in data.items() if name != "matched"}


def posted_attributes(envelope: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes as their producer posted them, without the ledger's own."""
    return {name: value for name, value in envelope.items() if name not in LEDGER_ATTRIBUTES}


def asserted_at(data: Mapping[str, Any], time: str | None, recorded_at: int) -> int:
    """Return when an assertion was said: given, published, read or recorded; never later than recorded."""
    given = data.get("asserted_at") or data["provenance"].get("document", {}).get("published_at")
    if given is not None:
        said = times.parse_moment(given)
    elif time is not None:
        said = times.parse_instant(time)
    else:
        said = recorded_at
    return min(said, recorded_at)


def named_ids(source: str, data: Mapping[str, Any]) -> list[str]:
    """Return every entity or agent id that an event names, in the order of the event's canonical bytes.

    RFC 8785 sorts members by name, so `data` comes before `source`, and within data the walk is by name.
    """
    if "provenance" in data and "corrects" not in data:
        # Nearly every event: an assertion that corrects nothing.
        provenance, value = data["provenance"], data["value"]
        found = [provenance["outlet"], *provenance.get("speakers", ()), data["subject"]]
        if type(value) is dict and "entity" in value:
            found.append(value["entity"])
    else:
        found = list(_ids_in(data))
    found.append(source)
    return found


_ID_FIELDS = ("subject", "agent", "relays", "outlet", "source", "entity")
_ID_LISTS = ("entities", "speakers")


def _ids_in(value: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(value):
        member = value[name]
        if name in _ID_FIELDS and isinstance(member, str):
            yield member
        elif name in _ID_LISTS and isinstance(member, list):
            yield from member
        elif name in ("where", "provenance", "value") and isinstance(member, dict):
            yield from _ids_in(member)
        elif name in ("targets", "corrects"):
            for ref in member:
                if isinstance(ref, dict):
                    yield from _ids_in(ref)
