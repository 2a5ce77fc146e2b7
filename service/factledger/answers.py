"""Answers: beliefs as the JSON-ready objects of the contract, the same for HTTP and the command line."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, urlencode

import orjson

from factledger.core import events, facts, times
from factledger.core.belief import Belief, Coordinates, SlotBelief, ValueBelief
from factledger.core.context import Policy
from factledger.core.errors import Category, Fault, LedgerError
from factledger.core.evidence import PLACES, STRENGTHS, Evidence
from factledger.core.timeline import Segment
from factledger.core.weighing import stance_score

if TYPE_CHECKING:  # types alone: whoever holds a belief against its receipt does without the database's library
    from factledger.comparing import Difference, Held, Survival
    from factledger.history import Change
    from factledger.previewing import Preview
    from factledger.reading import Question
    from factledger.recording import Result
    from factledger.store.log import Recorded
    from factledger.store.lookups import Slot

Json = dict[str, Any]
SHOWN = 20  # events named beside a difference, or on each side of a survival


def instant(value: int | None) -> str | None:
    """Return an instant as RFC 3339, or None where there is none or no bound."""
    return None if value is None or value in (times.BEGINNING, times.FOREVER) else times.format_instant(value)


def coordinates(pinned: Coordinates) -> Json:
    """Return the read coordinates, all resolved."""
    return {
        "valid_at": instant(pinned.valid_at),
        "at_size": pinned.size,
        "known_at": instant(pinned.known_at),
        "asserted_before": instant(pinned.asserted_before),
        "identity_at_size": pinned.identity_at_size,
        "method": pinned.method,
        "when": pinned.when,
    }


def permalink(pinned: Coordinates, path: str, extra: Mapping[str, Any] | None = None) -> str:
    """Return the question with every coordinate pinned: its answer is the same bytes for ever."""
    query = {
        **(extra or {}),
        **({} if pinned.valid_at is None else {"valid_at": times.format_instant(pinned.valid_at)}),
        "at_size": pinned.size,
        "identity_at_size": pinned.identity_at_size,
        "method": pinned.method,
        "when": pinned.when,
    }
    if pinned.asserted_before is not None:
        query["asserted_before"] = times.format_instant(pinned.asserted_before)
    return f"/v1/ledgers/{pinned.ledger}/{path}?{urlencode(query)}"


def entity_path(entity: str, view: str = "") -> str:
    """Return an entity's path below its ledger; the id is percent-encoded, colons excepted."""
    return f"entities/{quote(entity, safe=':')}{view}"


def value_json(key: str) -> Any:
    """Return the JSON value of a value's canonical key."""
    return orjson.loads(key)


def believed_slot(decided: Belief) -> Json:
    """Return a slot's belief: cardinality, status, and values, best first."""
    return {
        "cardinality": "one" if decided.single else "many",
        "status": decided.status,
        "values": [_value(value) for value in decided.values],
    }


def _value(value: ValueBelief) -> Json:
    stated = value.affirmations or value.denials
    last = max(stated)
    return {
        "value": value_json(value.value),
        "status": value.status,
        "probability": value.probability,
        "when": strength(value.strength),
        "valid": _valid(last),
        "last_asserted_at": times.format_instant(last.asserted_at),
        "support": _witnesses(value.affirmations),
        "opposition": _witnesses(value.denials),
    }


def strength(index: int | None) -> str | None:
    """Return the word for how surely a value holds at the instant; None for a denied value."""
    return None if index is None else STRENGTHS[index]


def _valid(evidence: Evidence) -> Json:
    """Return the span of the latest word on a value: what it covers, and the text that it was given as."""
    return {
        "from": instant(evidence.starts_earliest),
        "to": instant(evidence.ends_latest),
        "edtf": evidence.assertion.valid,
    }


def _witnesses(evidence: Sequence[Evidence]) -> Json:
    return {
        "assertions": len(evidence),
        "origins": len({e.voice.origin for e in evidence}),
        "outlets": len({e.voice.outlet for e in evidence}),
    }


def segment(found: Segment) -> Json:
    """Return one segment of a timeline."""
    return {
        "from": instant(found.begins),
        "to": instant(found.ends),
        "status": found.status,
        "values": [
            {"value": value_json(key), "status": status, "probability": probability, "when": strength(when)}
            for key, status, probability, when in found.values
        ],
    }


