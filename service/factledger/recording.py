"""Recording: what an append must satisfy, and the one transaction that makes it so.

Many requests share a transaction (group commit). Each is all or nothing and is judged on the state that the
accepted ones before it leave; a refused one leaves no trace and does not disturb the others.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from factledger.core import encoding, events, facts, times
from factledger.core.context import Context, ContextEvent, ContextLog, Posted, Vocabulary, Where
from factledger.core.entries import Entry, Target, context_event
from factledger.core.errors import Category, Fault, LedgerError, invalid
from factledger.core.events import Draft
from factledger.store import log
from factledger.store.engines import Connection
from factledger.store.lookups import Lookups
from factledger.store.projections import Known, Projection, target_of

MAX_BATCH = 10_000


@dataclass(frozen=True, slots=True)
class Tally:
    """What a bulk retraction's criteria match of the first `size` events: how many, and the digest of which.

    The digest is SHA-256 over the matched positions, rising, each as 8 bytes, big-endian.
    """

    size: int
    count: int
    digest: Any  # of hashlib; never changed, only copied

    def extended(self, positions: Sequence[int], size: int) -> Tally:
        """Return the tally of more events, of which these match."""
        digest = self.digest.copy()
        digest.update(struct.pack(f">{len(positions)}Q", *positions))
        return Tally(size, self.count + len(positions), digest)


NO_EVENTS = Tally(0, 0, hashlib.sha256())


def tally(lookups: Lookups, criteria: Mapping[str, Any], size: int, begun: Tally = NO_EVENTS) -> Tally:
    """Return the tally of the first `size` events, going on from one of fewer; in time with how many match."""
    for positions in lookups.matching(criteria, begun.size, size):
        begun = begun.extended(positions, positions[-1] + 1)
    return begun.extended((), size)


def tallied(request: Request, lookups: Lookups, size: int) -> Request:
    """Return a request with what its bulk retractions match of the first `size` events.

    Worked out beforehand, and not while the ledger is locked, it holds up nobody however much it is.
    """
    criteria = {index: draft.data["where"] for index, draft in enumerate(request.drafts) if "where" in draft.data}
    return replace(request, tallies={index: tally(lookups, where, size) for index, where in criteria.items()})


@dataclass(frozen=True, slots=True)
class Request:
    """One append: events that are recorded together or not at all, and by whom."""

    drafts: Sequence[Draft]
    recorded_by: str = "anonymous"
    if_size: int | None = None  # record only if the ledger is at this size
    pointers: bool = False  # name the event's index in refusals: the request was a batch
    tallies: Mapping[int, Tally] = field(default_factory=dict)  # by index: what a bulk retraction matched so far


class Result(NamedTuple):
    """What happened to one event: recorded now, or there already."""

    recorded: bool
    position: int
    source: str
    id: str
    recorded_at: int


class Receipt(NamedTuple):
    """What happened to one request, and the ledger's size after it."""

    results: list[Result]
    size: int


@dataclass(slots=True)
class Sources:
    """What recording needs from outside: the clock (microseconds) and 32 random bytes an event."""

    now: Callable[[], int]
    salt: Callable[[], bytes]


class _Mark(NamedTuple):
    size: int
    recorded_at: int
    recorded: int
    context: int


@dataclass(slots=True)
class _Staged:
    """What is accepted so far in the transaction, over what is stored."""

    size: int
    recorded_at: int
    recorded: list[log.Recorded] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    by_key: dict[tuple[str, str], log.Recorded] = field(default_factory=dict)
    context: list[ContextEvent] = field(default_factory=list)

    def mark(self) -> _Mark:
        """Return where this stands now, to come back to."""
        return _Mark(self.size, self.recorded_at, len(self.recorded), len(self.context))

    def undo(self, mark: _Mark) -> None:
        """Forget everything staged since the mark."""
        for event in self.recorded[mark.recorded :]:
            del self.by_key[event.source, event.id]
        del self.recorded[mark.recorded :], self.entries[mark.recorded :], self.context[mark.context :]
        self.size, self.recorded_at = mark.size, mark.recorded_at


