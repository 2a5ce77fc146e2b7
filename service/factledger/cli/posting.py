"""Reading events from files, and sending them so that good lines are kept and bad ones are named."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from factledger.cli.reach import Outcome, Reach, draft_of, gathered
from factledger.client.errors import stated
from factledger.core import encoding, events
from factledger.core.errors import Category, LedgerError

MAX_PREVIEW = 10_000  # a service takes as many together
MAX_LINE_BYTES = 2 * 1024 * 1024  # an event of 256 KiB may be written with many an escape
MAX_DOCUMENT_BYTES = 256 * 1024 * 1024  # an array is read whole
_GZIP = b"\x1f\x8b"
_DOCUMENT, _LINES = (".json",), (".jsonl", ".ndjson")

_CHUNK = 1024 * 1024

_Raw = io.BufferedReader
Place = str  # file:line, or file:pointer in an array


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a file has been read: bytes once decompressed, lines, and the SHA-256 of those bytes.

    A JSON document is read as a whole or not at all.
    """

    offset: int
    line: int
    sha256: str
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """One event of a file: where it stands, as it was read, and as it is sent or why it is not.

    `raw` is None where it is too long to be held, or no event by itself. `reached` returns how far the file has been
    read with it; it is None within a JSON document, and where the line is not at an end yet.
    """

    name: str
    place: Place
    raw: bytes | None
    event: bytes | LedgerError
    reached: Callable[[], Reached] | None = None


@dataclass(slots=True)
class Summary:
    """What became of all events so far."""

    recorded: int = 0
    duplicate: int = 0
    rejected: int = 0
    conflicting: int = 0  # of the rejected
    size: int | None = None

    @property
    def count(self) -> int:
        """Return how many events were read."""
        return self.recorded + self.duplicate + self.rejected

    def json(self) -> dict[str, int | None]:
        """Return the summary for programs, as the service's own stream ends with it."""
        counts = {"recorded": self.recorded, "duplicate": self.duplicate, "rejected": self.rejected}
        return {**counts, "size": self.size}

    def sentence(self) -> str:
        """Return the summary for people."""
        return f"{self.recorded:,} recorded, {self.duplicate:,} there already, {self.rejected:,} rejected"


class Files:
    """Files of events, read one after the other in bounded memory; `-` is standard input.

    A `.json` holds one event or an array, a `.jsonl` or `.ndjson` one event a line; of anything else the first
    line tells. Each may be compressed with gzip, whatever its name.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Take the names.

        Raises:
            LedgerError: `file-not-found`, `file-unreadable`, before anything is read.
        """
        self._names = names
        self.done = 0
        sizes = [_size_of(name) for name in names]
        self.total = None if None in sizes else sum(size or 0 for size in sizes)

    def items(
        self, reached: Mapping[str, Reached] | None = None, changed: Callable[[str], None] | None = None
    ) -> Iterator[Item]:
        """Yield every event, blank lines left out; a file that breaks off ends with why.

        What had been `reached` in a file is passed over, unless that part of the file is not what it was: then
        `changed` is called, and the file is read from its beginning.
        """
        for name in self._names:
            before = self.done
            former = reached.get(name) if reached else None
            if former is not None and changed is not None and not _is_unchanged(name, former):
                changed(name)
                former = None
            with _raw(name) as raw:
                stream = _Stream(raw, tracked=reached is not None)
                try:
                    for item in _items(name, stream, former):
                        if raw.seekable():
                            self.done = before + raw.tell()
                        yield item
                except (EOFError, zlib.error, gzip.BadGzipFile):
                    why = _unreadable("breaks off or is damaged: it does not decompress")
                    yield Item(name, f"{name}:{stream.line + 1}", None, why)
                self.done = before + (raw.tell() if raw.seekable() else 0)


def _unreadable(why: str) -> LedgerError:
    return LedgerError(Category.MALFORMED, "file-unreadable", f"The file {why}.")


