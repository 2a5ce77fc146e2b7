"""Streams: appends of any length, line by line, in bounded memory.

Lines are recorded as they come in, each by itself, and each is answered by a line of its own. A client may send
everything before it reads anything: what it has not read yet waits in a file.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import anyio
import orjson
import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from factledger.appender import Outcome
from factledger.core import encoding, events
from factledger.core.errors import Category, Fault, LedgerError
from factledger.http import problems
from factledger.http.awaiting import Writer
from factledger.ledger import Ledger
from factledger.recording import MAX_BATCH, Receipt, Request, batch_too_large

MAX_LINE_BYTES = events.MAX_EVENT_BYTES
GROUP_LINES = 1_000
GROUP_BYTES = 256 * 1024  # an event takes about eight times its line while it is recorded
GROUPS_SENT = 1  # with the appender, beside the one that is answered next and the one that is read
UNREAD_MEMORY = 1024 * 1024
UNREAD_BYTES = 1024 * 1024 * 1024  # of results; beyond that we read no more until the client has read them
CHUNK = 64 * 1024

_log = structlog.get_logger(__name__)


class Lines:
    """Chunks of bytes in, lines out: at most one line is held, and none that is too long."""

    def __init__(self) -> None:
        """Start before the first line."""
        self._begun = bytearray()
        self._too_long = False

    def split(self, chunk: bytes) -> Iterator[bytes | None]:
        """Yield the lines that a chunk ends, without their ends; None for one beyond MAX_LINE_BYTES."""
        *ends, begun = chunk.split(b"\n")
        for end in ends:
            self._extend(end)
            yield self._take()
        self._extend(begun)

    def rest(self) -> Iterator[bytes | None]:
        """Yield the last line if nothing ended it."""
        if self._begun or self._too_long:
            yield self._take()

    def _extend(self, part: bytes) -> None:
        if self._too_long or len(self._begun) + len(part) > MAX_LINE_BYTES:
            self._too_long = True
            self._begun.clear()
        else:
            self._begun += part

    def _take(self) -> bytes | None:
        line = None if self._too_long else bytes(self._begun)
        self._begun.clear()
        self._too_long = False
        return line


class Unread:
    """Bytes that the client has yet to read, in order: a few in memory, more in a file without a name."""

    def __init__(self) -> None:
        """Start empty."""
        self._file = tempfile.SpooledTemporaryFile(max_size=UNREAD_MEMORY)  # noqa: SIM115 - closed by close()
        self._read_upto = self._written_upto = 0
        self._complete = False
        self._changed = anyio.Event()

    def write(self, data: bytes) -> None:
        """Add bytes at the end."""
        self._file.seek(self._written_upto)
        self._written_upto += self._file.write(data)
        self._tell()

    def complete(self) -> None:
        """Say that nothing more will come."""
        self._complete = True
        self._tell()

    async def read(self) -> bytes:
        """Return the next bytes once there are any; none at the end."""
        while self._read_upto == self._written_upto and not self._complete:
            await self._changed.wait()
        self._file.seek(self._read_upto)
        data = self._file.read(CHUNK)
        self._read_upto += len(data)
        if self._read_upto == self._written_upto:
            self._file.seek(0)
            self._file.truncate()
            self._read_upto = self._written_upto = 0
        self._tell()
        return data

    async def room(self) -> None:
        """Return once the file is smaller than UNREAD_BYTES: it starts anew whenever all of it has been read."""
        while self._written_upto >= UNREAD_BYTES:
            await self._changed.wait()

    def close(self) -> None:
        """Give the memory and the file back."""
        self._file.close()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


Group = list[tuple[int, bytes | None]]  # lines by number; None is one that is too long
Judged = list[Request | Exception]


@dataclass(frozen=True, slots=True)
class _Sent:
    """A group that the appender has: what each line was read as, and what happens to those that are events."""

    numbers: list[int]
    read: Judged
    outcomes: asyncio.Future[list[Outcome]]


class _Arrived:
    """Lines that nobody has taken yet, in order: about a group, so that a fast client waits for a slow disk."""

    def __init__(self) -> None:
        """Start empty."""
        self._lines: Group = []
        self._bytes = 0
        self._complete = False
        self._changed = anyio.Event()

    def add(self, number: int, line: bytes | None) -> None:
        """Add a line; a blank one counts, and is passed over."""
        if line is None or line.strip():
            self._lines.append((number, line))
            self._bytes += len(line or b"")

    def complete(self) -> None:
        """Say that nothing more will come."""
        self._complete = True
        self.tell()

    async def take(self) -> Group:
        """Return the lines that have come, at least one and at most a group; none at the end."""
        while not self._lines and not self._complete:
            await self._changed.wait()
        taken, self._lines = self._lines[:GROUP_LINES], self._lines[GROUP_LINES:]
        self._bytes -= sum(len(line or b"") for _, line in taken)
        self.tell()
        return taken

    async def room(self) -> None:
        """Return once there is less than a group."""
        while len(self._lines) >= GROUP_LINES or self._bytes >= GROUP_BYTES:
            await self._changed.wait()

    def tell(self) -> None:
        """Wake whoever waits."""
        self._changed.set()
        self._changed = anyio.Event()


class StreamedAppend(Response):
    """The answer to a stream of events: it records them while it is being sent.

    Four do it hand in hand: one takes lines in, one reads what has come as events and gives them to the appender, one
    writes what became of each, and one sends that to the client. So lines are read while those before them are being
    committed, and a group is as large as what came in meanwhile: none is waited for when there is nothing to do.
    """

    media_type = "application/x-ndjson"

    def __init__(self, writer: Writer, ledger: Ledger, recorded_by: str) -> None:
        """Take where the events go."""
        self._writer, self._ledger, self._recorded_by = writer, ledger, recorded_by
        self._counts: Counter[str] = Counter()
        self._last: Future[list[Outcome]] | None = None  # given to the appender
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-store"})

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Read, record and answer until the client has sent and read everything, or is gone."""
        arrived, unread = _Arrived(), Unread()
        sent: asyncio.Queue[_Sent | None] = asyncio.Queue(GROUPS_SENT)
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._deliver, unread, send)
                tasks.start_soon(self._write_outcomes, sent, unread)
                tasks.start_soon(self._append, arrived, sent)
                try:
                    await self._take_in(receive, arrived)
                except ClientDisconnect:
                    tasks.cancel_scope.cancel()
        finally:
            unread.close()

    async def _take_in(self, receive: Receive, arrived: _Arrived) -> None:
        lines = Lines()
        number = 0
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            more = message.get("more_body", False)
            found = lines.split(message.get("body", b""))
            for line in found if more else (*found, *lines.rest()):
                number += 1
                arrived.add(number, line)
            arrived.tell()
            await arrived.room()
        arrived.complete()

    async def _append(self, arrived: _Arrived, sent: asyncio.Queue[_Sent | None]) -> None:
        """Give every line that is an event to the appender, each as a request of its own."""
        while await self._append_next(arrived, sent):
            pass
        await sent.put(None)

    async def _append_next(self, arrived: _Arrived, sent: asyncio.Queue[_Sent | None]) -> bool:
        """Give the next group to the appender; nothing of it is held here once that is done."""
        group = await arrived.take()
        if group:
            read = await run_in_threadpool(self._read, group)
            requests = [request for request in read if isinstance(request, Request)]
            await sent.put(_Sent([number for number, _ in group], read, await self._enqueue(requests)))
        return bool(group)

    def _read(self, group: Group) -> Judged:
        found: Judged = []
        for _, line in group:
            try:
                found.append(read_line(line, self._recorded_by))
            except LedgerError as refusal:
                # An answer to give, not a failure to look into: where it was raised would keep the line alive.
                refusal.__context__ = None
                found.append(refusal.with_traceback(None))
            except Exception as problem:  # noqa: BLE001 - no line may break the others
                found.append(problem)
        return found

    async def _enqueue(self, requests: list[Request]) -> asyncio.Future[list[Outcome]]:
        """Return what will happen to each request; a full queue is waited for, as the client has no way to."""
        told: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        if not requests:
            told.set_result([])
            return told
        while True:
            try:
                waiting, self._last = self._writer.enqueue_after(self._last, self._ledger, requests)
                return waiting
            except LedgerError as refusal:
                if refusal.category is not Category.BUSY:
                    told.set_result([refusal] * len(requests))
                    return told
                await anyio.sleep(0.05)

    async def _write_outcomes(self, sent: asyncio.Queue[_Sent | None], unread: Unread) -> None:
        """Write what happened to each line, group by group, and the summary at the end."""
        while await self._write_next(sent, unread):
            pass
        size = await run_in_threadpool(self._ledger.size)
        names = ("recorded", "duplicate", "rejected")
        summary = {**{name: self._counts[name] for name in names}, "size": size}
        unread.write(orjson.dumps({"summary": summary}, option=orjson.OPT_APPEND_NEWLINE))
        unread.complete()

    def _answers(self, numbers: Sequence[int], read: Judged, outcomes: Sequence[Outcome]) -> bytes:
        recorded = iter(outcomes)
        answers = bytearray()
        for number, request in zip(numbers, read, strict=True):
            result, answer = _answer(number, next(recorded) if isinstance(request, Request) else request)
            self._counts[result] += 1
            answers += answer
        return bytes(answers)

    async def _write_next(self, sent: asyncio.Queue[_Sent | None], unread: Unread) -> bool:
        part = await sent.get()
        if part is None:
            return False
        # Shielded: if the client goes, what was given to the appender is recorded, for those after it may be too.
        unread.write(self._answers(part.numbers, part.read, await asyncio.shield(part.outcomes)))
        del part  # before the client is waited for
        await unread.room()
        return True

    async def _deliver(self, unread: Unread, send: Send) -> None:
        while data := await unread.read():
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _answer(number: int, outcome: Outcome) -> tuple[str, bytes]:
    """Return what happened to a line, in a word and as the line that says so."""
    if isinstance(outcome, Receipt):
        recorded, position = outcome.results[0][:2]
        result = "recorded" if recorded else "duplicate"
        return result, b'{"line":%d,"result":"%b","position":%d}\n' % (number, result.encode(), position)
    if not isinstance(outcome, LedgerError):
        _log.error("line failed", **problems.described(outcome))
    told = {"line": number, "result": "rejected", "problem": problems.problem(outcome)}
    return "rejected", orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE)


def read_line(line: bytes | None, recorded_by: str) -> Request:
    """Return the request that a line is; None is one that is too long.

    Raises:
        LedgerError: `line-too-long`, `malformed-json`, `invalid-event`, `event-too-large`.
    """
    if line is None:
        detail = f"A line may have at most {MAX_LINE_BYTES} bytes."
        raise LedgerError(Category.TOO_LARGE, "line-too-long", detail, errors=[Fault("", "is too long")])
    return Request([events.read_event(encoding.parse_json(line))], recorded_by)


def read_lines(body: bytes, recorded_by: str) -> list[Request | LedgerError]:
    """Return what each line of a body is, blank ones left out: a request, or why it is none.

    Raises:
        LedgerError: `batch-too-large` if there are more lines than a batch may have events.
    """
    lines = Lines()
    found: list[Request | LedgerError] = []
    for line in (*lines.split(body), *lines.rest()):
        if line is not None and not line.strip():
            continue
        if len(found) == MAX_BATCH:
            raise batch_too_large("preview the rest by itself")
        try:
            found.append(read_line(line, recorded_by))
        except LedgerError as refusal:
            found.append(refusal)
    return found