class Recorder:
    """Records requests on one ledger within the caller's write transaction."""

    def __init__(
        self,
        connection: Connection,
        head: log.Head,
        contexts: ContextLog,
        sources: Sources,
        known: Known | None = None,
    ) -> None:
        """Take the head, locked if anything is to be stored; `contexts` is brought up to its size."""
        self._connection, self._head, self._contexts, self._sources = connection, head, contexts, sources
        self._projection = Projection(head.ledger_id, head.generation, known)
        self._lookups = Lookups(connection, head.ledger_id, head.generation)
        self._lookups.extend_context(contexts, head.size)
        self._staged = _Staged(head.size, head.recorded_at)
        self._stored: dict[tuple[str, str], log.Recorded] = {}
        self._targets: dict[int, log.Recorded] = {}
        self._staged_context: Context | None = None  # as of _context_count staged context events
        self._context_count = 0
        self._staged_assertions: list[Posted] = []  # as far as a bulk retraction has looked
        self._declared: dict[str, Vocabulary] = {}  # by predicate, at the staged size

    def record(self, requests: Sequence[Request]) -> list[Receipt | LedgerError]:
        """Judge every request, store the accepted ones, and return what happened to each."""
        outcomes = self.judge(requests)
        staged = self._staged
        if staged.recorded:
            log.append(self._connection, self._head, staged.recorded)
            self._projection.apply(self._connection, staged.entries)
        return outcomes

    def judge(self, requests: Sequence[Request]) -> list[Receipt | LedgerError]:
        """Return what would happen to each request; nothing is stored."""
        self._look_up(requests)
        outcomes: list[Receipt | LedgerError] = []
        for request in requests:
            try:
                outcomes.append(self._accept(request))
            except LedgerError as refusal:
                outcomes.append(refusal)
        return outcomes

    def committed(self) -> None:
        """Take note that the transaction is on disk."""
        self._projection.committed()
        if not self._staged.context:
            with self._contexts.lock:
                if self._contexts.size == self._head.size:  # so the next append need not look for what is not there
                    self._contexts.extend(self._staged.size, (), {})

    @property
    def recorded(self) -> Sequence[log.Recorded]:
        """Return the events that the requests judged so far would add, in order, as they would be stored."""
        return self._staged.recorded

    @property
    def entries(self) -> Sequence[Entry]:
        """Return the same events as projecting needs them."""
        return self._staged.entries

    def _look_up(self, requests: Sequence[Request]) -> None:
        """Fetch what the requests may repeat or point at, set by set."""
        keys: set[tuple[str, str]] = set()
        positions: set[int] = set()
        for request in requests:
            for draft in request.drafts:
                keys.add((draft.source, draft.id))
                for ref in draft.refs():
                    if isinstance(ref, int):
                        positions.add(ref)
                    else:
                        keys.add(ref)
        known = log.by_keys(self._connection, self._head.ledger_id, keys)
        self._stored = {key: event for key, event in known.items() if event.position < self._head.size}
        within = [position for position in positions if position < self._head.size]
        self._targets = log.at_positions(self._connection, self._head.ledger_id, within)

    def _accept(self, request: Request) -> Receipt:
        before = self._staged
        if request.if_size is not None and request.if_size != before.size:
            raise LedgerError(
                Category.PRECONDITION,
                "size-changed",
                f"The ledger is at size {before.size}, not at the size that If-Match names.",
            )
        if len(request.drafts) > MAX_BATCH:
            raise batch_too_large()
        mark = before.mark()
        try:
            results = [self._accept_one(draft, request, mark, index) for index, draft in enumerate(request.drafts)]
            self._check_context(mark, pointers=request.pointers)
        except LedgerError:
            declared = len(before.context) > mark.context
            before.undo(mark)
            self._staged_assertions.clear()
            if declared:
                self._restart_context()
            raise
        return Receipt(results, before.size)

    def _accept_one(self, draft: Draft, request: Request, mark: _Mark, index: int) -> Result:
        try:
            return self._stage(draft, request.recorded_by, mark, request.tallies.get(index, NO_EVENTS))
        except LedgerError as refusal:
            if request.pointers:
                raise refusal.at(f"/{index}") from None
            raise

    def _stage(self, draft: Draft, recorded_by: str, mark: _Mark, begun: Tally) -> Result:
        staged = self._staged
        key = (draft.source, draft.id)
        known = staged.by_key.get(key) or self._stored.get(key)
        if known is not None:
            if not _same_content(draft, known):
                raise _id_reused(known.position if known.position < mark.size else None)
            return Result(False, known.position, draft.source, draft.id, known.recorded_at)
        if draft.type == events.ERASURE:
            raise LedgerError(
                Category.NOT_IMPLEMENTED,
                "erasure-unavailable",
                "This version cannot erase yet; nothing was recorded.",
            )
        targets = self._resolve_targets(draft)
        if draft.type == events.ASSERTION:
            self._check_vocabulary(draft)
        data, data_bytes = draft.data, draft.data_bytes
        if "where" in data:
            data = events.sealed_data(data, self._match(data["where"], begun))
            data_bytes = encoding.canonical_bytes(data)
        recorded_at = max(self._sources.now(), staged.recorded_at + 1)
        event = log.seal(
            draft,
            data_bytes,
            ledger_id=self._head.ledger_id,
            position=staged.size,
            recorded_at=recorded_at,
            recorded_at_text=times.format_instant(recorded_at),
            recorded_by=recorded_by,
            salt=self._sources.salt(),
        )
        entry = Entry(staged.size, recorded_at, draft.type, draft.source, draft.attributes.get("time"), data, targets)
        staged.recorded.append(event)
        staged.entries.append(entry)
        staged.by_key[key] = event
        if (added := context_event(entry)) is not None:
            self._note_context(added, targets)
        staged.size += 1
        staged.recorded_at = recorded_at
        return Result(True, event.position, draft.source, draft.id, recorded_at)

    def _resolve_targets(self, draft: Draft) -> tuple[Target, ...]:
        """Return what the event points at: all of it recorded earlier, and of a kind that can be taken back."""
        refs = draft.refs()
        if not refs:
            return ()
        targets: dict[int, Target] = {}
        faults: list[Fault] = []
        for index, ref in enumerate(refs):
            event = self._find(ref)
            if event is None:
                faults.append(Fault(draft.ref_pointer(index), "names no event that is recorded earlier in this ledger"))
            elif draft.type == events.ASSERTION and event.type != events.ASSERTION:
                faults.append(Fault(draft.ref_pointer(index), "is no assertion; only assertions can be corrected"))
            elif event.type == events.ERASURE:
                faults.append(Fault(draft.ref_pointer(index), "is an erasure, which cannot be taken back"))
            else:
                targets[event.position] = target_of(event)
        if faults:
            raise invalid(faults)
        return tuple(targets[position] for position in sorted(targets))

    def _find(self, ref: events.Ref) -> log.Recorded | None:
        staged = self._staged
        if not isinstance(ref, int):
            return staged.by_key.get(ref) or self._stored.get(ref)
        if ref >= self._head.size:
            index = ref - self._head.size
            return staged.recorded[index] if index < len(staged.recorded) else None
        return self._targets.get(ref)

    def _check_vocabulary(self, draft: Draft) -> None:
        """Refuse an undeclared predicate on a strict ledger, and a value of another type than declared."""
        predicate = draft.data["predicate"]
        vocabulary = self._vocabulary(predicate)
        if self._head.strict and vocabulary.position is None:
            detail = "is not declared; this ledger is strict: record a factledger.predicate.v1 event first"
            raise invalid([Fault("/data/predicate", detail)])
        if vocabulary.value_type != "any":
            given = facts.value_type(draft.data["value"])
            if given != vocabulary.value_type:
                detail = (
                    f"is of type {given}; the vocabulary declares this predicate's values as {vocabulary.value_type}"
                )
                raise invalid([Fault("/data/value", detail)])

    def _vocabulary(self, predicate: str) -> Vocabulary:
        """Return what is declared about a predicate at the staged size."""
        known = self._declared.get(predicate)
        if known is None:
            context = self._staged_context or self._contexts.at(self._head.size)
            known = self._declared[predicate] = context.vocabulary(predicate)
        return known

    def _note_context(self, added: ContextEvent, targets: Sequence[Target]) -> None:
        """Keep up with what a staged event declares, or takes back."""
        self._staged.context.append(added)
        if added.type == events.PREDICATE:
            self._declared[added.data["predicate"]] = Vocabulary.declared_by(added)
        elif any(target.type in (events.PREDICATE, events.RETRACTION) for target in targets):
            self._restart_context()

    def _restart_context(self) -> None:
        self._staged_context, self._declared = None, {}
        self._staged_context = self._context()

    def _context(self) -> Context:
        """Return the context at the staged size."""
        count = len(self._staged.context)
        if count == 0:
            return self._contexts.at(self._head.size)
        if self._context_count != count or self._staged_context is None:
            self._staged_context = self._context_of(count)
            self._context_count = count
        return self._staged_context

    def _context_of(self, count: int) -> Context:
        """Return the context once the first `count` of the staged context events are recorded."""
        context = self._staged.context[:count]
        judged = {entity for event in context if event.type == events.IDENTITY for entity in event.data["entities"]}
        stored = self._lookups.first_named(judged)
        named = {name: naming for name, naming in stored.items() if naming[0] < self._head.size}
        if missing := judged - named.keys():
            for entry in self._staged.entries:
                for ordinal, name in enumerate(events.named_ids(entry.source, entry.data)):
                    if name in missing:
                        named.setdefault(name, (entry.position, ordinal))
        return self._contexts.with_drafts(self._head.size, context, named)

    def _check_context(self, mark: _Mark, *, pointers: bool) -> None:
        """Refuse a request whose result joins what is judged different, or closes a cycle of relays."""
        staged = self._staged
        if not any(map(_may_conflict, staged.context[mark.context :])):
            return
        if _conflict(self._context(), mark.size) is None:
            return
        # Find the first event of the request that makes it so, for the pointer.
        for count in range(mark.context + 1, len(staged.context) + 1):
            refusal = _conflict(self._context_of(count), mark.size)
            if refusal is not None:
                index = staged.context[count - 1].position - mark.size
                raise refusal.at(f"/{index}") if pointers else refusal

    def _match(self, where: Mapping[str, Any], begun: Tally) -> Mapping[str, Any]:
        """Return what a bulk retraction matches, frozen at the size at which it is recorded."""
        size = self._staged.size
        found = tally(self._lookups, where, self._head.size, begun)
        rule = Where(size, where)
        found = found.extended([posted.position for posted in self._posted() if rule.matches(posted)], size)
        return {"count": found.count, "size": size, "sha256": found.digest.hexdigest()}

    def _posted(self) -> Sequence[Posted]:
        """Return the staged assertions as a bulk retraction looks at them."""
        entries, staged = self._staged.entries, self._staged_assertions
        for entry in entries[(staged[-1].position + 1 if staged else self._head.size) - self._head.size :]:
            if entry.type == events.ASSERTION:
                staged.append(Posted.of(entry.position, entry.source, entry.data))
        return staged