def _size_of(name: str) -> int | None:
    if name == "-":
        if sys.stdin is None:
            raise LedgerError(Category.INVALID, "file-unreadable", "There is no standard input to read: it is closed.")
        return None
    path = Path(name)
    try:
        with path.open("rb"):
            return path.stat().st_size if path.is_file() else None
    except FileNotFoundError:
        raise LedgerError(Category.NOT_FOUND, "file-not-found", f"There is no file {name}.") from None
    except OSError as problem:
        raise LedgerError(
            Category.INVALID, "file-unreadable", f"The file {name} cannot be read: {os.strerror(problem.errno or 0)}."
        ) from None


@contextmanager
def _raw(name: str) -> Iterator[_Raw]:
    if name == "-":
        standard: Any = sys.stdin.buffer
        yield standard if isinstance(standard, io.BufferedReader) else io.BufferedReader(standard)
    else:
        with Path(name).open("rb") as raw:
            yield raw


class _Stream:
    """What a file holds once decompressed, which is told by its first bytes and not by its name."""

    def __init__(self, raw: _Raw, *, tracked: bool) -> None:
        self._stream: Any = gzip.GzipFile(fileobj=raw) if raw.peek(2).startswith(_GZIP) else raw
        self._digest = hashlib.sha256() if tracked else None
        self._offset = self.line = 0

    def readline(self, limit: int) -> bytes:
        return self._read(self._stream.readline(limit))

    def read(self, limit: int) -> bytes:
        return self._read(self._stream.read(limit))

    def skip(self, former: Reached) -> bool:
        """Read what was read before, and tell whether it is the same."""
        while (left := former.offset - self._offset) > 0 and self.read(min(left, _CHUNK)):
            pass
        self.line = former.line
        same = self.reached().sha256 == former.sha256
        return same and not (former.whole and self.read(1))

    def reached(self, *, whole: bool = False) -> Reached:
        """Return how far it was read."""
        assert self._digest is not None
        return Reached(self._offset, self.line, self._digest.hexdigest(), whole)

    def marker(self, *, whole: bool = False) -> Callable[[], Reached] | None:
        """Return what returns how far it was read just now; None if nobody wants to know."""
        if self._digest is None:
            return None
        offset, line, digest = self._offset, self.line, self._digest.copy()
        return lambda: Reached(offset, line, digest.hexdigest(), whole)

    def _read(self, data: bytes) -> bytes:
        self._offset += len(data)
        if self._digest is not None:
            self._digest.update(data)
        return data


def _is_unchanged(name: str, former: Reached) -> bool:
    with _raw(name) as raw:
        try:
            return _Stream(raw, tracked=True).skip(former)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return False


def _items(name: str, stream: _Stream, former: Reached | None) -> Iterator[Item]:
    """Yield each event after what was reached before."""
    suffixes = Path(name.removesuffix(".gz")).suffix.lower()
    document = suffixes in _DOCUMENT
    if former is not None:
        stream.skip(former)
        if former.whole:
            return
    while line := stream.readline(MAX_LINE_BYTES + 1):
        stream.line += 1
        if document or (stream.line == 1 and suffixes not in _LINES and _opens_document(line)):
            body = line + stream.read(MAX_DOCUMENT_BYTES)
            yield from _document(name, body, stream.marker(whole=True))
            return
        place = f"{name}:{stream.line}"
        if len(line) > MAX_LINE_BYTES:
            while line and not line.endswith(b"\n"):
                line = stream.readline(MAX_LINE_BYTES)
            yield Item(name, place, None, _too_long("A line", MAX_LINE_BYTES), stream.marker())
        elif line.strip():
            # A last line without an end may still be written on.
            marker = stream.marker() if line.endswith(b"\n") else None
            yield Item(name, place, line, _sendable(line.strip(b" \t\r\n")), marker)


def _opens_document(line: bytes) -> bool:
    return line.lstrip().startswith(b"[") or line.strip() == b"{"


