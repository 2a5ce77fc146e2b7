"""Reading events from files, and sending them so that good lines are kept and bad ones are named."""

from __future__ import annotations

import gzip
import io
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from factledger.cli.reach import PAGE, Line, Reach, refusal_of
from factledger.core import encoding, events
from factledger.core.errors import Category, LedgerError

BATCH = 1_000
MAX_PREVIEW = 10_000  # a service takes as many together
MAX_LINE_BYTES = 2 * 1024 * 1024  # an event of 256 KiB may be written with many an escape
MAX_DOCUMENT_BYTES = 256 * 1024 * 1024  # an array is read whole
_GZIP = b"\x1f\x8b"
_DOCUMENT, _LINES = (".json",), (".jsonl", ".ndjson")

_Raw = io.BufferedReader
_Stream = io.BufferedReader | gzip.GzipFile
Place = str  # file:line, or file:pointer in an array


@dataclass(frozen=True, slots=True)
class Item:
    """One event of a file: where it stands, and the event or why it is none."""

    place: Place
    event: Line | LedgerError


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

    def items(self) -> Iterator[Item]:
        """Yield every event, blank lines left out; a file that breaks off ends with why."""
        for name in self._names:
            before, line = self.done, 0
            with _raw(name) as raw:
                try:
                    for item, number in _items(name, _unzipped(raw)):
                        line = number
                        if raw.seekable():
                            self.done = before + raw.tell()
                        yield item
                except (EOFError, zlib.error, gzip.BadGzipFile):
                    yield Item(f"{name}:{line + 1}", _unreadable("breaks off or is damaged: it does not decompress"))
                self.done = before + (raw.tell() if raw.seekable() else 0)


def _unreadable(why: str) -> LedgerError:
    return LedgerError(Category.MALFORMED, "file-unreadable", f"The file {why}.")


def _size_of(name: str) -> int | None:
    if name == "-":
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


def _unzipped(raw: _Raw) -> _Stream:
    """Return what a stream holds once decompressed; told by its first bytes, not by its name."""
    return gzip.GzipFile(fileobj=raw) if raw.peek(2).startswith(_GZIP) else raw


def _items(name: str, stream: _Stream) -> Iterator[tuple[Item, int]]:
    """Yield each event with the number of its line."""
    suffixes = Path(name.removesuffix(".gz")).suffix.lower()
    number, document = 0, suffixes in _DOCUMENT
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if document or (number == 1 and suffixes not in _LINES and _opens_document(line)):
            body = line + stream.read(MAX_DOCUMENT_BYTES)
            if len(body) > MAX_DOCUMENT_BYTES:
                yield Item(name, _too_long("A JSON document", MAX_DOCUMENT_BYTES)), number
            else:
                yield from ((item, number) for item in _document(name, body))
            return
        place = f"{name}:{number}"
        if len(line) > MAX_LINE_BYTES:
            while line and not line.endswith(b"\n"):
                line = stream.readline(MAX_LINE_BYTES)
            yield Item(place, _too_long("A line", MAX_LINE_BYTES)), number
        elif line.strip():
            yield Item(place, _read(line.strip(b" \t\r\n"))), number


def _opens_document(line: bytes) -> bool:
    return line.lstrip().startswith(b"[") or line.strip() == b"{"


def _too_long(what: str, limit: int) -> LedgerError:
    return LedgerError(
        Category.TOO_LARGE, "input-too-long", f"{what} may have at most {limit} bytes; put many events one a line."
    )


def _read(body: bytes) -> Line | LedgerError:
    try:
        event = encoding.parse_json(body)
        # What is long for its many escapes may still be short enough once they are gone.
        return Line(
            body if len(body) <= events.MAX_EVENT_BYTES else encoding.canonical_bytes(event), events.read_event(event)
        )
    except LedgerError as refusal:
        return refusal


def _document(name: str, body: bytes) -> Iterator[Item]:
    """Yield the event, or the array's events, of a JSON document."""
    try:
        parsed = encoding.parse_json(body)
    except LedgerError as refusal:
        yield Item(name, refusal)
        return
    several = isinstance(parsed, list)
    for index, event in enumerate(parsed if several else [parsed]):
        place = f"{name}:/{index}" if several else name
        try:
            draft = events.read_event(event)
            yield Item(place, Line(encoding.canonical_bytes(event), draft))
        except LedgerError as refusal:
            yield Item(place, refusal)


def post(
    files: Files,
    ledger: Reach,
    summary: Summary,
    *,
    refused: Callable[[Place, LedgerError], None],
    sent: Callable[[], None],
) -> None:
    """Append every event in batches, keeping the summary; call `refused` for each bad one, in order.

    `sent` is called after each batch.
    """
    items = files.items()
    while batch := list(islice(items, BATCH)):
        lines = [item.event for item in batch if isinstance(item.event, Line)]
        told: Iterator[bool | LedgerError] = iter(())
        if lines:
            appended = ledger.append(lines)
            summary.size = appended.size
            told = iter(appended.outcomes)
        for item in batch:
            outcome = next(told) if isinstance(item.event, Line) else item.event
            if isinstance(outcome, LedgerError):
                summary.rejected += 1
                summary.conflicting += outcome.category is Category.CONFLICT
                refused(item.place, outcome)
            elif outcome:
                summary.recorded += 1
            else:
                summary.duplicate += 1
        sent()
    if summary.size is None:
        summary.size = ledger.size()


def preview(
    files: Files, ledger: Reach, limit: int, *, refused: Callable[[Place, LedgerError], None]
) -> dict[str, Any]:
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
    lines = [item.event for item in items if isinstance(item.event, Line)]
    whole: dict[str, Any] = orjson.loads(ledger.preview(lines, None, min(limit, PAGE)))
    while whole["next"] is not None and (left := limit - len(whole["changes"]) - len(whole["survived"])) > 0:
        (after,) = parse_qs(urlsplit(whole["next"]).query)["after"]
        page = orjson.loads(ledger.preview(lines, after, min(left, PAGE)))
        for name in ("changes", "survived"):
            whole[name] += page[name]
        whole["next"] = page["next"]
    results = iter(whole["results"])
    for item in items:
        outcome = item.event
        if isinstance(outcome, LedgerError):
            whole["rejected"] += 1
            refused(item.place, outcome)
        elif (result := next(results))["result"] == "rejected":
            refused(item.place, refusal_of(result["problem"]))
    return whole