def batch_too_large(instead: str = "send more as application/x-ndjson") -> LedgerError:
    """Return the refusal of more events than a batch may have, and what to do instead."""
    return LedgerError(
        Category.TOO_LARGE, "batch-too-large", f"A batch may have at most {MAX_BATCH} events; {instead}."
    )


def _id_reused(position: int | None) -> LedgerError:
    """Return the refusal of other content under a known id: recorded at a position, or else in the same request."""
    if position is None:
        detail = "Another event of this request has the same source and id, and other content. Give each its own id."
    else:
        detail = (
            f"This source has already recorded other content under this id, at position {position}. "
            "An event never changes: post a correction under a new id."
        )
    return LedgerError(
        Category.CONFLICT, "id-reused", detail, errors=[Fault("/id", "is taken by other content of the same source")]
    )


def _conflict(context: Context, size: int) -> LedgerError | None:
    """Return why a context may not come about, or None; `size` is where the request begins that brings it about."""
    conflicts = context.clusters.conflicts()
    if conflicts:
        recorded = [str(judgement.position) for judgement in conflicts if judgement.position < size]
        detail = (
            "The result would hold entities different that are judged the same, directly or through others. Retract "
            "one of those `same` judgements first."
        )
        fault = "is contradicted by `same` judgements"
        if recorded:
            positions = ", ".join(recorded[:10])
            detail = (
                "The result would join entities that are judged different. Retract one side first: "
                f"the `different` judgements are at positions {positions}."
            )
            fault = f"contradicts the `different` judgements at positions {positions}"
        return LedgerError(Category.CONFLICT, "identity-conflict", detail, errors=[Fault("", fault)])
    if context.relay_cycle() is not None:
        return LedgerError(
            Category.CONFLICT,
            "relay-cycle",
            "The result would make agents relay each other in a circle, so that what is said would have no "
            "origin. Clear one `relays` with null first.",
            errors=[Fault("", "closes a cycle of relays")],
        )
    return None


def _may_conflict(event: ContextEvent) -> bool:
    """Tell whether an event can join clusters or close a cycle of relays."""
    return (
        (event.type == events.IDENTITY and event.data["judgement"] != "unsure")
        or (event.type == events.AGENT and event.data.get("relays") is not None)
        or bool(event.targets)
    )


def _same_content(draft: Draft, known: log.Recorded) -> bool:
    """Tell whether a repeated (source, id) repeats the content too, as its producer posted it."""
    if encoding.canonical_bytes(events.posted_attributes(known.attributes())) != encoding.canonical_bytes(
        dict(draft.attributes)
    ):
        return False
    if known.data == draft.data_bytes:
        return True
    return encoding.canonical_bytes(events.posted_data(known.content())) == draft.data_bytes
