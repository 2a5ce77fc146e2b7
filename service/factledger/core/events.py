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
from factledger.core.facts import Report

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
        given = self.data.get("corrects" if self.type == ASSERTION else "targets", ())
        return [ref if isinstance(ref, int) else (ref.get("source", self.source), ref["id"]) for ref in given]

    def ref_pointer(self, index: int) -> str:
        """Return the JSON pointer of the ref at `index` of `refs()`."""
        return f"/data/{'corrects' if self.type == ASSERTION else 'targets'}/{index}"


# ---------------------------------------------------------------------------------------------------------------
# Checks of single fields. Each reports what is wrong with one value at one pointer.

Check = Callable[[Any, str, Report], None]


def _id(value: Any, pointer: str, report: Report) -> None:
    if not facts.is_id(value):
        report(pointer, "must be an id of 1 to 256 characters without white space or control characters")


def _predicate(value: Any, pointer: str, report: Report) -> None:
    if not facts.is_predicate(value):
        report(pointer, "must match [a-z][a-z0-9_]{0,63}")


def _text(limit: int) -> Check:
    def check(value: Any, pointer: str, report: Report) -> None:
        if not isinstance(value, str) or len(value) > limit:
            report(pointer, f"must be a string of at most {limit} characters")

    return check


def _one_of(*allowed: str) -> Check:
    def check(value: Any, pointer: str, report: Report) -> None:
        if value not in allowed or not isinstance(value, str):
            report(pointer, f"must be one of {', '.join(allowed)}")

    return check


def _number(low: float, high: float, *, open_ended: bool = False) -> Check:
    def check(value: Any, pointer: str, report: Report) -> None:
        inside = facts.is_number(value) and (low < value < high if open_ended else low <= value <= high)
        if not inside:
            report(pointer, f"must be a number {'strictly ' if open_ended else ''}between {low} and {high}")

    return check


def _whole(low: int, high: int) -> Check:
    def check(value: Any, pointer: str, report: Report) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            report(pointer, f"must be an integer from {low} to {high}")

    return check


def _flag(value: Any, pointer: str, report: Report) -> None:
    if not isinstance(value, bool):
        report(pointer, "must be true or false")


def _moment(value: Any, pointer: str, report: Report) -> None:
    try:
        if not isinstance(value, str):
            raise ValueError("must be a string: a date or an RFC 3339 date-time")
        times.parse_moment(value)
    except ValueError as problem:
        report(pointer, str(problem))


def _sha256(value: Any, pointer: str, report: Report) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        report(pointer, "must be a SHA-256 digest of 64 lower-case hexadecimal digits")


def _uri(value: Any, pointer: str, report: Report) -> None:
    if not isinstance(value, str) or not value or len(value.encode()) > MAX_URI_BYTES:
        report(pointer, f"must be a URI of 1 to {MAX_URI_BYTES} bytes")


def _language(value: Any, pointer: str, report: Report) -> None:
    if not facts.is_language(value):
        report(pointer, "must be a language tag such as en or prs-AF")


def _list(check: Check, least: int = 0, most: int = MAX_LIST) -> Check:
    def check_list(value: Any, pointer: str, report: Report) -> None:
        if not isinstance(value, list) or not least <= len(value) <= most:
            report(pointer, f"must be a list of {least} to {most} items")
            return
        for index, item in enumerate(value):
            check(item, f"{pointer}/{index}", report)

    return check_list


def _entities(value: Any, pointer: str, report: Report) -> None:
    _list(_id, least=2)(value, pointer, report)
    if isinstance(value, list) and len({str(item) for item in value}) != len(value):
        report(pointer, "must not name the same entity twice")


def _or_null(check: Check) -> Check:
    def check_or_null(value: Any, pointer: str, report: Report) -> None:
        if value is not None:
            check(value, pointer, report)

    return check_or_null


def _ref(value: Any, pointer: str, report: Report) -> None:
    if isinstance(value, dict):
        _REF(value, pointer, report)
    elif not isinstance(value, int) or isinstance(value, bool) or value < 0:
        report(pointer, 'must be a position, or an object such as {"source": "extractor:x@1", "id": "doc4#17"}')


def _event_id(value: Any, pointer: str, report: Report) -> None:
    if not isinstance(value, str) or not value or len(value.encode()) > MAX_KEY_BYTES:
        report(pointer, f"must be a string of 1 to {MAX_KEY_BYTES} bytes")


def _reliability(value: Any, pointer: str, report: Report) -> None:
    if value not in GRADES if isinstance(value, str) else not (facts.is_number(value) and 0 < value < 1):
        report(pointer, "must be one of A to F, or a number strictly between 0 and 1")


# ---------------------------------------------------------------------------------------------------------------
# Objects: known fields with their checks; anything else is refused.


