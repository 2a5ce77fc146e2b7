"""Previewing: what an append would change, judged as an append is and worked out as a read is.

Nothing is written and nothing is locked: the events are laid over one snapshot of the database, in memory, and what
is read of them is forgotten with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from factledger.comparing import FIRST, Page, compare
from factledger.core.context import ContextLog
from factledger.core.errors import LedgerError
from factledger.reading import Caches, Question, Snapshot
from factledger.recording import Receipt, Recorder, Request, Sources
from factledger.store import log
from factledger.store.engines import Connection
from factledger.store.lookups import Slot
from factledger.store.supposing import Supposition

CACHED = 50_000  # assertions kept decoded for one answer


class Supposed(NamedTuple):
    """Where the events are supposed to be recorded and when, and the slot that the page before ended with."""

    size: int
    instant: int
    last: Slot = FIRST


@dataclass(frozen=True, slots=True)
class Preview:
    """What would happen to each request, and one page of what that would change."""

    supposed: Supposed
    outcomes: Sequence[Receipt | LedgerError]
    recorded: Sequence[log.Recorded]  # as they would be stored, but for the salt
    page: Page


def preview(
    connection: Connection,
    head: log.Head,
    contexts: ContextLog,
    requests: Sequence[Request | LedgerError],
    supposed: Supposed,
    *,
    limit: int,
) -> Preview:
    """Return what recording these requests at a size of the ledger would do; `head` is that of the snapshot read.

    In place of what cannot even be read as a request stands why not.
    """
    caches = Caches(CACHED)
    before = Snapshot(connection, head, contexts, caches, Question(at_size=supposed.size), supposed.instant)
    at = replace(head, size=supposed.size, projected_size=supposed.size)
    if 0 < supposed.size < head.size:
        last = log.at_positions(connection, head.ledger_id, [supposed.size - 1])[supposed.size - 1]
        at = replace(at, recorded_at=last.recorded_at)
    recorder = Recorder(connection, at, contexts, Sources(now=lambda: supposed.instant, salt=lambda: bytes(32)))
    judged = iter(recorder.judge([request for request in requests if isinstance(request, Request)]))
    outcomes = [next(judged) if isinstance(request, Request) else request for request in requests]
    entries = recorder.entries
    after = before.supposing(Supposition(connection, head.ledger_id, head.generation, supposed.size, entries))
    page = compare(before, after, following=supposed.last, limit=limit, survivals=True)
    return Preview(supposed, outcomes, recorder.recorded, page)
