"""What a command writes to: standard output and error, progress, refusals, exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from factledger.core.errors import Category, LedgerError

UNEXPECTED, INVALID, CONFLICT, UNAVAILABLE, CORRUPT, INTERRUPTED = 1, 2, 4, 6, 7, 130

EXIT_CODES = {
    Category.MALFORMED: INVALID,
    Category.INVALID: INVALID,
    Category.TOO_LARGE: INVALID,
    Category.UNSUPPORTED_MEDIA: INVALID,
    Category.NOT_IMPLEMENTED: INVALID,
    Category.NOT_FOUND: 3,
    Category.CONFLICT: CONFLICT,
    Category.PRECONDITION: CONFLICT,
    Category.FORBIDDEN: 5,
    Category.BUSY: UNAVAILABLE,
    Category.UNAVAILABLE: UNAVAILABLE,
    Category.CORRUPT: CORRUPT,
}

_WIDE = 10_000  # off the terminal nothing is wrapped
_JOINERS = "\u200c\u200d"  # not printable by themselves, but part of how Persian and others are spelt


def out() -> Console:
    """Return standard output: coloured and as wide as the terminal, or plain and never wrapped."""
    return _console(sys.stdout)


def err() -> Console:
    """Return standard error, likewise; what is printed while a bar moves there stands above it."""
    return _console(sys.stderr) if _bar is None else _bar.console


def _console(file: Any) -> Console:
    width = None if file.isatty() else _WIDE
    return Console(file=file, width=width, highlight=False, markup=False, emoji=False)


def say(renderable: RenderableType, *, width: int | None = None, wrap: bool = True) -> None:
    """Print to standard output, at `width` if given; off the terminal without the blanks that fill lines up.

    Without `wrap` a line stays one line, so that it can be copied as it is.
    """
    console = out()
    if console.is_terminal:
        console.print(renderable, width=width, soft_wrap=not wrap)
        return
    with console.capture() as captured:
        console.print(renderable, width=width)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
    sys.stdout.flush()


def shown(text: str) -> str:
    """Return text without power over the terminal: whatever controls it is written as an escape."""
    return "".join(c if c.isprintable() or c in _JOINERS else repr(c)[1:-1] for c in text)


def write_json(body: bytes) -> None:
    """Write one JSON text and a line end to standard output, byte for byte."""
    sys.stdout.flush()
    sys.stdout.buffer.write(body + b"\n")
    sys.stdout.buffer.flush()


def problem(refusal: LedgerError, **more: Any) -> dict[str, Any]:
    """Return a refusal as a problem object, for programs."""
    return {
        **more,
        "type": f"/problems/{refusal.code}",
        "title": refusal.code.replace("-", " ").capitalize(),
        "detail": refusal.detail,
        "code": refusal.code,
        "errors": [{"pointer": fault.pointer, "detail": fault.detail} for fault in refusal.errors],
        "exit_code": EXIT_CODES[refusal.category],
    }


def report(refusal: LedgerError, *, json: bool, place: str = "") -> None:
    """Write a refusal to standard error: as a problem object, or as one sentence and what it points at."""
    if json:
        more = {"at": place} if place else {}
        _write_object(problem(refusal, **more))
        return
    console = err()
    pointed = [fault for fault in refusal.errors if fault.detail not in refusal.detail]
    if place:
        # As compilers do, so that editors can jump there; the general sentence adds nothing to the places.
        lines = [f"{fault.pointer} {fault.detail}".strip() for fault in pointed] or [refusal.detail]
        for line in lines:
            console.print(Text.assemble((shown(place), "bold"), ": ", shown(line)))
        return
    console.print(Text.assemble(("Error: ", "bold red"), shown(refusal.detail)))
    for fault in pointed:
        console.print(Text.assemble("  ", (shown(fault.pointer), "bold"), f" {shown(fault.detail)}"))


def _write_object(what: dict[str, Any]) -> None:
    """Write one JSON text to standard error, on one line however narrow the terminal."""
    line = orjson.dumps(what).decode()
    if _bar is None:
        sys.stderr.write(line + "\n")
    else:
        _bar.console.print(line, soft_wrap=True)


def notice(text: str, *, json: bool) -> None:
    """Write to standard error what is no refusal: a sentence, or an object with it."""
    if json:
        _write_object({"notice": text})
    else:
        err().print(shown(text))


Update = Callable[[int, int | None, int], None]
_bar: Progress | None = None  # the one that moves now


@contextmanager
def progress(title: str, unit: str) -> Iterator[Update]:
    """Yield `update(done, total, count)`; on a terminal it moves a bar with the rate of `count` and the time left."""
    global _bar
    console = err()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}", style="cyan"),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(title, total=None, rate="")

        def update(done: int, total: int | None, count: int) -> None:
            elapsed = bar.tasks[0].elapsed or 0
            rate = f"{count / elapsed:,.0f} {unit}/s" if elapsed > 0.2 else ""
            bar.update(task, completed=done, total=total, rate=rate)

        _bar = bar
        try:
            yield update
        finally:
            _bar = None