@dataclass(frozen=True, slots=True)
class _Shape:
    fields: Mapping[str, Check]
    required: tuple[str, ...] = ()

    def __call__(self, value: Any, pointer: str, report: Report) -> None:
        if not isinstance(value, dict):
            report(pointer, "must be an object")
            return
        for name in self.required:
            if name not in value:
                report(f"{pointer}/{name}", "is required")
        for name, member in value.items():
            check = self.fields.get(name)
            if check is not None:
                check(member, f"{pointer}/{name}", report)
            elif name == "matched":
                report(f"{pointer}/matched", "is added by the ledger; leave it out")
            else:
                known = ", ".join(self.fields)
                report(f"{pointer}/{facts.escape(name)}", f"is not a known field here; known: {known}")


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
        "source_prefix": _text(facts.ID_LENGTH),
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


def _check_together(kind: str, data: Mapping[str, Any], report: Report) -> None:
    """Report what is wrong between fields that are each right by themselves."""
    if kind == RETRACTION:
        if ("targets" in data) == ("where" in data):
            report("/data", "must have exactly one of targets and where")
        where = data.get("where")
        if isinstance(where, dict) and not where.keys() - {"from_position", "to_position"}:
            report("/data/where", "must give at least one criterion besides positions")
    elif kind == ERASURE and ("targets" in data) == ("subject" in data):
        report("/data", "must have exactly one of targets and subject")
    elif kind == ASSERTION:
        evidence = data["provenance"].get("evidence", {})
        if evidence.get("end", encoding.MAX_INTEGER) < evidence.get("start", 0):
            report("/data/provenance/evidence/end", "must not lie before start")


# ---------------------------------------------------------------------------------------------------------------
# The envelope.

_ATTRIBUTE_NAME = re.compile(r"[a-z0-9]{1,64}")
_JSON_MEDIA_TYPE = re.compile(r"(?i:[a-z]+/([a-z0-9.+-]+\+)?json)\s*(;.*)?")


def _timestamp(value: Any, pointer: str, report: Report) -> None:
    try:
        if not isinstance(value, str):
            raise ValueError("must be an RFC 3339 date-time")
        times.parse_instant(value)
    except ValueError as problem:
        report(pointer, str(problem))


def _media_type(value: Any, pointer: str, report: Report) -> None:
    if not isinstance(value, str) or not _JSON_MEDIA_TYPE.fullmatch(value):
        report(pointer, "must be a JSON media type such as application/json")


def _non_empty(value: Any, pointer: str, report: Report) -> None:
    if not isinstance(value, str) or not value:
        report(pointer, "must be a non-empty string")


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


def _check_envelope(attributes: Mapping[str, Any], report: Report) -> None:
    for name in ("specversion", "type", "source", "id"):
        if name not in attributes:
            report(f"/{name}", "is required")
    for name, value in attributes.items():
        pointer = f"/{facts.escape(name)}"
        if check := _ENVELOPE.get(name):
            check(value, pointer, report)
        elif name in LEDGER_ATTRIBUTES:
            report(pointer, "is set by the ledger; leave it out")
        elif name == "data_base64":
            report(pointer, "is not accepted; give the content as JSON in data")
        elif not _ATTRIBUTE_NAME.fullmatch(name):
            report(pointer, "is no attribute name: lower-case letters and digits only")
        elif isinstance(value, float | dict | list) or (isinstance(value, int) and not -(2**31) <= value < 2**31):
            report(pointer, "must be a string, a boolean or a 32-bit integer")
    kind = attributes.get("type")
    if isinstance(kind, str) and kind and kind not in _DATA:
        report("/type", f"is not known; known: {', '.join(_DATA)}")


def read_event(event: Any) -> Draft:
    """Return the draft of a parsed CloudEvent in structured form.

    Raises:
        LedgerError: `invalid-event`, naming every fault by its pointer; `event-too-large`.
    """
    if not isinstance(event, dict):
        raise invalid([Fault("", "must be a CloudEvent: a JSON object")])
    # CloudEvents, JSON format: an attribute that is null is one that is not there.
    attributes = {name: value for name, value in event.items() if name != "data" and value is not None}
    faults: list[Fault] = []

    def report(pointer: str, detail: str) -> None:
        if len(faults) < 50:
            faults.append(Fault(pointer, detail))

    _check_envelope(attributes, report)
    kind, data = attributes.get("type"), event.get("data")
    shape = _DATA.get(kind) if isinstance(kind, str) else None
    if data is None:
        report("/data", "is required")
    elif shape is not None:
        shape(data, "/data", report)
        if not faults:
            _check_together(str(kind), data, report)
    if faults or not isinstance(data, dict):
        raise invalid(faults)
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


def named_ids(source: str, data: Mapping[str, Any]) -> Iterator[str]:
    """Yield every entity or agent id that an event names, in the order of the event's canonical bytes.

    RFC 8785 sorts members by name, so `data` comes before `source`, and within data the walk is by name.
    """
    yield from _ids_in(data)
    yield source


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
