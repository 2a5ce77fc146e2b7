"""The demonstration at the terminal: the story, then the service with lines to paste."""

from __future__ import annotations

import errno
import shlex
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from factledger.cli import tables, terminal
from factledger.core.errors import Category, LedgerError

if TYPE_CHECKING:
    from factledger.demo.story import Ask, Chapter, Moment, Row, Story

WIDTH = 100
_INDENT, _STATUS, _PROBABILITY = 3, 10, 5
_MEANINGS = (
    ("accepted", "probable enough to go by"),
    ("reported", "said, with nothing against it, but not by enough to go by"),
    ("contested", "there is evidence for and against, and neither side wins"),
    ("outweighed", "said, but what speaks against it is stronger"),
    ("denied", "only ever denied"),
    ("withdrawn", "whatever was said has been taken back"),
)
_QUIET = "bright_black"
_PORTS = 100  # to look at for a free one


def story(path: Path) -> Story:
    """Return the story of the demonstration's ledger."""
    from factledger.demo.story import tell
    from factledger.wiring import DEFAULT_LEDGER, open_ledgers

    ledgers = open_ledgers(f"sqlite:///{path}")
    try:
        return tell(ledgers.get(DEFAULT_LEDGER))
    finally:
        ledgers.database.close()


@dataclass(frozen=True, slots=True)
class _Columns:
    """How wide the columns are on a page of some width; a narrow one has short bars and signs for words."""

    page: int

    @property
    def _narrow(self) -> bool:
        return self.page < WIDTH

    @property
    def bar(self) -> int:
        return 5 if self._narrow else 10

    @property
    def voices(self) -> int:
        return 5 if self._narrow else 20

    def left_for_values(self, label: int) -> int:
        gaps = 5 * 2
        return max(16, self.page - _INDENT - label - _STATUS - self.bar - _PROBABILITY - self.voices - gaps)

    def counted(self, row: Row) -> Text:
        """Return how many independent sources say it, and how many deny it."""
        if self._narrow:
            return tables.witnesses(row.sources, row.denials)
        said = [tables.count(row.sources, "source")] if row.sources else []
        denied = [f"{row.denials} against"] if row.denials else []
        return Text(", ".join(said + denied), style=_QUIET)


def show(told: Story, *, json: bool) -> None:
    """Print the story."""
    if json:
        terminal.write_json(orjson.dumps(asdict(told)))
    else:
        width = min(terminal.out().width, WIDTH)
        terminal.say(Group(*_laid_out(told, _Columns(width))), width=width)


def _laid_out(told: Story, columns: _Columns) -> Iterator[RenderableType]:
    yield Text()
    yield Text("Five news articles, one valley", style="bold")
    yield Text(
        "Panjshir, Afghanistan, August and September 2021. The articles disagree, copy each other, deny, guess, and "
        "end in advertising. Every claim is kept with who made it, and none is ever overwritten. So one can ask what "
        "to believe, what was believed on any day, and why. The bars say how probable it is; a source counts once, "
        "however often it is copied.\n"
    )
    yield _legend()
    for number, chapter in enumerate(told.chapters, start=1):
        yield Text()
        yield Text.assemble((f"{number}  ", _QUIET), (chapter.question, "bold cyan"))
        yield _indented(Text(chapter.remark))
        yield from _moments(chapter, columns)
    yield Text()
    yield Text(
        f"All of this comes from {told.events} events. None was changed or deleted: what was taken back no longer "
        "counts, and can still be read."
    )


def _legend() -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for word, meaning in _MEANINGS:
        grid.add_row(tables.status(word), Text(meaning, style=_QUIET))
    return grid


def _moments(chapter: Chapter, columns: _Columns) -> Iterator[RenderableType]:
    label = max(len(moment.label) for moment in chapter.moments)
    longest = max(len(row.value) for moment in chapter.moments for row in moment.rows)
    value = min(longest, columns.left_for_values(label))
    for moment in chapter.moments:
        yield _indented(_rows(moment, label, value, columns))
        yield Padding(Text(moment.why, style=f"italic {_QUIET}"), (0, 0, 0, _INDENT + label + 2))


def _rows(moment: Moment, label: int, value: int, columns: _Columns) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for width in (label, value, _STATUS, columns.bar, _PROBABILITY, columns.voices):
        grid.add_column(width=width, overflow="fold")
    for number, row in enumerate(moment.rows):
        grid.add_row(
            Text(moment.label if number == 0 else "", style="bold"),
            Text(row.value, style="bold" if number == 0 else ""),
            tables.status(row.status),
            tables.bar(row.probability or 0, columns.bar, tables.STYLES[row.status]),
            tables.probability(row.probability),
            columns.counted(row),
        )
    return grid


def _indented(renderable: RenderableType) -> Padding:
    return Padding(renderable, (0, 0, 0, _INDENT))


def serve(path: Path, asks: tuple[Ask, ...], host: str, port: int, *, json: bool) -> None:
    """Serve the demonstration's ledger until it is told to stop, on the first free port from `port` on."""
    from factledger.http.serving import serve as serve_http
    from factledger.settings import read_settings

    settings = read_settings().model_copy(update={"log_level": "warning"})  # the terminal is for the story
    free = _free_port(host, port)
    if not json:
        shown = f"[{host}]" if ":" in host else host
        for line in _to_paste(f"http://{shown}:{free}", asks):
            terminal.say(line, wrap=False)
    with suppress(KeyboardInterrupt):  # the way to end it
        serve_http(f"sqlite:///{path}", settings, host, free, lambda line: terminal.err().print(line))


def _to_paste(address: str, asks: tuple[Ask, ...]) -> Iterator[Text]:
    yield Text("\nAsk it yourself while it runs; each line can be pasted as it is. Ctrl-C ends it.\n", style="bold")
    for ask in asks:
        posted = ""
        if ask.body is not None:
            posted = f" -H {shlex.quote('Content-Type: application/cloudevents+json')} -d {shlex.quote(ask.body)}"
        yield Text(f"# {ask.answers}", style=_QUIET)
        yield Text(f"curl -s{posted} {shlex.quote(address + ask.path)}")
    yield Text()


def _free_port(host: str, first: int) -> int:
    """Return the first port from `first` on that nobody listens on."""
    for port in range(first, min(first + _PORTS, 65536)):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as problem:
                if problem.errno != errno.EADDRINUSE:
                    raise LedgerError(
                        Category.UNAVAILABLE, "address-unusable", f"{host}:{port}: {problem.strerror}."
                    ) from None
                continue
            return int(probe.getsockname()[1])
    raise LedgerError(
        Category.UNAVAILABLE, "no-free-port", f"Every port from {first} on is taken; choose one with --port."
    )
