"""Answers on the wire, as Pydantic shapes: what the API's description promises.

The ledger writes the bytes itself; nothing is validated a second time on the way out. Tests hold the two against
each other.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from factledger.http.envelopes import Document, Quotation, RecordedEvent, SealedEvent, Value

Status = Literal["accepted", "reported", "contested", "outweighed", "denied", "withdrawn", "unknown"]
ValueStatus = Literal["accepted", "reported", "contested", "outweighed", "denied"]
Strength = Literal["possible", "presumed", "definite"]
Method = Literal["weighed", "latest", "majority"]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Fault(_Answer):
    """One thing that is wrong, and where."""

    pointer: str = Field(description="JSON pointer into the body; /query/NAME, /path/NAME, /headers/NAME elsewhere.")
    detail: str


class Problem(_Answer):
    """A refusal (RFC 9457)."""

    type: str = Field(examples=["/problems/invalid-event"])
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable; the last part of `type`.", examples=["invalid-event"])
    errors: list[Fault]


class LedgerSettings(_Answer):
    """What is decided when a ledger is created."""

    strict: bool = Field(False, description="Refuse assertions with a predicate that is not declared.")


class LedgerDescription(BaseModel):
    """A ledger: how much there is, and the root over it."""

    ledger: str
    strict: bool
    created_at: str
    size: int
    recorded_at: str | None = Field(description="When the last event was recorded; null while there is none.")
    root: str = Field(description="Merkle root over all events (RFC 6962), in base64.")
    projected_size: int
    verifier_key: str | None = Field(description="Whose signature its checkpoints bear (C2SP vkey); null before any.")
    former_verifier_keys: list[str] = Field(description="Keys that signed earlier checkpoints, the latest first.")


class LedgerList(_Answer):
    """The ledgers, by name."""

    ledgers: list[LedgerDescription]
    next: str | None


class AppendResult(_Answer):
    """What happened to one event."""

    result: Literal["recorded", "duplicate"]
    position: int
    source: str
    id: str
    recorded_at: str


class AppendAnswer(_Answer):
    """What happened to a request, once it is on disk."""

    results: list[AppendResult]
    recorded: int
    duplicate: int
    size: int = Field(description="The size of the ledger after it.")
    projected: Literal[False] | None = Field(None, description="Only there if the events cannot be read yet.")


class StreamedLine(_Answer):
    """What happened to one line of a stream."""

    line: int = Field(ge=1)
    result: Literal["recorded", "duplicate", "rejected"]
    position: int | None = None
    problem: Problem | None = None


class StreamedCounts(_Answer):
    """How many lines came to what."""

    recorded: int
    duplicate: int
    rejected: int
    size: int


class StreamedSummary(_Answer):
    """The last line of the answer to a stream."""

    summary: StreamedCounts


class EventPage(_Answer):
    """A page of the log, in order."""

    events: list[RecordedEvent]
    next: str | None = Field(description="A link to the next page, of the same size of the ledger.")
    size: int


class Coordinates(_Answer):
    """The read coordinates, all resolved."""

    valid_at: str | None
    at_size: int
    known_at: str | None = Field(description="When the last of these events was recorded.")
    asserted_before: str | None
    identity_at_size: int
    method: Method
    when: Strength


class Span(_Answer):
    """A half-open span of valid time; null is no bound."""

    from_: str | None = Field(alias="from")
    to: str | None


class StatedSpan(Span):
    """A span, and the EDTF text that it was given as."""

    edtf: str | None


class Witnesses(_Answer):
    """How many speak: what counts is independent origins, not copies."""

    assertions: int
    origins: int
    outlets: int


class BelievedValue(_Answer):
    """A value, and how far it is believed."""

    value: Value
    status: ValueStatus
    probability: float
    when: Strength | None
    valid: StatedSpan
    last_asserted_at: str
    support: Witnesses
    opposition: Witnesses


class BelievedSlot(_Answer):
    """What is believed of one predicate: values, best first."""

    cardinality: Literal["one", "many"]
    status: Status
    values: list[BelievedValue]


class _BeliefAnswer(_Answer):
    entity: str
    canonical: str
    coordinates: Coordinates
    permalink: str = Field(description="The same question with everything pinned: the same bytes for ever.")


class EntityAnswer(_BeliefAnswer):
    """What is believed of an entity."""

    members: list[str] = Field(description="All ids of the entity.")
    facts: dict[str, BelievedSlot]


class PlainValue(_Answer):
    """A value and its standing."""

    value: Value
    status: ValueStatus
    probability: float


class SegmentValue(PlainValue):
    """A value and its standing over a segment."""

    when: Strength | None


class Segment(Span):
    """A maximal span over which belief is the same."""

    status: Status
    values: list[SegmentValue]


class PredicateTimeline(_Answer):
    """The timeline of one predicate."""

    predicate: str
    segments: list[Segment]


class TimelineAnswer(_BeliefAnswer):
    """Belief over valid time: `segments` if a predicate was asked for, else `timelines`."""

    predicate: str | None = None
    segments: list[Segment] | None = None
    timelines: list[PredicateTimeline] | None = None


class Cause(_Answer):
    """The event that did it."""

    type: str
    source: str
    id: str


class Held(_Answer):
    """What was or is believed."""

    status: Status
    values: list[PlainValue]


class Change(_Answer):
    """A change of belief over a span of valid time."""

    position: int
    recorded_at: str
    cause: Cause
    predicate: str
    valid: Span
    before: Held
    after: Held
    retroactive: bool = Field(description="Whether it alters what is believed of a time before it was recorded.")


class Difference(Change):
    """A difference between two states of the ledger in one slot, over a span of valid time."""

    entity: str
    causes: list[int] = Field(description="Positions of what may touch the slot; if there are many, the last ones.")
    cause_count: int


class State(_Answer):
    """A state of the ledger: its size, and when the last of its events was recorded."""

    size: int
    known_at: str | None


class DiffAnswer(_Answer):
    """The net difference in belief between two states of the ledger."""

    from_: State = Field(alias="from")
    to: State
    coordinates: Coordinates = Field(description="Of the later state.")
    permalink: str = Field(description="The same question with everything pinned: the same bytes for ever.")
    changes: list[Difference]
    next: str | None


class Witness(_Answer):
    """An assertion, and who stands behind it."""

    position: int
    source: str
    outlet: str
    origin: str


class Survival(_Answer):
    """A value that would lose support, and keep its status."""

    entity: str
    predicate: str
    value: Value
    status: ValueStatus
    valid: Span
    lost: list[Witness]
    lost_count: int
    support: list[Witness] = Field(description="What it would stand on; if that is much, the first of it.")
    support_count: int


class Matched(_Answer):
    """What a bulk retraction would match."""

    count: int
    size: int
    sha256: str


class PreviewResult(_Answer):
    """What would happen to one event."""

    result: Literal["recorded", "duplicate", "rejected"]
    position: int | None = None
    source: str | None = None
    id: str | None = None
    matched: Matched | None = None
    problem: Problem | None = None


class PreviewAnswer(_Answer):
    """What an append would say, and what it would change; nothing is recorded."""

    results: list[PreviewResult]
    recorded: int
    duplicate: int
    rejected: int
    size: int = Field(description="The size that the ledger would have.")
    changes: list[Difference]
    survived: list[Survival]
    next: str | None = Field(description="Where to post the same body for what follows.")


class HistoryAnswer(_BeliefAnswer):
    """Belief over known time: each change, and what caused it."""

    changes: list[Change]
    next: str | None


class Evidence(_Answer):
    """An assertion, and what it weighs."""

    position: int
    source: str
    id: str
    value: Value
    polarity: Literal["affirms", "denies"]
    outlet: str
    origin: str
    reliability: float
    q: float = Field(description="How surely the origin says so.")
    weight: float | None = Field(description="ln LR of the stance that it belongs to; null where it does not count.")
    valid: StatedSpan
    asserted_at: str
    certainty: Literal["certain", "probable", "possible"]
    confidence: float
    document: Document | None
    quote: str | None
    evidence: Quotation | None


class Remover(Cause):
    """The event that displaced an assertion."""

    position: int
    reason: str | None = None


class Displaced(Evidence):
    """An assertion that another displaced."""

    by: Remover


class NotInForce(Evidence):
    """An assertion that was taken back."""

    because: Remover


class ExplainedValue(SegmentValue):
    """A value with all evidence for and against it."""

    score: float
    for_: list[Evidence] = Field(alias="for")
    against: list[Evidence]


class AppliedPolicy(_Answer):
    """The policy that was applied."""

    method: Method
    parameters: dict[str, Any]
    position: int | None


class WhyAnswer(_BeliefAnswer):
    """Why a slot is believed as it is."""

    predicate: str
    status: Status
    sentence: str
    values: list[ExplainedValue]
    superseded: list[Displaced]
    outdated: list[Displaced]
    not_in_force: list[NotInForce]
    no_surety: list[Evidence]
    policy: AppliedPolicy


class ProvenEvent(_Answer):
    """An event that a belief rests on, and the proof that it is in the log."""

    event: SealedEvent
    hashes: list[str] = Field(description="From the leaf up, against the checkpoint's root (RFC 6962).")


class ReceiptAnswer(_Answer):
    """A belief, the events that it rests on, and their proofs against one checkpoint."""

    type: Literal["factledger.receipt.v1"]
    ledger: str
    verifier_key: str = Field(description="Whose signature the checkpoint bears (C2SP vkey).")
    checkpoint: str = Field(description="A signed note (C2SP tlog-checkpoint).")
    belief: WhyAnswer
    events: list[ProvenEvent] = Field(description="In order of their positions.")


class InclusionAnswer(_Answer):
    """The proof that an event is in the log (RFC 6962, section 2.1.1)."""

    position: int
    size: int
    leaf_hash: str = Field(description="In base64, as all hashes.")
    root: str = Field(description="Of the log of that size.")
    hashes: list[str] = Field(description="From the leaf up.")


class ConsistencyAnswer(_Answer):
    """The proof that the log of one size only adds to that of another (RFC 6962, section 2.1.2)."""

    from_: int = Field(alias="from")
    to: int
    from_root: str
    to_root: str
    hashes: list[str] = Field(description="From the leaves up; none from an empty log, or between equal sizes.")


class Alive(_Answer):
    """The process answers."""

    status: Literal["alive"]


class Ready(_Answer):
    """The service can do its work."""

    status: Literal["ready"]


class Root(_Answer):
    """Where to go from here."""

    service: str
    version: str
    links: dict[str, str]
