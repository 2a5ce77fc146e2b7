"""What the importers share: files in, events out, and the line of whatever cannot be imported.

An importer is a function from a file to (line, event) pairs. Where a line cannot become an event, there is a
`LeftOut` in its place, so that nothing is skipped silently.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from factledger.client import Ledger, LedgerError, RejectedError


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Why a line is not imported."""

    why: str


ASSERTION = "factledger.assertion.v1"
REMEMBERED = 10_000

Event = dict[str, Any]
Row = dict[str, Any]
Mapped = tuple[int, Event | LeftOut]  # the line, counted from 1, and what became of it
Importer = Callable[[Path, Path | None], Iterator[Mapped]]  # the file, and the one imported before it


def opened(file: Path) -> TextIO:
    """Return a text file to be read, compressed by gzip or not."""
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8", newline="")
    return file.open(encoding="utf-8", newline="")


def json_lines(file: Path) -> Iterator[tuple[int, Row | LeftOut]]:
    """Yield the objects of a file that has one on each line."""
    with opened(file) as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as problem:
                yield number, LeftOut(f"is no JSON: {problem.msg}")
            else:
                yield number, row if isinstance(row, dict) else LeftOut("is no object")


def mapped(rows: Iterable[tuple[int, Row | LeftOut]], mapping: Callable[[Row], Iterable[Event]]) -> Iterator[Mapped]:
    """Yield what a mapping makes of each row: all its events, or why it makes none."""
    for number, row in rows:
        if isinstance(row, LeftOut):
            yield number, row
            continue
        try:
            events = list(mapping(row))
        except KeyError as missing:
            yield number, LeftOut(f"has no {missing}")
        except (AttributeError, LookupError, TypeError, ValueError) as problem:
            yield number, LeftOut(str(problem))
        else:
            yield from ((number, event) for event in events)


def once(pairs: Iterable[Mapped]) -> Iterator[Mapped]:
    """Yield what a file says, and what is no assertion only once: the label of a publisher is not news on each line.

    It forgets after a while, to stay small. The ledger recognises what is said again.
    """
    said: set[str] = set()
    for number, event in pairs:
        if isinstance(event, LeftOut) or event["type"] == ASSERTION:
            yield number, event
        elif event["id"] not in said:
            if len(said) == REMEMBERED:
                said.clear()
            said.add(event["id"])
            yield number, event


def slug(name: str, joint: str = "-") -> str:
    """Return a name in lower-case letters, digits and joints, as ids and predicates want it."""
    plain = unicodedata.normalize("NFKD", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", joint, plain.lower()).strip(joint)


def post(ledger: Ledger, file: Path, pairs: Iterable[Mapped]) -> bool:
    """Post the events of a file, print what became of them, and tell whether all lines are in the ledger."""
    left_out = 0
    lines: deque[int] = deque()  # of the events on their way

    def events() -> Iterator[Event]:
        nonlocal left_out
        for number, event in pairs:
            if isinstance(event, LeftOut):
                left_out += 1
                print(f"{file.name}:{number}: left out: {event.why}", file=sys.stderr)
            else:
                lines.append(number)
                yield event

    begun = time.perf_counter()
    posting = ledger.post(events())
    try:
        for result in posting:
            number = lines.popleft()
            if result.refusal is not None:
                places = "; ".join(f"{fault.pointer} {fault.detail}" for fault in result.refusal.errors)
                print(f"{file.name}:{number}: rejected: {places or result.refusal.detail}", file=sys.stderr)
    except RejectedError:
        pass  # each has been told of
    seconds, did = time.perf_counter() - begun, posting.summary
    print(
        f"{file.name}: {did.recorded:,} recorded, {did.duplicate:,} there already, {did.rejected:,} rejected, "
        f"{left_out:,} lines left out ({did.count / max(seconds, 0.001):,.0f} events/s)"
    )
    return did.rejected == left_out == 0


def main(importer: Importer, source: str, about: str, argv: Sequence[str] | None = None) -> int:
    """Run an importer as a program; 0 if every line is in the ledger now, 2 if not, 6 if the service is away."""
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="may be compressed by gzip")
    parser.add_argument("--previous", type=Path, help="the file that was imported before this one")
    parser.add_argument("--server", default="http://127.0.0.1:8000")
    parser.add_argument("--ledger", default="main")
    given = parser.parse_args(argv)
    try:
        with Ledger(given.server, ledger=given.ledger, source=source) as ledger:
            complete = [post(ledger, file, importer(file, given.previous)) for file in given.files]
    except LedgerError as failure:
        print(failure.detail, file=sys.stderr)
        return 6
    except OSError as failure:
        print(failure, file=sys.stderr)
        return 2
    return 0 if all(complete) else 2
