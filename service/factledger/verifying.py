"""Verifying: everything that is stored for a ledger, worked out anew from its log, and compared row by row.

In one pass over the log, in one snapshot of the database, in memory that does not grow with it (but for the context,
which a service holds too). What is found to be wrong is named, and does not end the search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from factledger import answers
from factledger.auditing import MOST, TROUBLE, Claim, Erasures, Leaves, Report, claim
from factledger.core import encoding, events, facts, merkle, times
from factledger.core.context import ContextLog
from factledger.core.entries import Entry, Target, assertion_of, context_event
from factledger.core.errors import LedgerError
from factledger.core.merkle import Frontier
from factledger.reading import Caches, Question, Snapshot
from factledger.recording import tally
from factledger.sealing import settings_text
from factledger.signing import Keeper
from factledger.store import log, schema, tree
from factledger.store.auditing import Audit, readable
from factledger.store.engines import Connection, Database
from factledger.store.lookups import Lookups, Slot, packed
from factledger.store.projections import slots_reached, target_of
from factledger.verifier import VerifierKey

CHUNK = 2_000  # events
HELD, PUBLISHED = "the held checkpoint", "the published checkpoint"
REMEMBERED = 200_000  # ids whose first naming is known to be right

Progress = Callable[[int, int], None]


def verify(
    database: Database,
    name: str,
    keeper: Keeper,
    *,
    notes: Mapping[str, bytes] | None = None,
    trusted: Sequence[VerifierKey] = (),
    progress: Progress = lambda _done, _size: None,
) -> Report:
    """Return what is wrong with a ledger as it is stored: nothing, if it is what its log says, and was signed as such.

    The log is held against the held checkpoint, the published one, and these `notes` by their labels. Signatures
    are those of the `trusted` keys, or else of the keeper's, or else of those that the database names.

    Raises:
        LedgerError: `ledger-not-found`, `held-checkpoint-unusable`, `signing-key-unusable`, `database-unavailable`.
    """
    held = keeper.held(name)  # before the snapshot, which is then not older
    with database.reading() as connection:
        try:
            verification = _Verification(connection, name, keeper, progress)
        except LedgerError as refusal:
            if held is None or refusal.code != "ledger-not-found":
                raise
            report = Report(name)
            report.add(0, "ledgers", "there is no such ledger, and a checkpoint of it is held")
            return report
        return verification.run(notes or {}, None if held is None else held.note, trusted)


class _Verification:
    def __init__(self, connection: Connection, name: str, keeper: Keeper, progress: Progress) -> None:
        self._connection, self._name, self._keeper, self._progress = connection, name, keeper, progress
        self._audit = Audit(connection, name)
        self._report = Report(name)
        self._head = self._audit.head()
        self._size: int = self._head["size"]
        self._lookups = Lookups(connection, name, self._head["generation"])
        self._erasures = Erasures()
        self._counts = dict.fromkeys(schema.PROJECTIONS, 0)
        self._right_names: set[str] = set()
        self._published_size = 0
        self._instant: int = self._head["created_at_us"]

    def run(self, notes: Mapping[str, bytes], held: bytes | None, trusted: Sequence[VerifierKey]) -> Report:
        report = self._report
        with report.guard("database"):
            for damage in self._audit.damage():
                report.add(None, "database", damage)
        for position, data in self._audit.erasures():
            with report.guard("events"):
                source = log.at_positions(self._connection, self._name, [position])[position].source
                self._erasures.add(position, source, orjson.loads(data))
        leaves = Leaves(report, self._claims(notes, held, trusted))
        kept = self._kept_subtrees()
        size, done = self._size, 0
        while done < size:
            end = min(done + CHUNK, size)
            for level, number, hashed in leaves.extend(self._events(done, end)):
                begin = number << (merkle.TILE_HEIGHT * level)
                ends = (number + 1) << (merkle.TILE_HEIGHT * level)
                if kept.pop((level, number), None if ends <= self._published_size else hashed) != hashed:
                    detail = f"the root {number} of level {level} is not kept, or is not that of its events"
                    report.add(begin, "subtrees", detail, exact=False)
            done = end
            self._progress(done, size)
        for level, number in kept:
            report.add(None, "subtrees", f"a root {number} of level {level} is kept, and the log has no such events")
        count, beyond = self._audit.beyond(size)
        if count:
            report.add(beyond, "events", f"{count} events are at positions that the log has not reached")
        self._check_head(leaves.finish())
        self._check_counts()
        if not report.count:  # a belief is worked out from the rows above, so it is only as right as they are
            self._check_context_and_memos()
        return report

    def _claims(self, notes: Mapping[str, bytes], held: bytes | None, trusted: Sequence[VerifierKey]) -> list[Claim]:
        report, found = self._report, dict(notes)
        own = self._keeper.verifier_keys(self._name)
        published = None
        with report.guard("checkpoints"):
            published = tree.published(self._connection, self._name)
        if held is not None:
            found[HELD] = held
        keys = list(trusted or own)
        if published is not None:
            found[PUBLISHED] = published.note
            if own and published.verifier_keys != tuple(map(str, own)):
                report.add(None, "checkpoints", "the published verifier keys are not those of the key file")
            if not keys:
                with report.guard("checkpoints"):
                    keys = [VerifierKey.parse(text) for text in published.verifier_keys]
        elif held is not None:
            report.add(None, "checkpoints", "there is a held checkpoint, and no published one")
        claims = [claim(report, label, note, keys) for label, note in found.items()]
        found_sizes = [one.checkpoint.size for one in claims if one is not None and one.label == PUBLISHED]
        self._published_size = max(found_sizes, default=0)  # whoever publishes keeps the roots below
        return [one for one in claims if one is not None]

    def _kept_subtrees(self) -> dict[tuple[int, int], bytes]:
        """Return the kept roots: one for 256 events, so that a million of them are held in a few hundred KiB."""
        kept: dict[tuple[int, int], bytes] = {}
        with self._report.guard("subtrees"):
            kept.update(((level, number), hashed) for level, number, hashed in self._audit.subtrees())
        return kept

    # --- events

    def _events(self, begin: int, end: int) -> list[bytes]:
        """Check the events of a range and what they left; return their leaf hashes, as far as they are there."""
        leaves: list[bytes] = []
        entries: list[tuple[Entry, Sequence[events.Ref]]] = []
        expected = begin
        for row in self._rows(begin, end):
            for missing in range(expected, row[0]):
                self._report.add(missing, "events", "is missing")
            expected = row[0] + 1
            try:
                leaves.append(merkle.leaf_hash(row[5]))
                if (checked := self._event(*row)) is not None:
                    entries.append(checked)
            except TROUBLE as problem:
                self._report.trouble(row[0], "events", problem)
        for missing in range(expected, end):
            self._report.add(missing, "events", "is missing")
        with self._report.guard("events"), readable("events"):
            self._check_left(begin, end, self._resolved(entries))
        return leaves

    def _rows(self, begin: int, end: int) -> Sequence[Any]:
        try:
            return self._audit.events(begin, end)
        except LedgerError as refusal:
            if end - begin == 1:
                self._report.add(begin, "events", refusal.detail)
                return ()
        middle = (begin + end) // 2
        return [*self._rows(begin, middle), *self._rows(middle, end)]

    def _event(
        self,
        position: int,
        kind: str,
        source: str,
        event_id: str,
        recorded_at: int,
        envelope: bytes,
        data: bytes | None,
        salt: bytes | None,
    ) -> tuple[Entry, Sequence[events.Ref]] | None:
        """Check one row against itself; return what it leaves in the projections, nothing if it was erased."""
        stated = orjson.loads(envelope)
        add = self._report.add
        if encoding.canonical_bytes(stated) != envelope:
            add(position, "events", "the envelope is not canonical")
        if not stated.keys().isdisjoint(("data", "datasalt", "inforce")):
            add(position, "events", "the envelope holds what does not belong into it")
        for name, column in (
            ("ledger", self._name),
            ("position", position),
            ("type", kind),
            ("source", source),
            ("id", event_id),
            ("recordedat", times.format_instant(recorded_at)),
        ):
            if stated.get(name) != column:
                add(position, "events", f"the column for {name} is not what the envelope says")
        if recorded_at <= self._instant:
            add(position, "events", "is not later than what is before it")
        self._instant = recorded_at
        if data is None or salt is None:
            if data is not salt:
                add(position, "events", "has only one of content and salt")
            if not self._erasures.cover(position, source, event_id):
                add(position, "events", "has no content, and no erasure says so")
            return None
        if len(salt) != 32 or encoding.data_sha256(salt, data) != stated["datasha256"]:
            add(position, "events", "the content is not what the envelope commits to")
        content = orjson.loads(data)
        if encoding.canonical_bytes(content) != data:
            add(position, "events", "the content is not canonical")
        draft = events.Draft(kind, source, event_id, stated, content, data)
        return Entry(position, recorded_at, kind, source, stated.get("time"), content), draft.refs()

    def _resolved(self, parsed: Sequence[tuple[Entry, Sequence[events.Ref]]]) -> list[Entry]:
        """Return the entries with what they retract or correct: each recorded earlier."""
        every = {ref for _, refs in parsed for ref in refs}
        by_position = log.at_positions(self._connection, self._name, [ref for ref in every if isinstance(ref, int)])
        by_key = log.by_keys(self._connection, self._name, [ref for ref in every if not isinstance(ref, int)])
        resolved = []
        for entry, refs in parsed:
            targets: dict[int, Target] = {}
            for ref in refs if entry.type != events.ERASURE else ():
                target = by_position.get(ref) if isinstance(ref, int) else by_key.get(ref)
                if target is None or target.position >= entry.position:
                    self._report.add(entry.position, "events", "points at no earlier event")
                elif target.data is not None:  # else it was erased
                    targets[target.position] = target_of(target)
            ordered = tuple(targets[position] for position in sorted(targets))
            resolved.append(
                Entry(entry.position, entry.recorded_at, entry.type, entry.source, entry.time, entry.data, ordered)
            )
            if "where" in entry.data and "matched" in entry.data:
                self._check_matched(entry)
        return resolved

    def _check_matched(self, entry: Entry) -> None:
        """Check what a bulk retraction matched when it was recorded; what was erased since cannot be counted again."""
        counted = tally(self._lookups, entry.data["where"], entry.position)
        found = {"count": counted.count, "size": entry.position, "sha256": counted.digest.hexdigest()}
        if entry.data["matched"] != found and not self._audit.erasures():
            self._report.add(entry.position, "events", "says that it matched what it did not match")

    # --- projections

    def _check_left(self, begin: int, end: int, entries: Sequence[Entry]) -> None:
        """Compare the rows that a run of events left with what they should be."""
        left: dict[Any, set[tuple[Any, ...]]] = {
            table: set() for table in (schema.assertions, schema.retractions, schema.touches, schema.context)
        }
        named: dict[str, tuple[int, int]] = {}
        pointing = [entry for entry in entries if entry.targets]
        targets = sorted({target.position for entry in pointing for target in entry.targets})
        for position, slots in slots_reached(pointing, self._lookups.touched_by(targets)).items():
            left[schema.touches].update((*slot, position) for slot in slots)
        for entry in entries:
            try:
                for ordinal, name in enumerate(events.named_ids(entry.source, entry.data)):
                    named.setdefault(name, (entry.position, ordinal))
                self._leave(entry, left)
            except TROUBLE as problem:
                self._report.trouble(entry.position, "events", problem)
        keys: dict[Any, Sequence[Any]] = {
            schema.assertions: sorted({entry.source for entry in entries}),
            schema.retractions: targets,
        }
        for table, expected in left.items():
            with self._report.guard(table.name):
                self._compare(
                    table, expected, {*map(tuple, self._audit.left_by(table, begin, end, keys.get(table, ())))}
                )
        with self._report.guard("names"):
            self._check_names(begin, named)

    def _leave(self, entry: Entry, left: Mapping[Any, set[tuple[Any, ...]]]) -> None:
        """Add what one event leaves, in the columns of the tables."""
        slot: Slot | None = None
        if entry.type == events.ASSERTION:
            kept = assertion_of(entry)
            slot = (entry.data["subject"], entry.data["predicate"])
            quoted = None if kept.speaker == kept.outlet else kept.speaker
            said = (kept.source, kept.outlet, kept.document_uri, kept.run, packed(kept), quoted)
            left[schema.assertions].add((*slot, entry.position, *said, facts.entity_in(entry.data["value"])))
        elif (added := context_event(entry)) is not None:
            left[schema.context].add(
                (added.position, added.type, encoding.canonical_bytes(added.data), orjson.dumps(added.targets))
            )
        for target in entry.targets:
            left[schema.retractions].add(
                (target.position, entry.position, *(target.slot or (None, None)), *(slot or (None, None)))
            )

    def _compare(self, table: Any, expected: set[tuple[Any, ...]], stored: set[tuple[Any, ...]]) -> None:
        self._counts[table] += len(stored)
        if expected == stored:
            return
        columns = [column.name for column in table.c if column.name not in ("ledger_id", "generation")]
        at = columns.index("position")
        for row in sorted(expected - stored, key=lambda row: int(row[at])):
            self._report.add(row[at], table.name, "a row that this event should have left is missing, or is another")
        for row in sorted(stored - expected, key=lambda row: int(row[at])):
            self._report.add(row[at], table.name, "a row is there that this event has not left")

    def _check_names(self, begin: int, named: Mapping[str, tuple[int, int]]) -> None:
        """Check where ids are said to be named first; a row that names an earlier event was counted there, or never."""
        fresh = [name for name in named if name not in self._right_names]
        stored = self._audit.named(sorted(fresh))
        for name in fresh:
            at = stored.get(name)
            if at == named[name]:
                self._counts[schema.names] += 1
            elif at is None or at[0] >= begin:
                self._report.add(named[name][0], "names", "an id that this event names first is missing, or elsewhere")
        if len(self._right_names) > REMEMBERED:
            self._right_names.clear()
        self._right_names.update(fresh)

    def _check_counts(self) -> None:
        """Find the rows that no event has left: those that were looked for are all counted."""
        report, counts = self._report, self._counts
        with report.guard("beliefs"):
            if lost := self._audit.lost_memos():
                report.add(None, "beliefs", f"{lost} memos are of no ledger, or of another generation")
        with report.guard("slots"):
            for first, stored in self._audit.wrong_slots(MOST):
                found = [position for position in (first, stored) if position is not None]
                report.add(min(found), "slots", "a slot that begins with this event is missing, or begins elsewhere")
            counts[schema.slots] = self._audit.slot_count()
        for table, count in counts.items():
            with report.guard(table.name):
                if (stored := self._audit.count(table)) != count:
                    stray = None if table is schema.slots else self._audit.stray(table, self._size)
                    report.add(stray, table.name, f"has {stored} rows, and the events left {count}")

    # --- the head, the context and the memo

    def _check_head(self, frontier: Frontier) -> None:
        head, report = self._head, self._report
        for name, expected in (
            ("size", frontier.size),
            ("projected_size", frontier.size),
            ("recorded_at_us", self._instant),
            ("frontier", frontier.to_bytes()),
        ):
            if head[name] != expected:
                report.add(None, "ledgers", f"{name} is not what the events say")
        settings = self._keeper.settings(self._name)
        with report.guard("ledgers"):
            if settings is not None and settings != settings_text(self._log_head()):
                report.add(None, "ledgers", "strict or created_at_us is not what is held of them")

    def _log_head(self) -> log.Head:
        head = self._head
        return log.Head(
            self._name,
            bool(head["strict"]),
            head["created_at_us"],
            self._size,
            head["recorded_at_us"],
            Frontier(),
            self._size,
            head["generation"],
        )

    def _check_context_and_memos(self) -> None:
        """Check that nothing contradicts itself at the end, and that every memo says what a fresh reading says."""
        contexts, caches, head = ContextLog(), Caches(), self._log_head()
        self._lookups.extend_context(contexts, self._size)
        final = contexts.at(self._size)
        for judgement in final.clusters.conflicts():
            self._report.add(judgement.position, "events", "what this judges different is joined by others")
        if (agent := final.relay_cycle()) is not None:
            self._report.add(None, "events", f"agents relay each other in a circle, {agent} among them")
        for page in self._audit.memos(page=500):
            for entity, predicate, size, from_us, to_us, basis, body in page:
                with self._report.guard("beliefs"), readable("beliefs"):
                    question = Question(valid_at=from_us, at_size=size)
                    snapshot = Snapshot(self._connection, head, contexts, caches, question, from_us)
                    memo = snapshot.memo(entity, predicate, answers.believed_slot)
                    stored = (size, from_us, to_us, basis, body)
                    if memo is None or (memo.size, memo.valid_from, memo.valid_to, memo.basis, memo.body) != stored:
                        self._report.add(None, "beliefs", f"the memo of a slot at size {size} is not what is believed")
                    caches.unsaved.clear()
