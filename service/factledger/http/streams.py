"""Streams: appends of any length, line by line, in bounded memory.

Lines are recorded as they come in, each by itself, and each is answered by a line of its own. A client may send
everything before it reads anything: what it has not read yet waits in a file.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Iterator
from typing import Any

import anyio
import orjson
import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from factledger.appender import Appender, Outcome
from factledger.core import encoding, events
from factledger.core.errors import Category, Fault, LedgerError
from factledger.http import problems
from factledger.ledger import Ledger
from factledger.recording import MAX_BATCH, Receipt, Request, batch_too_large

MAX_LINE_BYTES = events.MAX_EVENT_BYTES
GROUP_LINES = 500
GROUP_BYTES = 1024 * 1024
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


class StreamedAppend(Response):
    """The answer to a stream of events: it records them while it is being sent."""

    media_type = "application/x-ndjson"

    def __init__(self, appender: Appender, ledger: Ledger, recorded_by: str) -> None:
        """Take where the events go."""
        self._appender, self._ledger, self._recorded_by = appender, ledger, recorded_by
        self._counts: Counter[str] = Counter()
        self._line = 0
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-store"})

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Read, record and answer until the client has sent and read everything, or is gone."""
        unread = Unread()
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._deliver, unread, send)
                try:
                    await self._take_in(receive, unread)
                except ClientDisconnect:
                    tasks.cancel_scope.cancel()
                unread.complete()
        finally:
            unread.close()

    async def _deliver(self, unread: Unread, send: Send) -> None:
        while data := await unread.read():
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _take_in(self, receive: Receive, unread: Unread) -> None:
        lines = Lines()
        group: list[tuple[int, bytes | None]] = []
        held = 0
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            more = message.get("more_body", False)
            found = lines.split(message.get("body", b""))
            for line in found if more else (*found, *lines.rest()):
                self._line += 1
                if line is None or line.strip():
                    group.append((self._line, line))
                    held += len(line or b"")
                if len(group) >= GROUP_LINES or held >= GROUP_BYTES:
                    await self._record(group, unread)
                    group, held = [], 0
            # What came in meanwhile is the next group: it is large when the client is fast, and never waited for.
            if group:
                await self._record(group, unread)
                group, held = [], 0
        size = await run_in_threadpool(self._ledger.size)
        names = ("recorded", "duplicate", "rejected")
        summary = {**{name: self._counts[name] for name in names}, "size": size}
        unread.write(orjson.dumps({"summary": summary}, option=orjson.OPT_APPEND_NEWLINE))

    async def _record(self, group: list[tuple[int, bytes | None]], unread: Unread) -> None:
        """Record a group of lines, each all by itself, and write what happened to each."""
        read = await run_in_threadpool(self._read, group)
        outcomes = iter(await self._append([request for request in read if isinstance(request, Request)]))
        answers = bytearray()
        for (number, _), request in zip(group, read, strict=True):
            outcome = next(outcomes) if isinstance(request, Request) else request
            answer = _answer(outcome)
            self._counts[answer["result"]] += 1
            answers += orjson.dumps({"line": number, **answer}, option=orjson.OPT_APPEND_NEWLINE)
        unread.write(bytes(answers))
        await unread.room()

    def _read(self, group: list[tuple[int, bytes | None]]) -> list[Request | Exception]:
        found: list[Request | Exception] = []
        for _, line in group:
            try:
                found.append(read_line(line, self._recorded_by))
            except Exception as problem:  # noqa: BLE001 - no line may break the others
                found.append(problem)
        return found

    async def _append(self, requests: list[Request]) -> list[Outcome]:
        """Return what happened to each request; a full queue is waited for, as the client has no way to."""
        while requests:
            try:
                future = self._appender.enqueue(self._ledger, requests)
            except LedgerError as refusal:
                if refusal.category is not Category.BUSY:
                    return [refusal] * len(requests)
                await anyio.sleep(0.05)
            else:
                return await asyncio.wrap_future(future)
        return []


def _answer(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Receipt):
        result = outcome.results[0]
        return {"result": "recorded" if result.recorded else "duplicate", "position": result.position}
    if not isinstance(outcome, LedgerError):
        _log.error("line failed", **problems.described(outcome))
    return {"result": "rejected", "problem": problems.problem(outcome)}


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