def _too_long(what: str, limit: int) -> LedgerError:
    return LedgerError(
        Category.TOO_LARGE, "input-too-long", f"{what} may have at most {limit} bytes; put many events one a line."
    )


def _sendable(line: bytes) -> bytes | LedgerError:
    """Return a line as it is sent: as it is, unless it is long."""
    if len(line) <= events.MAX_EVENT_BYTES:
        return line
    try:
        # What is long for its many escapes may still be short enough once they are gone.
        return encoding.canonical_bytes(encoding.parse_json(line))
    except LedgerError as refusal:
        return refusal


def _document(name: str, body: bytes, marker: Callable[[], Reached] | None) -> Iterator[Item]:
    """Yield the event, or the array's events, of a JSON document."""
    if len(body) > MAX_DOCUMENT_BYTES:
        yield Item(name, name, None, _too_long("A JSON document", MAX_DOCUMENT_BYTES))
        return
    try:
        parsed = encoding.parse_json(body)
    except LedgerError as refusal:
        yield Item(name, name, None, refusal)
        return
    several = isinstance(parsed, list)
    found = parsed if several else [parsed]
    for index, event in enumerate(found):
        line = encoding.canonical_bytes(event)
        last = index == len(found) - 1
        yield Item(name, f"{name}:/{index}" if several else name, line + b"\n", line, marker if last else None)


def post(
    items: Iterator[Item],
    ledger: Reach,
    summary: Summary,
    *,
    refused: Callable[[Item, LedgerError], None],
    settled: Callable[[Item], None],
) -> None:
    """Append every event, keeping the summary; call `refused` for each bad one and `settled` for each, in order."""
    waiting: deque[Item] = deque()

    def sent() -> Iterator[bytes]:
        for item in items:
            waiting.append(item)
            if isinstance(item.event, bytes):
                yield item.event

    def settle(outcome: Outcome) -> None:
        item = waiting.popleft()
        if isinstance(outcome, LedgerError):
            summary.rejected += 1
            summary.conflicting += outcome.category is Category.CONFLICT
            refused(item, outcome)
        elif outcome:
            summary.recorded += 1
        else:
            summary.duplicate += 1
        settled(item)

    def settle_unsent() -> None:
        while waiting and isinstance(refusal := waiting[0].event, LedgerError):
            settle(refusal)

    for outcome, size in ledger.append(sent()):
        settle_unsent()
        summary.size = size
        settle(outcome)
    settle_unsent()
    if summary.size is None:
        summary.size = ledger.size()


def preview(files: Files, ledger: Reach, limit: int, *, refused: Callable[[Item, LedgerError], None]) -> dict[str, Any]:
    """Return what posting every event would change, about `limit` changes of it; `refused` as for `post`.

    Raises:
        LedgerError: `preview-too-large` if there are more events than can be tried together.
    """
    items = list(islice(files.items(), MAX_PREVIEW + 1))
    if len(items) > MAX_PREVIEW:
        raise LedgerError(
            Category.TOO_LARGE,
            "preview-too-large",
            f"At most {MAX_PREVIEW:,} events can be tried together; preview a part of them.",
        )
    items = [item if isinstance(item.event, LedgerError) else replace(item, event=_fit(item.event)) for item in items]
    lines = [item.event for item in items if isinstance(item.event, bytes)]
    whole = gathered(lambda after, most: ledger.preview(lines, after, most), limit)
    results = iter(whole["results"])
    for item in items:
        outcome = item.event
        if isinstance(outcome, LedgerError):
            whole["rejected"] += 1
            refused(item, outcome)
        elif (result := next(results))["result"] == "rejected":
            refused(item, stated(result["problem"]))
    return whole


def _fit(line: bytes) -> bytes | LedgerError:
    """Return a line that is an event, or why it is none."""
    refusal = draft_of(line)
    return refusal if isinstance(refusal, LedgerError) else line
