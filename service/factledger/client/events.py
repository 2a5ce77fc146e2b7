"""Makers of events and of the values in them: plain JSON objects, ready to be posted.

Nothing is sent, read or checked here. An event without `source` or `id` is given them when it is posted. What is
left out, or None, is not in the event.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from types import EllipsisType
from typing import Any, Literal, Required, TypedDict

from factledger.core import events

Event = dict[str, Any]
Value = str | int | float | bool | Mapping[str, Any]
Ref = int | str | Mapping[str, str]  # a position, an id of the same source, or what `ref` returns
Moment = str | datetime.date  # an RFC 3339 date-time, or a date; a datetime must have a time zone

Polarity = Literal["affirms", "denies"]
Certainty = Literal["certain", "probable", "possible"]
Reason = Literal["extractor_error", "resolver_error", "source_withdrew", "duplicate", "legal", "other"]
Judgement = Literal["same", "different", "unsure"]
ValueType = Literal["any", "text", "number", "boolean", "date", "entity", "quantity"]
Method = Literal["weighed", "latest", "majority"]


class Attributes(TypedDict, total=False):
    """What any event may say of itself."""

    id: str | None
    source: str | None
    time: Moment | None
    extensions: Mapping[str, str | int | bool] | None


class Assertion(Attributes, total=False):
    """What an assertion may say beside subject, predicate and value."""

    outlet: Required[str]
    speakers: str | Sequence[str] | None
    document: Mapping[str, Any] | None
    evidence: Mapping[str, Any] | None
    method: Mapping[str, Any] | None
    valid: str | None
    valid_text: str | None
    asserted_at: Moment | None
    certainty: Certainty | None
    confidence: float | None


# --- values


def entity(entity_id: str) -> dict[str, str]:
    """Return the value that is an entity."""
    return {"entity": entity_id}


def date(edtf: str) -> dict[str, str]:
    """Return the value that is a date, in EDTF."""
    return {"date": edtf}


def text(content: str, lang: str) -> dict[str, str]:
    """Return the value that is a text in a language (BCP 47). A text in no particular language is a plain string."""
    return {"text": content, "lang": lang}


def quantity(
    amount: float, unit: str | None = None, *, low: float | None = None, high: float | None = None
) -> dict[str, Any]:
    """Return the value that is an amount of a unit, between bounds if they are known."""
    return {"quantity": _given({"amount": amount, "low": low, "high": high, "unit": unit})}


def ref(event_id: str, source: str | None = None) -> dict[str, str]:
    """Return a reference to an earlier event of a source; without it, of the same source."""
    return _given({"source": source, "id": event_id})


def moment(given: Any) -> Any:
    """Return a date or datetime as RFC 3339 text, and anything else as it is."""
    return given.isoformat() if isinstance(given, datetime.date) else given


# --- events


def assertion(
    subject: str,
    predicate: str,
    value: Value,
    *,
    outlet: str,
    polarity: Polarity | None = None,
    speakers: str | Sequence[str] | None = None,
    document: Mapping[str, Any] | None = None,
    evidence: Mapping[str, Any] | None = None,
    method: Mapping[str, Any] | None = None,
    valid: str | None = None,
    valid_text: str | None = None,
    asserted_at: Moment | None = None,
    certainty: Certainty | None = None,
    confidence: float | None = None,
    corrects: Ref | Sequence[Ref] | None = None,
    id: str | None = None,  # noqa: A002 - what CloudEvents call it
    source: str | None = None,
    time: Moment | None = None,
    extensions: Mapping[str, str | int | bool] | None = None,
) -> Event:
    """Return the event that somebody said something: `outlet` published it, `speakers` is whose word it is."""
    provenance = {
        "outlet": outlet,
        "speakers": _listed(speakers),
        "document": document,
        "evidence": evidence,
        "method": method,
    }
    return _event(
        events.ASSERTION,
        {
            "subject": subject,
            "predicate": predicate,
            "value": value,
            "polarity": polarity,
            "valid": valid,
            "valid_text": valid_text,
            "asserted_at": moment(asserted_at),
            "certainty": certainty,
            "confidence": confidence,
            "corrects": None if corrects is None else _refs(_listed(corrects) or ()),
            "provenance": _given(provenance),
        },
        {"id": id, "source": source, "time": time, "extensions": extensions},
    )


def retraction(
    *targets: Ref,
    reason: Reason,
    where: Mapping[str, str | int] | None = None,
    note: str | None = None,
    id: str | None = None,  # noqa: A002
    source: str | None = None,
    time: Moment | None = None,
    extensions: Mapping[str, str | int | bool] | None = None,
) -> Event:
    """Return the event that takes back earlier events: those named, or every assertion that meets all of `where`."""
    return _event(
        events.RETRACTION,
        {"targets": _refs(targets) or None, "where": where, "reason": reason, "note": note},
        {"id": id, "source": source, "time": time, "extensions": extensions},
    )


def identity(
    *entities: str,
    judgement: Judgement,
    score: float | None = None,
    note: str | None = None,
    id: str | None = None,  # noqa: A002
    source: str | None = None,
    time: Moment | None = None,
    extensions: Mapping[str, str | int | bool] | None = None,
) -> Event:
    """Return the judgement that two or more ids name the same entity, different ones, or that it is unsure."""
    return _event(
        events.IDENTITY,
        {"entities": list(entities), "judgement": judgement, "score": score, "note": note},
        {"id": id, "source": source, "time": time, "extensions": extensions},
    )


def predicate(
    name: str,
    cardinality: Literal["one", "many"],
    *,
    value_type: ValueType | None = None,
    plausible_values: int | None = None,
    lapse_days: float | None = None,
    unit: str | None = None,
    label: str | None = None,
    description: str | None = None,
    personal: bool | None = None,
    id: str | None = None,  # noqa: A002
    source: str | None = None,
    time: Moment | None = None,
    extensions: Mapping[str, str | int | bool] | None = None,
) -> Event:
    """Return the declaration of a predicate: whether it has one value at a time or many, and of which type."""
    return _event(
        events.PREDICATE,
        {
            "predicate": name,
            "cardinality": cardinality,
            "value_type": value_type,
            "plausible_values": plausible_values,
            "lapse_days": lapse_days,
            "unit": unit,
            "label": label,
            "description": description,
            "personal": personal,
        },
        {"id": id, "source": source, "time": time, "extensions": extensions},
    )


def agent(
    agent_id: str,
    *,
    label: str | EllipsisType | None = ...,
    reliability: str | float | EllipsisType | None = ...,
    fidelity: float | EllipsisType | None = ...,
    relays: str | EllipsisType | None = ...,
    note: str | EllipsisType | None = ...,
    id: str | None = None,  # noqa: A002
    source: str | None = None,
    time: Moment | None = None,
    extensions: Mapping[str, str | int | bool] | None = None,
) -> Event:
    """Return the rating of an agent. What is left out stays as it was; None clears it."""
    rated = {"label": label, "reliability": reliability, "fidelity": fidelity, "relays": relays, "note": note}
    made = _event(
        events.AGENT, {"agent": agent_id}, {"id": id, "source": source, "time": time, "extensions": extensions}
    )
    made["data"] |= {name: member for name, member in rated.items() if member is not ...}
    return made


def policy(
    method: Method | None = None,
    *,
    parameters: Mapping[str, Any] | None = None,
    note: str | None = None,
    id: str | None = None,  # noqa: A002
    source: str | None = None,
    time: Moment | None = None,
    extensions: Mapping[str, str | int | bool] | None = None,
) -> Event:
    """Return the event that decides how the ledger weighs from here on."""
    return _event(
        events.POLICY,
        {"method": method, "parameters": parameters, "note": note},
        {"id": id, "source": source, "time": time, "extensions": extensions},
    )


def _event(kind: str, data: Mapping[str, Any], attributes: Attributes) -> Event:
    own = {
        "specversion": "1.0",
        "type": kind,
        "source": attributes.get("source"),
        "id": attributes.get("id"),
        "time": moment(attributes.get("time")),
    }
    return {**(attributes.get("extensions") or {}), **_given(own), "data": _given(data)}


def _given(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: member for name, member in members.items() if member is not None}


def _listed(given: Any) -> list[Any] | None:
    """Return what was given as a list; one item by itself is a list of one."""
    if given is None:
        return None
    return [given] if isinstance(given, str | int | Mapping) else list(given)


def _refs(given: Sequence[Ref]) -> list[int | Mapping[str, str]]:
    return [{"id": one} if isinstance(one, str) else one for one in given]
