"""The ledgers of one database, and the one deep door to each: append, believe, explain, replay, rebuild.

Transactions begin and end here. Whatever appends has committed before it answers.
"""

from __future__ import annotations

import heapq
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import orjson

from factledger import answers, history
from factledger.answers import Json
from factledger.comparing import FIRST, compare
from factledger.core import events, times
from factledger.core.context import ContextLog
from factledger.core.entries import Entry
from factledger.core.errors import Category, LedgerError
from factledger.core.timeline import Segment, segments
from factledger.previewing import CACHED, Supposed, preview
from factledger.proving import Proofs, no_checkpoint
from factledger.reading import Caches, Question, Snapshot, within
from factledger.recording import Receipt, Recorder, Request, Sources, tallied
from factledger.sealing import Sealer
from factledger.store import log, projections, tree
from factledger.store.engines import Connection, Database
from factledger.store.lookups import Lookups, Memo
from factledger.store.projections import Known, Projection, target_of

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_CHUNK = 5_000  # events projected in one go by a rebuild
_PAGE = 1_000  # subjects listed in one go
SIGNED_WITHIN = 2.0  # seconds in which a checkpoint that is due has surely come
_LOOK = 0.05  # seconds between two looks for it


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer in JSON, its permalink, and the size of the ledger it was computed on."""

    body: bytes
    permalink: str | None
    size: int


@dataclass(frozen=True, slots=True)
class State:
    """A state of the ledger as asked for: by its size, or by what was known at an instant; else the latest."""

    at_size: int | None = None
    known_at: int | None = None

    def size(self, connection: Connection, head: log.Head, most: int, name: str) -> int:
        """Return its size; `most` is the greatest that there may be.

        Raises:
            LedgerError: `size-out-of-range`.
        """
        if self.at_size is not None:
            return within(self.at_size, most, f"{name}_size")
        if self.known_at is None:
            return most
        return within(log.size_known_at(connection, head, self.known_at), most, f"{name}_known_at")


class Ledgers:
    """All ledgers of a database."""

    def __init__(
        self,
        database: Database,
        sources: Sources,
        wait: Callable[[float], None] = time.sleep,
        sealer: Sealer | None = None,
    ) -> None:
        """Take an open, migrated database, the clock and randomness that recording needs, and who signs."""
        self.database = database
        self.sealer = sealer
        self._sources = sources
        self._wait = wait
        self._open: dict[str, Ledger] = {}
        self._lock = Lock()

    def create(self, name: str, *, strict: bool = False) -> bool:
        """Create a ledger; tell whether it is new.

        Raises:
            LedgerError: `ledger-name` if the name is not fit; `ledger-exists` if it is there with another setting.
        """
        if not _NAME.fullmatch(name):
            raise LedgerError(
                Category.INVALID,
                "ledger-name",
                "A ledger's name has 1 to 63 lower-case letters, digits, _ and -, starting with a letter or digit.",
            )
        with self.database.writing() as connection:
            is_new = log.create(connection, name, strict=strict, created_at=self._sources.now())
            known = log.head(connection, name)
        if is_new:
            if self.sealer is not None:
                self.sealer.appended(name)
            return True
        if known.strict != strict:
            raise LedgerError(Category.CONFLICT, "ledger-exists", "The ledger exists with another setting of `strict`.")
        return False

    def names(self) -> list[str]:
        """Return the names of all ledgers, sorted."""
        with self.database.reading() as connection:
            return [head.ledger_id for head in log.heads(connection)]

    def get(self, name: str) -> Ledger:
        """Return the door to a ledger.

        Raises:
            LedgerError: `ledger-not-found`.
        """
        with self._lock:
            ledger = self._open.get(name)
        if ledger is None:
            with self.database.reading() as connection:
                log.head(connection, name)
            with self._lock:
                ledger = self._open.setdefault(
                    name, Ledger(self.database, name, self._sources, self._wait, self.sealer)
                )
        return ledger

    def is_open(self, name: str) -> bool:
        """Tell whether the ledger has been asked for before, so that `get` need not ask the database."""
        return name in self._open

    def close(self) -> None:
        """Keep what the memo has gathered, and close the database."""
        for ledger in self._open.values():
            ledger.save_memo()
        self.database.close()


class Ledger:
    """One ledger. Safe to share between threads."""

    def __init__(
        self,
        database: Database,
        name: str,
        sources: Sources,
        wait: Callable[[float], None],
        sealer: Sealer | None = None,
    ) -> None:
        """Take an existing ledger of a database."""
        self.name = name
        self.proofs = Proofs(database, name)
        self._sealer = sealer
        self._database, self._sources, self._wait = database, sources, wait
        self._caches = Caches()
        self._contexts: dict[int, ContextLog] = {}  # by generation
        self._known: dict[int, Known] = {}  # by generation
        self._lock = Lock()

    # --- appending

    def append(self, requests: Sequence[Request]) -> list[Receipt | LedgerError]:
        """Record requests in one transaction and return, once it is on disk, what happened to each.

        Each request is all or nothing; a refused one does not disturb the others.

        Raises:
            LedgerError: `database-unavailable` if the transaction failed as a whole. After a broken connection
                it is unknown whether it was stored; the same ids may always be sent again.
                `checkpoint-contradicted` if appending would fork the log; nothing is recorded then.
        """
        if self._sealer is not None:
            self._sealer.permit(self.name)
        with self._database.writing() as connection:
            head = log.head(connection, self.name, lock=True)
            known = self._known_in(head.generation)
            recorder = Recorder(connection, head, self._context_log(head.generation), self._sources, known)
            outcomes = recorder.record(requests)
        recorder.committed()
        if self._sealer is not None:
            self._sealer.appended(self.name, sum(len(request.drafts) for request in requests))
        return outcomes

    def tallied(self, request: Request) -> Request:
        """Return a request with what its bulk retractions match so far, if it has any; holds up no append.

        Whoever appends it then waits for what is recorded from now on only, however much they match.
        """
        if not any("where" in draft.data for draft in request.drafts):
            return request
        with self._database.reading() as connection:
            head = log.head(connection, self.name)
            return tallied(request, Lookups(connection, self.name, head.generation), head.size)

    def append_one(self, request: Request) -> Receipt:
        """Record one request in a transaction of its own.

        Raises:
            LedgerError: whatever the request was refused for.
        """
        outcome = self.append([request])[0]
        if isinstance(outcome, LedgerError):
            raise outcome
        return outcome

    # --- previewing

    def preview(
        self,
        requests: Sequence[Request | LedgerError],
        problem: Callable[[LedgerError], Json],
        *,
        after: str | None = None,
        limit: int = 100,
    ) -> Answer:
        """Return what `append` would say of these requests, and what that would change; nothing is recorded.

        Judged and read on one snapshot of the ledger, without a lock. What cannot even be read as a request is given
        as its refusal; `problem` says how refusals are shown. A page holds about `limit` changes, all those of a slot
        together; `after` is from the link to the next page, which goes on at the size and instant of the first.

        Raises:
            LedgerError: `page-unknown` if `after` is not from such a link.
        """
        with self._database.reading() as connection:
            head = log.head(connection, self.name)
            supposed = Supposed(head.size, self._sources.now())
            if after is not None:
                size, instant, *last = answers.read_page(after, int, int, str, str)
                supposed = Supposed(min(size, head.size), min(instant, supposed.instant), (last[0], last[1]))
            found = preview(connection, head, self._context_log(head.generation), requests, supposed, limit=limit)
        return Answer(orjson.dumps(answers.preview(found, self.name, limit, problem)), None, supposed.size)

    def preview_one(self, request: Request, *, after: str | None = None, limit: int = 100) -> Answer:
        """Return what `append_one` would say, and what that would change; nothing is recorded.

        Raises:
            LedgerError: whatever the request would be refused for; `page-unknown`.
        """

        def refuse(refusal: LedgerError) -> Json:
            raise refusal

        return self.preview([request], refuse, after=after, limit=limit)

    # --- reading

    def describe(self) -> Json:
        """Return name, size, time and root of the log, how far it is projected, and who signs it."""
        with self._database.reading() as connection:
            head = log.head(connection, self.name)
            published = tree.published(connection, self.name)
        signers = () if published is None else published.verifier_keys
        return {
            "ledger": self.name,
            "strict": head.strict,
            "created_at": times.format_instant(head.created_at),
            "size": head.size,
            "recorded_at": times.format_instant(head.recorded_at) if head.size else None,
            "root": answers.base64_text(head.frontier.root()),
            "projected_size": head.projected_size,
            "verifier_key": signers[0] if signers else None,
            "former_verifier_keys": list(signers[1:]),
        }

    def size(self) -> int:
        """Return how many events are recorded."""
        with self._database.reading() as connection:
            return log.head(connection, self.name).size

    @contextmanager
    def snapshot(self, question: Question, min_size: int | None = None) -> Iterator[Snapshot]:
        """Yield the ledger as of a question's coordinates; with `min_size`, wait up to 5 s for that size.

        Raises:
            LedgerError: `size-not-reached`, `size-out-of-range`.
        """
        for attempt in range(51):
            with self._database.reading() as connection:
                head = log.head(connection, self.name)
                if min_size is None or head.projected_size >= min_size:
                    contexts = self._context_log(head.generation)
                    yield Snapshot(connection, head, contexts, self._caches, question, self._sources.now())
                    return
            if attempt < 50:
                self._wait(0.1)
        raise LedgerError(
            Category.UNAVAILABLE,
            "size-not-reached",
            "The ledger has not reached `min_size` within 5 seconds; try again.",
            retry_after=1,
        )

    def entity(self, entity: str, question: Question, min_size: int | None = None) -> Answer:
        """Return the believed state of an entity at one valid instant, slot by slot.

        A memo hit costs one seek a slot; anything else one index range, in proportion to the slot.

        Raises:
            LedgerError: `entity-not-found`, and those of `snapshot`.
        """
        with self.snapshot(question, min_size) as snapshot:
            canonical, members = snapshot.members(entity)
            facts = {
                predicate: orjson.Fragment(body)
                for predicate, body in snapshot.facts(members, canonical, answers.believed_slot)
            }
            pinned = snapshot.coordinates
        link = answers.permalink(pinned, answers.entity_path(entity))
        body = {
            "entity": entity,
            "canonical": canonical,
            "members": members,
            "coordinates": answers.coordinates(pinned),
            "permalink": link,
            "facts": facts,
        }
        return Answer(orjson.dumps(body), link, pinned.size)

    def timeline(self, entity: str, predicate: str | None, question: Question, min_size: int | None = None) -> Answer:
        """Return belief over all of valid time as maximal segments, for one predicate or for each.

        Raises:
            LedgerError: as `entity`.
        """
        with self.snapshot(question, min_size) as snapshot:
            canonical, members = snapshot.members(entity)
            found = {}
            for name, states in snapshot.states(members).items():
                if predicate in (None, name):
                    slot = snapshot.slot(name, states)
                    found[name] = segments(slot, snapshot.coordinates.weakest)
            if predicate is not None and predicate not in found:
                found[predicate] = [Segment(times.BEGINNING, times.FOREVER, "unknown", ())]
            pinned = replace(snapshot.coordinates, valid_at=question.valid_at)
        extra = {} if predicate is None else {"predicate": predicate}
        link = answers.permalink(pinned, answers.entity_path(entity, "/timeline"), extra)
        shown = {name: [answers.segment(s) for s in found[name]] for name in found}
        body: Json = {
            "entity": entity,
            "canonical": canonical,
            "coordinates": answers.coordinates(pinned),
            "permalink": link,
        }
        if predicate is not None:
            body |= {"predicate": predicate, "segments": shown[predicate]}
        else:
            body["timelines"] = [{"predicate": name, "segments": shown[name]} for name in shown]
        return Answer(orjson.dumps(body), link, pinned.size)

    def why(self, entity: str, predicate: str, question: Question, min_size: int | None = None) -> Answer:
        """Return why a slot is believed as it is: all evidence, what it weighs, and what does not count.

        Raises:
            LedgerError: as `entity`.
        """
        with self.snapshot(question, min_size) as snapshot:
            canonical, _, found = snapshot.believe(entity, predicate)
            recorded = log.at_positions(snapshot.connection, self.name, answers.explained(found))
            policy, pinned = snapshot.context.policy, snapshot.coordinates
            body = answers.explanation(entity, canonical, pinned, found, recorded, policy)
        return Answer(orjson.dumps(body), body["permalink"], pinned.size)

    def receipt(
        self,
        entity: str,
        predicate: str,
        question: Question,
        min_size: int | None = None,
        patience: float = SIGNED_WITHIN,
    ) -> Answer:
        """Return why a slot is believed as it is, with the events that this rests on and proofs of each.

        Everything is proven against one checkpoint. If none covers the coordinates yet, it is waited for, at most
        `patience` seconds; where nobody signs in the background, it is signed here. What `receipts.verify` takes.

        Raises:
            LedgerError: `checkpoint-not-found`, `checkpoint-behind`, `log-corrupt`; as `entity`.
        """
        with self.snapshot(question, min_size) as snapshot:
            snapshot.members(entity)
            at = snapshot.coordinates
        self._await_checkpoint(max(at.size, at.identity_at_size), patience)
        asked = replace(
            question, valid_at=at.valid_at, known_at=None, at_size=at.size, identity_at_size=at.identity_at_size
        )
        with self.snapshot(asked) as snapshot:
            body = self.proofs.receipt(snapshot, entity, predicate)
        return Answer(orjson.dumps(body), None, at.size)

    def _await_checkpoint(self, size: int, patience: float) -> None:
        """Return once a checkpoint covers a size."""
        signed, sealer = self.proofs.signed_size(), self._sealer
        signs = sealer is not None and sealer.keeper.has_key
        if (signed is None or signed < size) and signs and sealer is not None and not sealer.is_running:
            sealer.seal(self.name)
            signed = self.proofs.signed_size()
        if signed is None and not signs:
            raise no_checkpoint()
        attempts = round(patience / _LOOK)
        while signed is None or signed < size:
            if attempts <= 0:
                raise LedgerError(
                    Category.UNAVAILABLE,
                    "checkpoint-behind",
                    f"No checkpoint covers {size} events yet; try again, or ask as of an earlier size."
                    if signs
                    else f"No checkpoint covers {size} events, and there is no key here to sign one; `factledger "
                    "signing-key` says more.",
                    retry_after=1,
                )
            attempts -= 1
            self._wait(_LOOK)
            signed = self.proofs.signed_size()

    def history(
        self,
        entity: str,
        predicate: str | None,
        question: Question,
        *,
        from_size: int = 0,
        limit: int = 50,
        min_size: int | None = None,
    ) -> Answer:
        """Return how belief in an entity's slots changed, event by event, over all of valid time.

        A change is of value set, status, probability or span; repeats that change none of them are left out.
        `retroactive` says that it alters what is believed of a time before the event was recorded. With
        `valid_at`, only changes that hold at that instant are given.

        Raises:
            LedgerError: as `entity`.
        """
        with self.snapshot(question, min_size) as snapshot:
            canonical, _ = snapshot.members(entity)
            page = history.changes(
                snapshot, entity, predicate, from_size=from_size, limit=limit, valid_at=question.valid_at
            )
            causes = log.at_positions(snapshot.connection, self.name, {change.position for change in page.changes})
            pinned = replace(snapshot.coordinates, valid_at=question.valid_at)
        asked = {"predicate": predicate} if predicate is not None else {}
        path = answers.entity_path(entity, "/history")
        link = answers.permalink(pinned, path, {**asked, "from_size": from_size, "limit": limit})
        following = page.following
        body = {
            "entity": entity,
            "canonical": canonical,
            "coordinates": answers.coordinates(pinned),
            "permalink": link,
            "changes": [answers.change(change, causes[change.position]) for change in page.changes],
            "next": following and answers.permalink(pinned, path, {**asked, "from_size": following, "limit": limit}),
        }
        return Answer(orjson.dumps(body), link, pinned.size)

    def diff(
        self,
        question: Question,
        *,
        since: State,
        until: State,
        after: str | None = None,
        limit: int = 100,
        min_size: int | None = None,
    ) -> Answer:
        """Return where belief at one size differs from belief at an earlier one, slot by slot, with causes.

        It is the net difference: what came and went in between does not show. Costs grow with the slots that the
        events in between touch, not with the log. A page holds about `limit` differences, all those of a slot
        together. With `valid_at`, only those that hold at that instant are given.

        Raises:
            LedgerError: `size-out-of-range` also if `since` lies after `until`; `page-unknown`; those of `snapshot`.
        """
        last = FIRST
        if after is not None:
            entity, predicate = answers.read_page(after, str, str)
            last = (entity, predicate)
        with self.snapshot(Question(), min_size) as latest:
            connection, head = latest.connection, latest.head
            to_size = until.size(connection, head, latest.size, "to")
            from_size = since.size(connection, head, to_size, "from")
            caches = Caches(CACHED)
            states = [
                Snapshot(connection, head, latest.contexts, caches, replace(question, at_size=size), latest.instant)
                for size in (from_size, to_size)
            ]
            found = compare(states[0], states[1], following=last, limit=limit, valid_at=question.valid_at)
            causes = {position for difference in found.differences for position in difference.causes[-1:]}
            recorded = log.at_positions(connection, self.name, causes)
            told = [replace(state.coordinates, valid_at=question.valid_at) for state in states]
        sizes = (from_size, to_size)
        link = answers.diff_link(self.name, question, sizes, limit, None if after is None else last)
        body = {
            "from": {"size": from_size, "known_at": answers.instant(told[0].known_at)},
            "to": {"size": to_size, "known_at": answers.instant(told[1].known_at)},
            "coordinates": answers.coordinates(told[1]),
            "permalink": link,
            "changes": [answers.difference(difference, recorded) for difference in found.differences],
            "next": found.last and answers.diff_link(self.name, question, sizes, limit, found.last),
        }
        return Answer(orjson.dumps(body), link, to_size)

    def entities(self, question: Question) -> Iterator[str]:
        """Yield the canonical id of everything that anything was asserted about, in order, in bounded memory."""
        with self.snapshot(question) as snapshot:
            pinned = replace(question, known_at=None, at_size=snapshot.size)
            merged = snapshot.merged()
        joined = iter(sorted({canonical for canonical, subjects in merged.items() if subjects}))
        absorbed = {member for subjects in merged.values() for member in subjects}
        yield from heapq.merge(joined, (s for s in self._subjects(pinned) if s not in absorbed))

    def _subjects(self, pinned: Question) -> Iterator[str]:
        """Yield every subject as posted, in order, a page and a snapshot at a time."""
        last = ""
        while True:
            with self.snapshot(pinned) as snapshot:
                page = snapshot.lookups.subjects(last, snapshot.size, _PAGE)
            yield from page
            if len(page) < _PAGE:
                return
            last = page[-1]

    # --- events

    def event(self, position: int, question: Question) -> Answer:
        """Return one event as recorded.

        Raises:
            LedgerError: `event-not-found`.
        """
        with self.snapshot(question) as snapshot:
            recorded = log.at_positions(snapshot.connection, self.name, [position]).get(position)
            if recorded is None or position >= snapshot.size:
                raise LedgerError(Category.NOT_FOUND, "event-not-found", "No event is recorded at this position.")
            shown = answers.event(recorded, in_force=bool(snapshot.in_force([recorded])))
            return Answer(orjson.dumps(shown), None, snapshot.size)

    def events(
        self, question: Question, *, from_position: int, limit: int, criteria: Mapping[str, str]
    ) -> tuple[list[Json], int | None, int]:
        """Return up to `limit` events from a position on, the position to go on from, and the size read at."""
        with self.snapshot(question) as snapshot:
            found = log.find(
                snapshot.connection,
                self.name,
                snapshot.head.generation,
                from_position=from_position,
                to_position=snapshot.size,
                limit=limit + 1,
                criteria=criteria,
            )
            standing = snapshot.in_force(found[:limit])
            shown = [answers.event(e, in_force=e.position in standing) for e in found[:limit]]
            following = found[limit].position if len(found) > limit else None
            return shown, following, snapshot.size

    # --- projections

    def rebuild(self, progress: Callable[[int, int], None] = lambda _done, _size: None) -> Json:
        """Fill a new generation of the projections from the log alone, compare it with the old, and swap.

        Reads and writes go on meanwhile; only the last few events are projected under the head's lock. The
        memo starts empty. `progress(done, size)` is called after every few thousand events.
        """
        with self._database.reading() as connection:
            before = log.head(connection, self.name)
        fresh = Projection(self.name, before.generation + 1)
        with self._database.writing() as connection:
            fresh.drop(connection)  # what an interrupted rebuild left
        done = 0
        while True:
            with self._database.reading() as connection:
                size = log.head(connection, self.name).size
                entries = self._entries(connection, done, min(size, done + _CHUNK))
            if size - done <= _CHUNK // 10:
                break
            with self._database.writing() as connection:
                fresh.apply(connection, entries)
            done += len(entries)
            progress(done, size)
        with self._database.writing() as connection:
            head = log.head(connection, self.name, lock=True)
            fresh.apply(connection, self._entries(connection, done, head.size))
            old = Projection(self.name, head.generation)
            digests = old.digest(connection, head.size), fresh.digest(connection, head.size)
            projections.advance(connection, self.name, head.size, fresh.generation)
            old.drop(connection)
        progress(head.size, head.size)
        with self._lock:
            self._contexts.pop(old.generation, None)
            self._known.pop(old.generation, None)
        return {
            "ledger": self.name,
            "size": head.size,
            "digest_before": digests[0],
            "digest": digests[1],
            "equal": digests[0] == digests[1],
        }

    def _entries(self, connection: Any, from_position: int, to_position: int) -> list[Entry]:
        """Return stored events as projecting needs them, their targets looked up in the log."""
        recorded = log.scan(connection, self.name, from_position, to_position)
        parsed = [(event, event.attributes(), event.content()) for event in recorded]
        refs: dict[int, list[events.Ref]] = {}
        for event, attributes, data in parsed:
            draft = events.Draft(event.type, event.source, event.id, attributes, data, event.data)
            if found := draft.refs():
                refs[event.position] = found
        every = [ref for found in refs.values() for ref in found]
        by_key = log.by_keys(connection, self.name, [ref for ref in every if not isinstance(ref, int)])
        by_position = log.at_positions(connection, self.name, [ref for ref in every if isinstance(ref, int)])
        entries = []
        for event, attributes, data in parsed:
            targets = {}
            for ref in refs.get(event.position, ()):
                target = by_position[ref] if isinstance(ref, int) else by_key[ref]
                targets[target.position] = target_of(target)
            entries.append(
                Entry(
                    event.position,
                    event.recorded_at,
                    event.type,
                    event.source,
                    attributes.get("time"),
                    data,
                    tuple(targets[position] for position in sorted(targets)),
                )
            )
        return entries

    def digest(self, size: int | None = None) -> str:
        """Return the digest of the projections' rows up to a size."""
        with self._database.reading() as connection:
            head = log.head(connection, self.name)
            return Projection(self.name, head.generation).digest(connection, head.size if size is None else size)

    def save_memo(self) -> int:
        """Write the beliefs that reads have worked out since the last call; return how many."""
        with self._caches.lock:
            unsaved, self._caches.unsaved = self._caches.unsaved, {}
        if not unsaved:
            return 0
        with self._database.writing() as connection:
            generation = log.head(connection, self.name).generation
            memos = [
                (entity, predicate, memo)
                for (made_in, entity, predicate), memo in unsaved.items()
                if made_in == generation
            ]
            if memos:
                Memo(connection, self.name, generation).remember(memos)
        return len(memos)

    def rest(self) -> None:
        """Do what is better done while nobody waits: keep what reads have worked out, and tidy the database."""
        self.save_memo()
        self._database.rest()

    def drop_memo(self) -> None:
        """Forget every memo, on disk and in memory; no answer changes."""
        with self._database.writing() as connection:
            head = log.head(connection, self.name)
            Memo(connection, self.name, head.generation).forget()
        self._caches = Caches()

    def _context_log(self, generation: int) -> ContextLog:
        with self._lock:
            return self._contexts.setdefault(generation, ContextLog())

    def _known_in(self, generation: int) -> Known:
        with self._lock:
            return self._known.setdefault(generation, Known())
