"""What a ledger answers, as frozen dataclasses; the fields are those of the HTTP interface.

Instants are RFC 3339 text in UTC, since they may lie outside the years that Python's own dates know. A value is as it
was posted: compare it with what `entity`, `date`, `text` and `quantity` return. What a newer service adds is passed
over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from factledger.client.errors import ServiceError
from factledger.core.errors import Category

if TYPE_CHECKING:
    from pydantic import ConfigDict, TypeAdapter

Status = Literal["accepted", "reported", "contested", "outweighed", "denied", "withdrawn", "unknown"]
Strength = Literal["possible", "presumed", "definite"]

_NAMED: ConfigDict = {"alias_generator": lambda name: name.removesuffix("_")}  # `from` is no name in Python
Member = TypeVar("Member")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one event; `recorded_at` is when the ledger took it, now or earlier."""

    result: Literal["recorded", "duplicate"]
    position: int
    source: str
    id: str
    recorded_at: str


@dataclass(frozen=True, slots=True)
class Receipts:
    """What became of events that were recorded together, and the ledger's size after them."""

    results: tuple[Receipt, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Coordinates:
    """The read coordinates that an answer is for, all resolved."""

    valid_at: str | None
    at_size: int
    known_at: str | None
    asserted_before: str | None
    identity_at_size: int
    method: Literal["weighed", "latest", "majority"]
    when: Strength


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open span of valid time; None is no bound."""

    __pydantic_config__: ClassVar[ConfigDict] = _NAMED

    from_: str | None
    to: str | None


@dataclass(frozen=True, slots=True)
class StatedSpan(Span):
    """A span, and the EDTF text that it was given as."""

    edtf: str | None


@dataclass(frozen=True, slots=True)
class Witnesses:
    """How many speak; what counts is independent origins."""

    assertions: int
    origins: int
    outlets: int


@dataclass(frozen=True, slots=True)
class BelievedValue:
    """A value, and how far it is believed."""

    value: Any
    status: Status
    probability: float
    when: Strength | None
    valid: StatedSpan
    last_asserted_at: str
    support: Witnesses
    opposition: Witnesses


@dataclass(frozen=True, slots=True)
class Fact:
    """What is believed of one predicate: values, best first."""

    cardinality: Literal["one", "many"]
    status: Status
    values: tuple[BelievedValue, ...]

    @property
    def best(self) -> BelievedValue | None:
        """Return the first value, None if there is none."""
        return self.values[0] if self.values else None


@dataclass(frozen=True, slots=True)
class Answer:
    """About whom, as of when, and the link that gives the same answer for ever."""

    entity: str
    canonical: str
    coordinates: Coordinates
    permalink: str


class _ByPredicate(Mapping[str, Member], Generic[Member]):
    """A mapping from predicates."""

    __slots__ = ()

    def _members(self) -> Mapping[str, Member]:
        raise NotImplementedError

    def __getitem__(self, predicate: str) -> Member:
        return self._members()[predicate]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members())

    def __len__(self) -> int:
        return len(self._members())


@dataclass(frozen=True, slots=True)
class State(Answer, _ByPredicate[Fact]):
    """What is believed of an entity: a mapping from predicates to facts. `members` are all ids of the entity."""

    members: tuple[str, ...]
    facts: Mapping[str, Fact]

    def _members(self) -> Mapping[str, Fact]:
        return self.facts


@dataclass(frozen=True, slots=True)
class StoodValue:
    """A value and its standing."""

    value: Any
    status: Status
    probability: float


@dataclass(frozen=True, slots=True)
class SegmentValue(StoodValue):
    """A value and its standing over a segment."""

    when: Strength | None


@dataclass(frozen=True, slots=True)
class Segment(Span):
    """A maximal span over which belief is the same."""

    status: Status
    values: tuple[SegmentValue, ...]


@dataclass(frozen=True, slots=True)
class Timeline(Answer):
    """Belief of one predicate over all of valid time, in order."""

    predicate: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class _PredicateTimeline:
    predicate: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Timelines(Answer, _ByPredicate[tuple[Segment, ...]]):
    """Belief over all of valid time: a mapping from predicates to segments in order."""

    timelines: tuple[_PredicateTimeline, ...]

    def _members(self) -> Mapping[str, tuple[Segment, ...]]:
        return {one.predicate: one.segments for one in self.timelines}


@dataclass(frozen=True, slots=True)
class Cause:
    """The event that did it."""

    type: str
    source: str
    id: str


@dataclass(frozen=True, slots=True)
class Held:
    """What was or is believed."""

    status: Status
    values: tuple[StoodValue, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of belief over a span of valid time.

    `retroactive` tells whether it alters what is believed of a time before it was recorded.
    """

    position: int
    recorded_at: str
    cause: Cause
    predicate: str
    valid: Span
    before: Held
    after: Held
    retroactive: bool


@dataclass(frozen=True, slots=True)
class History(Answer):
    """A page of the changes of belief, and the link to the next."""

    changes: tuple[Change, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """An assertion, and what it weighs: `q` is how surely its origin says so, `weight` the ln LR, None if none."""

    position: int
    source: str
    id: str
    value: Any
    polarity: Literal["affirms", "denies"]
    outlet: str
    origin: str
    reliability: float
    q: float
    weight: float | None
    valid: StatedSpan
    asserted_at: str
    certainty: Literal["certain", "probable", "possible"]
    confidence: float
    document: Mapping[str, Any] | None
    quote: str | None
    evidence: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Remover(Cause):
    """The event that displaced an assertion, or took it back and for which reason."""

    position: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Displaced(Evidence):
    """An assertion that another displaced."""

    by: Remover


@dataclass(frozen=True, slots=True)
class NotInForce(Evidence):
    """An assertion that was taken back."""

    because: Remover


@dataclass(frozen=True, slots=True)
class ExplainedValue(SegmentValue):
    """A value with all evidence for and against it."""

    __pydantic_config__: ClassVar[ConfigDict] = _NAMED

    score: float
    for_: tuple[Evidence, ...]
    against: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class AppliedPolicy:
    """The policy that was applied, and the position of the event that decided it; None is the default."""

    method: Literal["weighed", "latest", "majority"]
    parameters: Mapping[str, Any]
    position: int | None


@dataclass(frozen=True, slots=True)
class Explanation(Answer):
    """Why one predicate of an entity is believed as it is, in a sentence and with all evidence."""

    predicate: str
    status: Status
    sentence: str
    values: tuple[ExplainedValue, ...]
    superseded: tuple[Displaced, ...]
    outdated: tuple[Displaced, ...]
    not_in_force: tuple[NotInForce, ...]
    no_surety: tuple[Evidence, ...]
    policy: AppliedPolicy


@dataclass(frozen=True, slots=True)
class Log:
    """A page of the log, and the link to the next."""

    events: list[dict[str, Any]]
    next: str | None


@dataclass(frozen=True, slots=True)
class Sized:
    """How many events a ledger holds."""

    size: int


class Shape(Generic[Member]):
    """Reads answers of one type."""

    def __init__(self, kind: type[Member]) -> None:
        """Take the type; what reads it is built when it is first needed."""
        self._kind = kind
        self._adapter: TypeAdapter[Member] | None = None

    def read(self, body: bytes) -> Member:
        """Return the answer that a body holds.

        Raises:
            ServiceError: `answer-unreadable`, if it holds none.
        """
        from pydantic import TypeAdapter, ValidationError  # here, since a program that only posts does not need it

        if self._adapter is None:
            self._adapter = TypeAdapter(self._kind)
        try:
            return self._adapter.validate_json(body)
        except ValidationError:
            raise ServiceError(
                Category.UNAVAILABLE,
                "answer-unreadable",
                "The server's answer is not one that this client knows; is the URL that of a factledger service?",
            ) from None  # not from the cause, which would show the answer


RECEIPTS = Shape(Receipts)
STATE = Shape(State)
TIMELINE = Shape(Timeline)
TIMELINES = Shape(Timelines)
HISTORY = Shape(History)
EXPLANATION = Shape(Explanation)
LOG = Shape(Log)
EVENT = Shape(dict[str, Any])
SIZED = Shape(Sized)