def change(found: Change, cause: Recorded) -> Json:
    """Return one change of belief: what caused it, where in valid time, and both beliefs."""
    return {
        "position": found.position,
        "recorded_at": times.format_instant(cause.recorded_at),
        "cause": {"type": cause.type, "source": cause.source, "id": cause.id},
        "predicate": found.predicate,
        "valid": {"from": instant(found.begins), "to": instant(found.ends)},
        "before": _held(found.before),
        "after": _held(found.after),
        "retroactive": found.begins < cause.recorded_at,
    }


def difference(found: Difference, recorded: Mapping[int, Recorded]) -> Json:
    """Return one difference between two states: where in valid time, both beliefs, and what may have made it.

    `cause` is the last of the `causes`, of which at most the last `SHOWN` are named.
    """
    position = found.causes[-1]
    cause = recorded[position]
    return {
        "position": position,
        "recorded_at": times.format_instant(cause.recorded_at),
        "cause": {"type": cause.type, "source": cause.source, "id": cause.id},
        "causes": found.causes[-SHOWN:],
        "cause_count": len(found.causes),
        "entity": found.entity,
        "predicate": found.predicate,
        "valid": {"from": instant(found.begins), "to": instant(found.ends)},
        "before": _held(found.before),
        "after": _held(found.after),
        "retroactive": found.begins < cause.recorded_at,
    }


def survival(found: Survival) -> Json:
    """Return one value that stands on other support; at most `SHOWN` assertions are named on each side."""
    return {
        "entity": found.entity,
        "predicate": found.predicate,
        "value": value_json(found.value),
        "status": found.status,
        "valid": {"from": instant(found.begins), "to": instant(found.ends)},
        "lost": [_witness(e) for e in found.lost[:SHOWN]],
        "lost_count": len(found.lost),
        "support": [_witness(e) for e in found.support[:SHOWN]],
        "support_count": len(found.support),
    }


def diff_link(ledger: str, question: Question, sizes: tuple[int, int], limit: int, after: Slot | None = None) -> str:
    """Return the question for a difference, pinned: the method, and who is who, are each state's own unless asked."""
    query: Json = {"from_size": sizes[0], "to_size": sizes[1], "limit": limit, "when": question.when}
    if question.valid_at is not None:
        query["valid_at"] = times.format_instant(question.valid_at)
    if question.asserted_before is not None:
        query["asserted_before"] = times.format_instant(question.asserted_before)
    if question.identity_at_size is not None:
        query["identity_at_size"] = question.identity_at_size
    if question.method is not None:
        query["method"] = question.method
    if after is not None:
        query["after"] = page(after)
    return f"/v1/ledgers/{ledger}/diff?{urlencode(query)}"


def preview(found: Preview, ledger: str, limit: int, problem: Callable[[LedgerError], Json]) -> Json:
    """Return what an append would say, and one page of what it would change; `problem` shows a refusal."""
    results: list[Json] = []
    for outcome in found.outcomes:
        if isinstance(outcome, LedgerError):
            results.append({"result": "rejected", "problem": problem(outcome)})
        else:
            results += [_would(result, found) for result in outcome.results]
    last = found.page.last
    supposed = found.supposed
    recorded = {event.position: event for event in found.recorded}
    following = last and page((supposed.size, supposed.instant, *last))
    return {
        "results": results,
        **{name: sum(r["result"] == name for r in results) for name in ("recorded", "duplicate", "rejected")},
        "size": supposed.size + len(found.recorded),
        "changes": [difference(d, recorded) for d in found.page.differences],
        "survived": [survival(s) for s in found.page.survivals],
        "next": following and f"/v1/ledgers/{ledger}/preview?{urlencode({'after': following, 'limit': limit})}",
    }


def _would(result: Result, found: Preview) -> Json:
    """Return what would happen to one event."""
    said = {"position": result.position, "source": result.source, "id": result.id}
    if not result.recorded:
        return {"result": "duplicate", **said}
    event = found.recorded[result.position - found.supposed.size]
    matched = event.content().get("matched") if event.type == events.RETRACTION else None
    return {"result": "recorded", **said, **({} if matched is None else {"matched": matched})}


def page(at: Sequence[int | str]) -> str:
    """Return where a page ended as an opaque token."""
    return base64.urlsafe_b64encode(orjson.dumps(at)).decode().rstrip("=")


