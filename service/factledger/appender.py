"""Group commit: one writer thread a database, many append requests in one transaction.

What is submitted while a transaction commits shares the next one, so under load a flush to disk is paid for by
many requests, and alone it is paid at once: nothing ever waits for a group to fill.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread

import structlog

from factledger.core.errors import Category, LedgerError
from factledger.ledger import Ledger
from factledger.recording import Receipt, Request

Outcome = Receipt | Exception  # a LedgerError, unless something broke that nobody thought of

GROUP_SUBMISSIONS = 256
GROUP_EVENTS = 20_000
QUEUE_BYTES = 64 * 1024 * 1024  # of content; a single submission is never too large for an empty queue
IDLE_SECONDS = 0.5

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Submission:
    """Requests that came together and are answered together; each is still all or nothing by itself."""

    ledger: Ledger
    requests: Sequence[Request]
    after: Future[list[Outcome]] | None = None  # what must not have failed as a whole
    future: Future[list[Outcome]] = field(default_factory=Future)

    def broken_by(self) -> LedgerError | None:
        """Return why what this follows could not be stored, if it could not: then this may not be either."""
        before = self.after.result() if self.after is not None and not self.after.cancelled() else ()
        failed = (o for o in before if isinstance(o, LedgerError) and o.category is Category.UNAVAILABLE)
        return next(failed, None)

    @property
    def event_count(self) -> int:
        return sum(len(request.drafts) for request in self.requests)

    @property
    def byte_count(self) -> int:
        return sum(len(draft.data_bytes) for request in self.requests for draft in request.drafts)


class Appender:
    """Appends to the ledgers of one database in the order of submission; safe to share between threads.

    Every submission that was taken is answered: with what was recorded, once that is on disk, or with the error
    that it met.
    """

    def __init__(self, capacity: int) -> None:
        """Start the writer; `capacity` is how many submissions may wait for it."""
        self._capacity = capacity
        self._waiting: deque[_Submission] = deque()
        self._waiting_bytes = 0
        self._closed = False
        self._changed = Condition()  # guards the four above
        self._used: dict[str, Ledger] = {}  # ledgers that may have something to do once they are left alone
        self._writer = Thread(target=self._run, name="appender", daemon=True)
        self._writer.start()

    def enqueue(
        self, ledger: Ledger, requests: Sequence[Request], after: Future[list[Outcome]] | None = None
    ) -> Future[list[Outcome]]:
        """Return at once with the outcomes to come, one a request, in their order.

        A future that is cancelled before its turn comes is not recorded; nor is anything `after` a submission that
        the database could not take, so that what depends on it never stands without it.

        Raises:
            LedgerError: `queue-full`, `shutting-down`; nothing is recorded then.
        """
        submission = _Submission(ledger, requests, after)
        size = submission.byte_count
        with self._changed:
            if self._closed:
                raise LedgerError(
                    Category.UNAVAILABLE, "shutting-down", "The service is shutting down; try again.", retry_after=1
                )
            if len(self._waiting) >= self._capacity or (self._waiting and self._waiting_bytes + size > QUEUE_BYTES):
                raise LedgerError(
                    Category.BUSY,
                    "queue-full",
                    "Too many appends are waiting to be written; nothing was recorded. Try again.",
                    retry_after=1,
                )
            self._waiting.append(submission)
            self._waiting_bytes += size
            self._changed.notify()
        return submission.future

    def submit(self, ledger: Ledger, request: Request) -> Receipt:
        """Record one request, and return once it is on disk.

        Raises:
            LedgerError: those of `enqueue`; `database-unavailable`; and whatever the request was refused for.
        """
        outcome = self.enqueue(ledger, [request]).result()[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def keep_reads(self, ledger: Ledger) -> None:
        """See to it that what reads of this ledger have worked out is kept once the writer is idle."""
        self._used[ledger.name] = ledger

    def close(self) -> None:
        """Take no more, record everything that waits, and stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._writer.join()

    # --- the writer's thread

    def _run(self) -> None:
        while self._record_next():
            pass

    def _record_next(self) -> bool:
        """Record the next group, or rest if there is none; nothing of it is held once it is answered."""
        group = self._next_group()
        if group is None:
            return False
        by_ledger: dict[str, list[_Submission]] = {}
        for submission in group:
            by_ledger.setdefault(submission.ledger.name, []).append(submission)
        for name, submissions in by_ledger.items():
            _record(submissions)
            self._used[name] = submissions[0].ledger
        if not group:
            self._rest()
        return True

    def _next_group(self) -> list[_Submission] | None:
        """Wait for work, and return it in order; an empty group if there was none for a while, None at the end."""
        with self._changed:
            if not self._waiting and not self._closed:
                self._changed.wait(IDLE_SECONDS)
            if not self._waiting:
                return None if self._closed else []
            group: list[_Submission] = []
            events = 0
            while self._waiting and len(group) < GROUP_SUBMISSIONS:
                events += self._waiting[0].event_count
                if group and events > GROUP_EVENTS:
                    break
                submission = self._waiting.popleft()
                self._waiting_bytes -= submission.byte_count
                if submission.future.set_running_or_notify_cancel():
                    group.append(submission)
            return group

    def _rest(self) -> None:
        while self._used:  # only this thread takes away, so what was there still is
            _, ledger = self._used.popitem()
            try:
                ledger.rest()
            except Exception as problem:  # noqa: BLE001 - it can be done another time, and the writer must go on
                _log.warning("nothing done while idle", ledger=ledger.name, error=type(problem).__name__)


def _record(submissions: Sequence[_Submission]) -> None:
    """Record submissions to one ledger in one transaction, and answer each."""
    within = {id(submission.future) for submission in submissions}  # fail together, if they do
    whole = []
    for submission in submissions:
        broken = None if id(submission.after) in within else submission.broken_by()
        if broken is None:
            whole.append(submission)
        else:
            submission.future.set_result([broken] * len(submission.requests))
            within.discard(id(submission.future))
    outcomes = iter(_append(submissions[0].ledger, [r for s in whole for r in s.requests]) if whole else ())
    for submission in whole:
        submission.future.set_result([next(outcomes) for _ in submission.requests])


def _append(ledger: Ledger, requests: Sequence[Request]) -> Sequence[Outcome]:
    """Return what happened to each request, whatever went wrong."""
    try:
        return ledger.append(requests)
    except LedgerError as refusal:  # of the transaction as a whole, for no reason that lies in a request
        return [refusal] * len(requests)
    except Exception as problem:  # noqa: BLE001 - whoever waits must hear of it, and the writer must go on
        if len(requests) == 1:
            return [problem]
    # One of them breaks the transaction, and must not break it for the others. Had it been stored after all, the
    # same ids would find it.
    outcomes: list[Outcome] = []
    for request in requests:
        outcomes += _append(ledger, [request])
        if isinstance(outcomes[-1], LedgerError) and outcomes[-1].category is Category.UNAVAILABLE:
            outcomes += [outcomes[-1]] * (len(requests) - len(outcomes))
            break
    return outcomes
