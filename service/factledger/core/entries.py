"""Entries: recorded events as far as belief needs them, and what each adds to the inputs of belief."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from factledger.core import events, facts, times
from factledger.core.context import ContextEvent
from factledger.core.evidence import Assertion


class Target(NamedTuple):
    """What a retraction or correction points at: a position and, if it is an assertion, its slot."""

    position: int
    type: str
    slot: tuple[str, str] | None  # (subject as posted, predicate)


class Entry(NamedTuple):
    """A recorded event with its content parsed and its targets resolved: all that projecting needs."""

    position: int
    recorded_at: int
    type: str
    source: str
    time: str | None
    data: Mapping[str, Any]
    targets: tuple[Target, ...] = ()


def context_event(entry: Entry) -> ContextEvent | None:
    """Return what an event adds to the context, or None: assertions, and retractions of assertions only."""
    if entry.type == events.ASSERTION:
        return None
    beyond = tuple(target.position for target in entry.targets if target.slot is None)
    if entry.type == events.RETRACTION and not beyond and "where" not in entry.data:
        return None
    return ContextEvent(entry.position, entry.type, entry.data, beyond)


def assertion_of(entry: Entry) -> Assertion:
    """Return an assertion as the projection keeps it."""
    data, provenance = entry.data, entry.data["provenance"]
    asserted_at = events.asserted_at(data, entry.time, entry.recorded_at)
    span = times.resolve_span(data.get("valid"), asserted_at)
    speakers = provenance.get("speakers")
    return Assertion(
        entry.position,
        data.get("polarity", "affirms") == "affirms",
        facts.value_key(data["value"]),
        speakers[0] if speakers else provenance["outlet"],
        provenance["outlet"],
        entry.source,
        asserted_at,
        int(span.start_kind),
        span.starts_earliest,
        span.starts_latest,
        int(span.end_kind),
        span.ends_earliest,
        span.ends_latest,
        events.CERTAINTIES.index(data.get("certainty", "certain")),
        float(data.get("confidence", 1)),
        provenance.get("document", {}).get("uri"),
        provenance.get("method", {}).get("run"),
        data.get("valid"),
    )
