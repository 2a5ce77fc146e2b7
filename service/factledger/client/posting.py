"""Posting any number of events in bounded memory: what became of each, in order, whatever the connection does.

Events go out in batches, each the body of one request. An event is sent while the next is still being made, and kept
until it is answered: what stays unanswered is sent again, the same bytes under the same id, so that it is recorded
once. The ledger takes a batch's events one by one, so good ones are kept whatever becomes of the others.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from factledger.client.errors import InvalidError, UnavailableError, stated
from factledger.client.service import Service
from factledger.core.errors import Category, Fault, LedgerError

BATCH_EVENTS = 5_000
BATCH_BYTES = 8 * 1024 * 1024
BATCH_SECONDS = 2.0  # a source that is slower than this has its results after each such while
CHUNK_BYTES = 64 * 1024
CHUNK_SECONDS = 0.1
REJECTIONS = 1_000  # that an exception holds

Postable = Mapping[str, Any] | bytes | str  # an event, or its JSON on one line
Outcome = Literal["recorded", "duplicate", "rejected"]
Complete = Callable[[Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one event.

    `index` counts what was posted from 0, blank lines too. `position` is that in the ledger, None if rejected;
    `refusal` is why, None unless rejected. `event` is what was posted, completed with its source and id.
    """

    index: int
    result: Outcome
    position: int | None
    refusal: LedgerError | None
    event: Postable = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why one event was rejected: `errors` names each place by its JSON pointer."""

    index: int
    code: str
    detail: str
    errors: tuple[Fault, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """How many events came to what, and the ledger's size after the last; None if nothing was sent."""

    recorded: int
    duplicate: int
    rejected: int
    size: int | None

    @property
    def count(self) -> int:
        """Return how many events there were."""
        return self.recorded + self.duplicate + self.rejected


class RejectedError(LedgerError):
    """Some of the posted events were rejected; all others are recorded.

    `rejections` has the first thousand, `summary` the counts.
    """

    def __init__(self, rejections: Sequence[Rejection], summary: Summary, category: Category) -> None:
        """Take what was rejected."""
        super().__init__(
            category,
            "events-rejected",
            f"{summary.rejected:,} of {summary.count:,} events were rejected; the others are recorded.",
        )
        self.rejections = tuple(rejections)
        self.summary = summary


class Posting(Iterator[Result]):
    """The results of posting, in the order of the events; iterating is what posts them.

    After the last result it raises what the source of the events raised, or else RejectedError if any event was
    rejected. `summary` is true of the results handed out so far, at any time.
    """

    def __init__(self, service: Service, path: str, events: Iterable[Postable], complete: Complete = dict) -> None:
        """Take where to post what; `complete` adds to an event, but to none that is text, what it lacks."""
        self._service, self._path = service, path
        self._source = _Source(events, complete)
        self._counts = {"recorded": 0, "duplicate": 0, "rejected": 0}
        self._size: int | None = None
        self._rejections: list[Rejection] = []
        self._only_conflicts = True
        self._results: Iterator[Result] | None = None

    def __next__(self) -> Result:
        if self._results is None:
            self._results = self._run()
        return next(self._results)

    def __del__(self) -> None:
        if self._results is None:
            warnings.warn("a posting was never iterated, so nothing was posted", ResourceWarning, stacklevel=2)

    @property
    def summary(self) -> Summary:
        """Return what became of the events whose results were handed out."""
        return Summary(**self._counts, size=self._size)

    def finish(self) -> Summary:
        """Post all that is left and return the summary.

        Raises:
            RejectedError: if any event was rejected.
        """
        for _ in self:
            pass
        return self.summary

    def _run(self) -> Iterator[Result]:
        while not self._source.exhausted:
            batch = _Batch(self._service, self._path, self._source)
            while batch.unfinished():
                self._service.trying(batch.send)
            self._size = self._size if batch.size is None else batch.size
            for sent in batch.sent:
                assert sent.result is not None
                self._count(sent.result)
                yield sent.result
        if self._source.failure is not None:
            raise self._source.failure
        if self._counts["rejected"]:
            category = Category.CONFLICT if self._only_conflicts else Category.INVALID
            raise RejectedError(self._rejections, self.summary, category)

    def _count(self, result: Result) -> None:
        self._counts[result.result] += 1
        if (refusal := result.refusal) is not None:
            self._only_conflicts &= refusal.category is Category.CONFLICT
            if len(self._rejections) < REJECTIONS:
                self._rejections.append(Rejection(result.index, refusal.code, refusal.detail, refusal.errors))


@dataclass(slots=True)
class _Sent:
    """An event on its way, and what is known of it."""

    index: int
    event: Postable
    line: bytes
    result: Result | None = None
    recorded: bool = False  # by an answer that did not count, since an earlier event had to be sent again

    def settle(self, result: Outcome, position: int | None, refusal: LedgerError | None) -> None:
        """Say what became of it, for good."""
        self.result = Result(self.index, "recorded" if self.recorded else result, position, refusal, self.event)