def read_page(token: str, *kinds: type) -> list[Any]:
    """Return what a token was made of, given the types of its parts.

    Raises:
        LedgerError: `page-unknown`.
    """
    try:
        parts = orjson.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
    except ValueError:
        parts = None
    fits = isinstance(parts, list) and [type(part) for part in parts] == list(kinds)
    if fits and all(part >= 0 if isinstance(part, int) else facts.is_id(part) for part in parts):
        return list(parts)
    raise LedgerError(
        Category.INVALID,
        "page-unknown",
        "`after` must be as in the link to the next page.",
        errors=[Fault("/after", "is not from a link to a next page")],
    )


def _witness(e: Evidence) -> Json:
    source = e.assertion.source
    return {"position": e.position, "source": source, "outlet": e.voice.outlet, "origin": e.voice.origin}


def _held(held: Held) -> Json:
    status, values = held
    return {
        "status": status,
        "values": [
            {"value": value_json(key), "status": of_value, "probability": probability}
            for key, of_value, probability in values
        ],
    }


def policy(stated: Policy, method: str) -> Json:
    """Return the policy that a belief was weighed under."""
    return {
        "method": method,
        "parameters": {
            "reliability": dict(stated.reliability),
            "certainty": dict(stated.certainty),
            "accept": stated.accept,
            "change": stated.change,
            "min_origins": stated.min_origins,
        },
        "position": stated.position,
    }


def event(recorded: Recorded, *, in_force: bool) -> Json:
    """Return a recorded event as a CloudEvent with the ledger's extension attributes."""
    return {**sealed_event(recorded, content=True), "inforce": in_force}


def sealed_event(recorded: Recorded, *, content: bool) -> Json:
    """Return a recorded event as its proof is about it; without its content, the proof still holds."""
    revealed = {"datasalt": base64_text(recorded.salt), "data": recorded.content()} if content else {}
    return {**recorded.attributes(), **revealed}


def base64_text(raw: bytes) -> str:
    """Return bytes in standard base64."""
    return base64.b64encode(raw).decode()


def explained(believed: SlotBelief) -> set[int]:
    """Return the positions of all events that an explanation shows."""
    return {e.position for e in believed.slot.everything()} | set(believed.removed_by.values())


class Event(Protocol):
    """What an explanation shows of a recorded event."""

    @property
    def type(self) -> str:
        """Return its type."""

    @property
    def source(self) -> str:
        """Return who posted it."""

    @property
    def id(self) -> str:
        """Return by what name."""

    def content(self) -> Json:
        """Return its data."""


def explanation(
    entity: str,
    canonical: str,
    at: Coordinates,
    believed: SlotBelief,
    recorded: Mapping[int, Event],
    stated: Policy,
) -> Json:
    """Return the answer to `why`, given the events at the positions that are `explained`; `at` has a `valid_at`."""
    assert at.valid_at is not None
    return {
        "entity": entity,
        "canonical": canonical,
        "predicate": believed.predicate,
        "coordinates": coordinates(at),
        "permalink": permalink(at, entity_path(entity, "/why"), {"predicate": believed.predicate}),
        **_Explanation(believed, recorded).render(at.valid_at),
        "policy": policy(stated, at.method),
    }


