"""Awaiting the writer: what its thread has done, brought back to the event loop in one piece.

Each waking of the loop from another thread costs a system call and a change of threads. A group of appends is
answered all at once, so the loop is woken once for all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress

from factledger.appender import Appender, Outcome
from factledger.ledger import Ledger
from factledger.recording import Request

_Waiting = asyncio.Future[list[Outcome]]
_Doing = Future[list[Outcome]]


class Writer:
    """The appender, as code on an event loop uses it; of one loop, whichever asks first."""

    def __init__(self, appender: Appender) -> None:
        """Take the appender."""
        self._appender = appender
        self._done: deque[tuple[_Waiting, Future[list[Outcome]]]] = deque()
        self._woken = False

    def enqueue(self, ledger: Ledger, requests: Sequence[Request]) -> _Waiting:
        """Return at once with the outcomes to come, one a request; cancelled in time, nothing is recorded.

        Raises:
            LedgerError: `queue-full`, `shutting-down`; nothing is recorded then.
        """
        return self._await(self._appender.enqueue(ledger, requests))

    def enqueue_after(
        self, last: _Doing | None, ledger: Ledger, requests: Sequence[Request]
    ) -> tuple[_Waiting, _Doing]:
        """Do as `enqueue`, but record nothing if the database could not take the last; return what to name as last."""
        doing = self._appender.enqueue(ledger, requests, last)
        return self._await(doing), doing

    def _await(self, doing: _Doing) -> _Waiting:
        loop = asyncio.get_running_loop()
        waiting: _Waiting = loop.create_future()
        waiting.add_done_callback(lambda told: doing.cancel() if told.cancelled() else None)
        doing.add_done_callback(lambda done: self._hand_over(loop, waiting, done))
        return waiting

    def _hand_over(self, loop: asyncio.AbstractEventLoop, waiting: _Waiting, done: Future[list[Outcome]]) -> None:
        """Leave what is done for the loop, and wake it unless it is about to look."""
        self._done.append((waiting, done))  # before the question: the loop resets it before it looks
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._woken = False
        while self._done:
            waiting, done = self._done.popleft()
            if not waiting.done() and not done.cancelled():
                waiting.set_result(done.result())