class _Source:
    """The events that are to be posted, one at a time, each completed and written once."""

    def __init__(self, events: Iterable[Postable], complete: Complete) -> None:
        self._events = enumerate(events)
        self._complete = complete
        self.exhausted = False
        self.failure: Exception | None = None  # why it ended, if not by itself

    def take(self) -> _Sent | None:
        """Return the next event, settled already if it cannot be sent; None at the end."""
        while not self.exhausted:
            try:
                index, event = next(self._events)
            except StopIteration:
                self.exhausted = True
            except Exception as failure:  # noqa: BLE001 - raised again once all events before it are recorded
                self.exhausted, self.failure = True, failure
            else:
                if isinstance(event, bytes | str) and not event.strip():
                    continue
                event = self._complete(event) if isinstance(event, Mapping) else event
                try:
                    return _Sent(index, event, _line(event))
                except (TypeError, ValueError) as problem:
                    unfit = _Sent(index, event, b"")
                    unfit.settle("rejected", None, _unwritable(str(problem)))
                    return unfit
        return None


class _Batch:
    """Events that go out in one request, or in several if it breaks."""

    def __init__(self, service: Service, path: str, source: _Source) -> None:
        self._service, self._path, self._source = service, path, source
        self._begun_at = time.monotonic()
        self._bytes = 0
        self.sent: list[_Sent] = []
        self.size: int | None = None  # of the ledger, as of the last answer
        self._take()

    def unfinished(self) -> bool:
        """Tell whether something is left to be sent."""
        return any(sent.result is None for sent in self.sent)

    def send(self) -> None:
        """Send what is not settled, and as much more as belongs into the batch; settle what is answered.

        Raises:
            UnavailableError: nothing was settled.
        """
        asked = [sent for sent in self.sent if sent.result is None]
        answer = bytearray()
        broken: UnavailableError | None = None
        request = {"content": self._body(asked), "headers": {"Content-Type": "application/x-ndjson"}}
        try:
            with self._service.answer("POST", self._path, **request) as response:
                for chunk in response.iter_bytes():
                    answer += chunk
        except UnavailableError as failure:
            broken = failure
        stalled = self._settle(asked, bytes(answer))
        if not asked or asked[0].result is None:
            raise broken or stalled or _broke_off()

    def _body(self, asked: list[_Sent]) -> Iterator[bytes]:
        """Yield the lines of what is asked, then of what joins it, in chunks of some size or some age."""
        chunk, begun_at = bytearray(), time.monotonic()
        for sent in asked:
            chunk += sent.line
        while self._has_room() and (taken := self._take()) is not None:
            if taken.result is None:
                asked.append(taken)
                chunk += taken.line
            if len(chunk) >= CHUNK_BYTES or time.monotonic() - begun_at >= CHUNK_SECONDS:
                yield bytes(chunk)
                chunk, begun_at = bytearray(), time.monotonic()
        yield bytes(chunk)

    def _has_room(self) -> bool:
        recent = time.monotonic() - self._begun_at < BATCH_SECONDS
        return len(self.sent) < BATCH_EVENTS and self._bytes < BATCH_BYTES and recent

    def _take(self) -> _Sent | None:
        taken = self._source.take()
        if taken is not None:
            self.sent.append(taken)
            self._bytes += len(taken.line)
        return taken

    def _settle(self, asked: list[_Sent], answer: bytes) -> LedgerError | None:
        """Settle what an answer says, up to the first event that has to be sent again; return why it has to."""
        stalled: LedgerError | None = None
        for line in answer.split(b"\n"):
            try:
                told = orjson.loads(line)
            except orjson.JSONDecodeError:
                break  # the end, or where it broke off
            if "summary" in told:
                self.size = told["summary"]["size"]
                break
            sent = asked[told["line"] - 1]
            refusal = stated(told["problem"]) if told["result"] == "rejected" else None
            if stalled is None and isinstance(refusal, UnavailableError):
                stalled = refusal
            if stalled is None:
                sent.settle(told["result"], told.get("position"), refusal)
            elif told["result"] == "recorded":
                sent.recorded = True
        return stalled


def _line(event: object) -> bytes:
    """Return an event as a line of JSON.

    Raises:
        TypeError: JSON has nothing for something in it.
        ValueError: it is more than one line.
    """
    if isinstance(event, bytes | str):
        line = (event.encode() if isinstance(event, str) else event).strip()
        if b"\n" in line:
            raise ValueError("it is more than one line")
        return line + b"\n"
    written = orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)
    if b"null" in written:
        json.dumps(
            event, allow_nan=False, default=str
        )  # orjson writes null for what is no number, which would clear a rating
    return written


def _unwritable(why: str) -> InvalidError:
    detail = f"The event cannot be written as a line of JSON: {why}."
    return InvalidError(Category.MALFORMED, "malformed-json", detail, errors=[Fault("", why)])


def _broke_off() -> UnavailableError:
    return UnavailableError(
        Category.UNAVAILABLE,
        "answer-broken",
        "The server's answer broke off; post the same events again: what is recorded is recognised.",
    )