class _Explanation:
    """Every piece of evidence in its role, with what it weighs and what displaced it."""

    def __init__(self, believed: SlotBelief, recorded: Mapping[int, Event]) -> None:
        self._believed, self._recorded, self._rules = believed, recorded, believed.slot.rules

    def render(self, valid_at: int) -> Json:
        """Return status, sentence, values with evidence for and against, and what does not count and why."""
        decided, slot = self._believed.belief, self._believed.slot
        return {
            "status": decided.status,
            "sentence": sentence(decided),
            "values": [
                {
                    "value": value_json(value.value),
                    "status": value.status,
                    "probability": value.probability,
                    "score": value.score,
                    "when": strength(value.strength),
                    "for": [self._evidence(e, weight) for e, weight in self._weights(value.affirmations)],
                    "against": [self._evidence(e, weight) for e, weight in self._weights(value.denials)],
                }
                for value in decided.values
            ],
            "superseded": [{**self._evidence(e), "by": self._cause(by.position)} for e, by in decided.superseded],
            "outdated": [{**self._evidence(e), "by": self._cause(by.position)} for e, by in decided.outdated],
            "not_in_force": [
                {
                    **self._evidence(e),
                    "because": self._cause(self._believed.removed_by[e.position]),
                }
                for e in slot.retracted
            ],
            "no_surety": [self._evidence(e) for e in slot.muted if e.covers(valid_at)],
        }

    def _weights(self, side: Sequence[Evidence]) -> Iterable[tuple[Evidence, float]]:
        """Yield each piece of evidence with the ln LR of the stance that it belongs to."""
        by_origin: dict[str, list[Evidence]] = {}
        for e in side:
            by_origin.setdefault(e.voice.origin, []).append(e)
        n = self._rules.wrong_values
        weights = {
            origin: stance_score(said, (), n) if said[0].affirms else stance_score((), said, n)
            for origin, said in by_origin.items()
        }
        for e in side:
            yield e, round(weights[e.voice.origin], PLACES)

    def _cause(self, position: int) -> Json:
        event = self._recorded[position]
        cause = {"position": position, "type": event.type, "source": event.source, "id": event.id}
        if event.type == events.RETRACTION:
            cause["reason"] = event.content()["reason"]
        return cause

    def _evidence(self, e: Evidence, weight: float | None = None) -> Json:
        event = self._recorded[e.position]
        data = event.content()
        provenance = data["provenance"]
        return {
            "position": e.position,
            "source": event.source,
            "id": event.id,
            "value": value_json(e.value),
            "polarity": "affirms" if e.affirms else "denies",
            "outlet": e.voice.outlet,
            "origin": e.voice.origin,
            "reliability": e.voice.reliability,
            "q": round(e.voice.surety, PLACES),
            "weight": weight,
            "valid": _valid(e),
            "asserted_at": times.format_instant(e.asserted_at),
            "certainty": data.get("certainty", "certain"),
            "confidence": data.get("confidence", 1),
            "document": provenance.get("document"),
            "quote": provenance.get("evidence", {}).get("quote"),
            "evidence": provenance.get("evidence"),
        }


_SENTENCES = {
    "accepted": "{best} is accepted (P {p}): {support}{against}.",
    "reported": "{best} is reported (P {p}): {support}, and nothing speaks against it{dropped}.",
    "contested": "It is contested: {best} (P {p}) has {support}{against}.",
    "outweighed": "What supports {best} (P {p}) is outweighed: {support}{against}.",
    "denied": "{best} is denied (P {p}) by {opposition}; nobody affirms it{dropped}.",
    "withdrawn": "Everything that was asserted about this instant has been withdrawn.",
    "unknown": "Nothing in force says anything about this instant{dropped}.",
}


def sentence(decided: Belief) -> str:
    """Return one plain sentence that says what is believed and on what it rests."""
    dropped = []
    if decided.outdated:
        dropped.append(f"{_count(len(decided.outdated), 'assertion')} outdated")
    if decided.superseded:
        dropped.append(f"{_count(len(decided.superseded), 'assertion')} superseded")
    filling = {"dropped": f" ({', '.join(dropped)})" if dropped else ""}
    if decided.values:
        best = decided.values[0]
        against = []
        if best.denials:
            against.append(f"denied by {_origins(best.denials)}")
        rivals = [v for v in decided.values[1:] if v.affirmations] if decided.single else []
        if rivals:
            against.append(f"against {_shown(rivals[0].value)} (P {rivals[0].probability:.3f})")
        if len(rivals) > 1:
            against.append(f"and {_count(len(rivals) - 1, 'other value')}")
        filling |= {
            "best": _shown(best.value),
            "p": f"{best.probability:.3f}",
            "support": _origins(best.affirmations),
            "opposition": _origins(best.denials),
            "against": (f", {', '.join(against)}" if against else "") + filling["dropped"],
        }
    return _SENTENCES[decided.status].format(**filling)


def _shown(key: str) -> str:
    value = value_json(key)
    if isinstance(value, dict):
        value = next(iter(value.values()))
        if isinstance(value, dict):
            value = f"{value['amount']} {value.get('unit', '')}".strip()
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _origins(evidence: Sequence[Evidence]) -> str:
    return _count(len({e.voice.origin for e in evidence}), "independent origin")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
