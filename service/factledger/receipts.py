"""Receipts: a belief with the events that it rests on, held against a signed checkpoint and worked out again.

Nothing is asked of a server or a database, and nothing in a receipt is believed but the signature: events count
because the signed log has them, and what is believed because they say so. That no further event bears on the
belief is the one thing that a receipt states and cannot prove.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from factledger import answers
from factledger.answers import Json
from factledger.auditing import TROUBLE
from factledger.core import encoding, events, facts, merkle, times
from factledger.core.belief import Coordinates
from factledger.core.encoding import MAX_INTEGER
from factledger.core.entries import Entry, Target
from factledger.core.errors import Category, Fault, LedgerError
from factledger.core.evidence import STRENGTHS
from factledger.core.replay import replay
from factledger.verifier import Checkpoint, VerifierKey, verify_inclusion

TYPE = "factledger.receipt.v1"
_MEMBERS = ("type", "ledger", "verifier_key", "checkpoint", "belief", "events")
_CONTENT = ("data", "datasalt")


class _UnprovenError(Exception):
    """Something in a receipt is not as it has to be."""

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(detail)
        self.pointer, self.detail = pointer, detail


@dataclass(frozen=True, slots=True)
class Proven:
    """What a receipt has proven: that these events of a signed log make this belief."""

    ledger: str
    key: str  # whose signature the checkpoint bears, as vkey text
    checkpoint: Checkpoint
    count: int  # of events
    belief: Json  # as `why` answers

    def json(self) -> Json:
        """Return it for programs."""
        return {
            "ledger": self.ledger,
            "verified": True,
            "verifier_key": self.key,
            "size": self.checkpoint.size,
            "root": base64.b64encode(self.checkpoint.root).decode(),
            "event_count": self.count,
            "belief": self.belief,
        }


@dataclass(frozen=True, slots=True)
class _Event:
    """A proven event: its envelope, and its content if the receipt has it."""

    position: int
    envelope: Mapping[str, Any]
    data: Json | None

    @property
    def type(self) -> str:
        return str(self.envelope["type"])

    @property
    def source(self) -> str:
        return str(self.envelope["source"])

    @property
    def id(self) -> str:
        return str(self.envelope["id"])

    def content(self) -> Json:
        if self.data is None:
            raise _UnprovenError("/events", f"has not the content of the event at position {self.position}")
        return self.data

    @property
    def recorded_at(self) -> int:
        return times.parse_instant(self.envelope["recordedat"])


def verify(document: bytes, trusted: Sequence[VerifierKey] = ()) -> Proven:
    """Return what a receipt proves; without keys to trust, by the key that the receipt itself names.

    Raises:
        LedgerError: `receipt-unproven`, naming the first thing that is wrong by its pointer into the receipt.
    """
    try:
        return _verify(document, trusted)
    except _UnprovenError as wrong:
        detail = f"The receipt proves nothing: {wrong.pointer or 'it'} {wrong.detail}."
        raise LedgerError(
            Category.CORRUPT, "receipt-unproven", detail, errors=[Fault(wrong.pointer, wrong.detail)]
        ) from None


def _verify(document: bytes, trusted: Sequence[VerifierKey]) -> Proven:
    try:
        receipt = encoding.parse_json(document)
    except LedgerError as refusal:
        raise _UnprovenError("", refusal.errors[0].detail) from None
    _demand_members(receipt, "", _MEMBERS)
    if receipt["type"] != TYPE:
        raise _UnprovenError("/type", f"is not {TYPE}")
    with _guard("/verifier_key"):
        key = VerifierKey.parse(receipt["verifier_key"])
    with _guard("/checkpoint"):
        note = receipt["checkpoint"].encode()
        checkpoint = Checkpoint.open(note, [key], receipt["ledger"])
        if trusted:
            Checkpoint.open(note, trusted, receipt["ledger"])
    proven = list(_proven(receipt["events"], checkpoint))
    with _guard("/belief"):
        stated = receipt["belief"]
        at = _coordinates(stated, checkpoint, proven)
        recomputed = _recompute(stated["entity"], stated["predicate"], at, proven)
        _demand_same(stated, recomputed, "/belief")
    return Proven(checkpoint.origin, str(key), checkpoint, len(proven), recomputed)


@contextmanager
def _guard(pointer: str) -> Iterator[None]:
    """Hold whatever goes wrong within against a place in the receipt."""
    try:
        yield
    except TROUBLE as problem:
        # A ValueError of the verifier speaks for itself; others are of members that have the wrong shape.
        said = isinstance(problem, ValueError) and not isinstance(problem, UnicodeError)
        raise _UnprovenError(pointer, f"is not proven: {problem}" if said else "makes no sense") from None


def _demand_members(value: Any, pointer: str, names: Sequence[str]) -> None:
    if not isinstance(value, dict):
        raise _UnprovenError(pointer, "is not an object")
    for name in names:
        if name not in value:
            raise _UnprovenError(f"{pointer}/{name}", "is missing")
    for name in value:
        if name not in names:
            raise _UnprovenError(f"{pointer}/{facts.escape(name)}", "does not belong there")


# --- the events


def _proven(shown: Any, checkpoint: Checkpoint) -> Iterator[_Event]:
    """Yield the events, each proven to be in the log that was signed, with what its envelope commits to."""
    if not isinstance(shown, list):
        raise _UnprovenError("/events", "is not a list")
    last = -1
    for index, item in enumerate(shown):
        pointer = f"/events/{index}"
        _demand_members(item, pointer, ("event", "hashes"))
        with _guard(pointer):
            event = item["event"]
            if "inforce" in event:
                raise ValueError("a receipt does not say `inforce`")
            envelope = {name: event[name] for name in event if name not in _CONTENT}
            position = envelope["position"]
            if type(position) is not int or position <= last:
                raise ValueError("positions do not rise")
            if envelope["ledger"] != checkpoint.origin:
                raise ValueError("it is another ledger's event")
            last = position
            hashes = [_base64(given) for given in item["hashes"]]
            leaf = merkle.leaf_hash(encoding.canonical_bytes(envelope))
            verify_inclusion(leaf, position, checkpoint.size, checkpoint.root, hashes)
            data = None
            if not event.keys().isdisjoint(_CONTENT):
                data = event["data"]
                if (
                    encoding.data_sha256(_base64(event["datasalt"]), encoding.canonical_bytes(data))
                    != (envelope["datasha256"])
                ):
                    raise ValueError("the content is not what the envelope commits to")
                if not isinstance(data, dict):
                    raise ValueError("the content is no object")
            yield _Event(position, envelope, data)


def _base64(text: str) -> bytes:
    decoded = base64.b64decode(text, validate=True)
    if base64.b64encode(decoded).decode() != text:
        raise ValueError("the base64 is not in its one form")
    return decoded


@dataclass(slots=True)
class _Log:
    """The events of a receipt, found by what others name them by."""

    by_position: dict[int, Target] = field(default_factory=dict)
    by_key: dict[tuple[str, str], Target] = field(default_factory=dict)

    def add(self, event: _Event) -> Entry:
        """Return the next event as an entry; what it points at and is not in the receipt is left out."""
        posted = {**events.posted_attributes(event.envelope), "data": events.posted_data(event.content())}
        draft = events.read_event(posted)  # whoever signed a log may still have put nonsense into it
        targets = {}
        for ref in draft.refs():
            found = self.by_position.get(ref) if isinstance(ref, int) else self.by_key.get(ref)
            if found is not None:
                targets[found.position] = found
        slot = (draft.data["subject"], draft.data["predicate"]) if draft.type == events.ASSERTION else None
        target = Target(event.position, draft.type, slot)
        self.by_position[event.position] = self.by_key[draft.source, draft.id] = target
        return Entry(
            event.position,
            event.recorded_at,
            draft.type,
            draft.source,
            event.envelope.get("time"),
            event.content(),
            tuple(targets[position] for position in sorted(targets)),
        )


# --- the belief


def _coordinates(stated: Any, checkpoint: Checkpoint, proven: Sequence[_Event]) -> Coordinates:
    """Return the coordinates that a belief is stated at, within what the checkpoint covers."""
    given = stated["coordinates"]
    sizes = given["at_size"], given["identity_at_size"]
    if any(type(size) is not int or not 0 <= size <= min(checkpoint.size, MAX_INTEGER) for size in sizes):
        raise _UnprovenError("/belief/coordinates", "lie beyond the checkpoint")
    known_at, before = None, given["asserted_before"]
    if sizes[0]:
        last = next((event for event in proven if event.position == sizes[0] - 1), None)
        if last is None:
            raise _UnprovenError("/events", f"has not the event at position {sizes[0] - 1}, the last at that size")
        known_at = last.recorded_at
    if given["method"] not in events.METHODS or given["when"] not in STRENGTHS:
        raise _UnprovenError("/belief/coordinates", "name no method, or no strength")
    return Coordinates(
        checkpoint.origin,
        times.parse_instant(given["valid_at"]),
        sizes[0],
        known_at,
        None if before is None else times.parse_instant(before),
        sizes[1],
        given["method"],
        given["when"],
    )


def _recompute(entity: Any, predicate: Any, at: Coordinates, proven: Sequence[_Event]) -> Json:
    """Return what the events say, as `why` answers."""
    if not facts.is_id(entity) or not facts.is_predicate(predicate):
        raise ValueError("it names no entity, or no predicate")
    known = _Log()
    # The last event at the size may be there for its time alone.
    entries = [known.add(event) for event in proven if event.data is not None]
    found = replay(entries, entity, predicate, at)
    by_position = {event.position: event for event in proven}
    return answers.explanation(entity, found.canonical, at, found.found, by_position, found.context.policy)


def _demand_same(stated: Any, recomputed: Any, pointer: str) -> None:
    """Demand that a statement is what its events say, naming the first member that is not."""
    if isinstance(stated, dict) and isinstance(recomputed, dict):
        _demand_members(stated, pointer, list(recomputed))
        for name, member in recomputed.items():
            _demand_same(stated[name], member, f"{pointer}/{facts.escape(name)}")
    elif isinstance(stated, list | tuple) and isinstance(recomputed, list | tuple) and len(stated) == len(recomputed):
        for index, (left, right) in enumerate(zip(stated, recomputed, strict=True)):
            _demand_same(left, right, f"{pointer}/{index}")
    elif orjson.dumps(stated) != orjson.dumps(recomputed):
        raise _UnprovenError(pointer, "is not what the events say")
