"""The commands."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import orjson
import typer
from rich.table import Table
from rich.text import Text

from factledger.cli import posting, resuming, tables, telling, terminal
from factledger.cli.options import At, Between, Local, Output, Weighing, Where, spread, unfit
from factledger.cli.reach import Reach, database_url, gathered, opened, reach, sign, sqlite_file
from factledger.core import times
from factledger.core.errors import Category, LedgerError

app = typer.Typer(
    name="factledger",
    help="Remember who said what, when, on whose word, and work out what to believe.",
    epilog="Exit codes: 0 ok, 2 invalid, 3 not found, 4 conflict, 5 forbidden, 6 unavailable, 7 corrupt.",
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Entity = Annotated[str, typer.Argument(metavar="ENTITY", help="An id, such as place:panjshir.")]
Predicate = Annotated[str, typer.Argument(metavar="PREDICATE", help="What is said of it, such as control.")]
AnyPredicate = Annotated[
    str | None, typer.Argument(metavar="PREDICATE", help="What is said of it; everything if left out.")
]
ROWS = 1_000  # of a table
UPDATE = 100  # events between two looks at the progress bar
LOOPBACK = "127.0.0.1"
Host = Annotated[str, typer.Option(help="The address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on.")]


def _print(where: Output, body: bytes, show: Any) -> None:
    """Print an answer: as it is for programs, or as `show(answer, console)` for people."""
    if where.json:
        terminal.write_json(body)
    else:
        terminal.say(show(orjson.loads(body), terminal.out()))


# --- recording


@app.command()
@spread
def init(where: Local) -> None:
    """Create or upgrade a database and a ledger in it, and say where it is."""
    with opened(where, create=True) as ledgers:
        if where.ledger not in ledgers.names():
            ledgers.create(where.ledger)
        key_file = sign(ledgers)
        described = ledgers.get(where.ledger).describe()
        url = ledgers.database.url.render_as_string(hide_password=True)
    if where.json:
        signed = {"signing_key": None if key_file is None else str(key_file)}
        terminal.write_json(orjson.dumps({"database": url, **described, **signed}))
        return
    place = sqlite_file(url)
    terminal.say(f"The database is ready: {terminal.shown(url if place is None else str(place.resolve()))}")
    terminal.say(f"Its ledger {where.ledger} holds {tables.count(described['size'], 'event')}.")
    if key_file is None:
        terminal.say("It is signed with a key that is not here; put that back, or see `factledger signing-key`.")
    else:
        terminal.say(f"Checkpoints are signed with the key in {terminal.shown(str(key_file))}; keep a copy of it safe.")


@app.command()
@spread
def post(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Events: .json (one or an array), .jsonl or .ndjson (one a line), each also as .gz; - is stdin.",
        ),
    ],
    where: Where,
    preview: Annotated[
        bool, typer.Option("--preview", help="Record nothing: show what would change, and what would survive it.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="About how many changes a preview shows.")] = 100,
    rejects: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write rejected lines here as they were read, and why beside it."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep a mark here of how far it came, and go on from it if there is one."),
    ] = None,
    patience: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0, help="How long to go on trying while the server is busy or away."),
    ] = 60,
) -> int:
    """Record the events of files. Good ones are kept, bad ones named; what is recorded already is recognised."""
    given = posting.Files(files)
    if preview:
        if rejects is not None or resume is not None:
            raise unfit("--preview", "records nothing, so it goes with neither --rejects nor --resume")
        return _preview(given, where, limit)
    _check_written(files, rejects, resume)

    def say(text: str) -> None:
        terminal.notice(text, json=where.json)

    def changed(name: str) -> None:
        say(f"{name} is not what it was. All of it is sent again; what is recorded is recognised.")

    def waiting(refusal: LedgerError, seconds: float) -> None:
        if seconds >= 1:
            say(f"{refusal.detail} Trying again in {seconds:.0f} s.")

    with reach(where, create=True, patience=patience, waiting=waiting) as ledger:
        job = resuming.Job(resume, rejects, ledger.describe(), say)
        summary = job.summary

        def refused(item: posting.Item, refusal: LedgerError) -> None:
            terminal.report(refusal, json=where.json, place=item.place)
            job.refused(item, refusal)

        with closing(job), terminal.progress("posting", "events") as update:

            def settled(item: posting.Item) -> None:
                job.settled(item)
                if (count := summary.count - job.before) % UPDATE == 0:
                    update(given.done, given.total, count)

            try:
                posting.post(given.items(job.reached, changed), ledger, summary, refused=refused, settled=settled)
            except (LedgerError, KeyboardInterrupt):
                job.save()
                if where.json:
                    terminal.write_json(orjson.dumps(summary.json()))
                else:
                    say(f"Until then: {summary.sentence()}. Post the same again to go on.")
                raise
            job.save(complete=True)
    if where.json:
        terminal.write_json(orjson.dumps(summary.json()))
    else:
        terminal.say(f"{summary.sentence()}; the ledger {where.ledger} is at size {summary.size:,}.")
    if summary.rejected == 0:
        return 0
    return terminal.CONFLICT if summary.conflicting == summary.rejected else terminal.INVALID


def _preview(given: posting.Files, where: Where, limit: int) -> int:
    refused: list[LedgerError] = []

    def refuse(item: posting.Item, refusal: LedgerError) -> None:
        refused.append(refusal)
        terminal.report(refusal, json=where.json, place=item.place)

    with reach(where) as ledger:
        tried = posting.preview(given, ledger, limit, refused=refuse)
    if where.json:
        terminal.write_json(orjson.dumps(tried))
    else:
        terminal.say(tables.preview(tried))
    if not refused:
        return 0
    return terminal.CONFLICT if all(r.category is Category.CONFLICT for r in refused) else terminal.INVALID


def _check_written(files: Sequence[str], rejects: Path | None, resume: Path | None) -> None:
    """Refuse to write over what is to be posted, and to mark what cannot be read twice.

    Raises:
        LedgerError: `invalid-option`.
    """
    taken = {Path(name).resolve() for name in files if name != "-"}
    for option, written in (
        ("--rejects", [] if rejects is None else [rejects, resuming.reasons_beside(rejects)]),
        ("--resume", [] if resume is None else [resume]),
    ):
        for path in written:
            if path.resolve() in taken:
                raise unfit(option, "must name a file that is used for nothing else")
            taken.add(path.resolve())
    if resume is not None and "-" in files:
        raise unfit("--resume", "needs files: standard input cannot be read twice")


# --- reading


@app.command()
@spread
def show(entity: Entity, where: Where, at: At) -> None:
    """Show what is believed of an entity."""
    with reach(where) as ledger:
        _print(where, ledger.entity(entity, at), tables.believed)


@app.command()
@spread
def why(entity: Entity, predicate: Predicate, where: Where, at: At) -> None:
    """Show why it is believed: all evidence, what it weighs, and what does not count."""
    with reach(where) as ledger:
        _print(where, ledger.why(entity, predicate, at), tables.why)


@app.command()
@spread
def timeline(entity: Entity, where: Where, at: At, predicate: AnyPredicate = None) -> None:
    """Show what is believed of each span of time in the world."""
    with reach(where) as ledger:
        _print(where, ledger.timeline(entity, predicate, at), tables.timeline)


@app.command()
@spread
def history(
    entity: Entity,
    where: Where,
    at: At,
    predicate: AnyPredicate = None,
    from_size: Annotated[int, typer.Option(min=0, help="Begin with the event at this position.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="About how many changes to show.")] = 50,
) -> None:
    """Show how belief changed, event by event."""
    with reach(where) as ledger:
        _print(where, ledger.history(entity, predicate, at, from_size, limit), tables.history)


@app.command()
@spread
def diff(
    where: Where,
    between: Between,
    weighing: Weighing,
    limit: Annotated[int, typer.Option(min=1, help="About how many changes to show.")] = 100,
) -> None:
    """Show what is believed otherwise than at an earlier size or date."""
    at = At(**{field.name: getattr(weighing, field.name) for field in fields(weighing)})
    with reach(where) as ledger:
        found = gathered(lambda after, most: ledger.diff(between, at, after, most), limit)
    _print(where, orjson.dumps(found), tables.diff)


@dataclass(slots=True)
class _Total:
    entities: int = 0
    facts: int = 0


@app.command()
@spread
def replay(
    to: Annotated[str, typer.Option(metavar="DATE", help="RFC 3339, or a date: its midnight UTC.")],
    where: Where,
    weighing: Weighing,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one JSON object an entity and line into a file.")
    ] = None,
) -> None:
    """Show what was believed of everything on a date, as known then."""
    at = _known_at(to, weighing)
    total = _Total()
    with reach(where) as ledger:
        pinned = ledger.pin(at)
        states = _states(ledger, pinned, total)
        if export is not None:
            with terminal.progress("replaying", "entities") as update, _written(export) as file:
                expected = ledger.count(pinned) if terminal.err().is_terminal else None
                for body in states:
                    file.write(body + b"\n")
                    update(total.entities, expected, total.entities)
        elif where.json:
            for body in states:
                terminal.write_json(body)
        else:
            _print_states(states)
    if where.json:
        summary = {"entities": total.entities, "facts": total.facts, "size": pinned.at_size}
        terminal.write_json(
            orjson.dumps({"summary": {**summary, "known_at": at.known_at, "valid_at": pinned.valid_at}})
        )
        return
    facts = f"{tables.count(total.facts, 'fact')} about {tables.count(total.entities, 'entity', 'entities')}"
    known = f"as known on {tables.moment(at.known_at)} UTC, at size {pinned.at_size}"
    written = f", written to {terminal.shown(str(export))}" if export is not None else ""
    terminal.say(Text(f"{facts}, {known}{written}.", style="bold"))


def _known_at(to: str, weighing: Weighing) -> At:
    """Return the coordinates of a replay: as known at a date, about the same instant unless told otherwise."""
    try:
        instant = times.format_instant(times.parse_moment(to))
    except ValueError as problem:
        raise unfit("--to", str(problem)) from None
    given = {field.name: getattr(weighing, field.name) for field in fields(weighing)}
    return At(**{**given, "valid_at": weighing.valid_at or instant, "known_at": instant})


def _states(ledger: Reach, at: At, total: _Total) -> Iterator[bytes]:
    for entity in ledger.entities(at):
        body = ledger.entity(entity, at)
        total.entities += 1
        total.facts += len(orjson.loads(body)["facts"])
        yield body


def _print_states(states: Iterable[bytes]) -> None:
    """Print states as tables of bounded length, so that a large ledger is printed in bounded memory."""
    table: Table | None = None
    for body in states:
        if table is None or table.row_count >= ROWS:
            if table is not None:
                terminal.say(table)
            table = tables.states()
        tables.add_state(table, orjson.loads(body))
    if table is not None:
        terminal.say(table)


@contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that takes its name only once it is complete; compressed if the name ends in .gz."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as raw:
            if path.suffix == ".gz":
                with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as file:
                    yield file  # type: ignore[misc]
            else:
                yield raw
            raw.flush()
            os.fsync(raw.fileno())
        part.replace(path)
    except OSError as problem:
        raise LedgerError(
            Category.INVALID, "file-unwritable", f"{path} cannot be written: {problem.strerror}."
        ) from problem
    finally:
        part.unlink(missing_ok=True)


# --- operating


@app.command()
@spread
def rebuild(where: Local) -> int:
    """Work out the projections anew from the log alone, and compare them with the old ones."""
    with opened(where, create=False) as ledgers, terminal.progress("rebuilding", "events") as update:
        result = ledgers.get(where.ledger).rebuild(lambda done, size: update(done, size, done))
    if where.json:
        terminal.write_json(orjson.dumps(result))
    else:
        terminal.say(f"Rebuilt {where.ledger} from {tables.count(result['size'], 'event')}.")
        terminal.say(f"  before  {result['digest_before']}\n  now     {result['digest']}")
        if result["equal"]:
            terminal.say(Text("The projections are what the log says.", style="green"))
        else:
            terminal.say(Text("They differed: what was read before may have been wrong; now it is right.", style="red"))
    return 0 if result["equal"] else terminal.CORRUPT


@app.command()
@spread
def demo(
    output: Output,
    database: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where to make it: sqlite:///FILE; in the user's data directory if left out."),
    ] = None,
    no_serve: Annotated[bool, typer.Option("--no-serve", help="Tell the story and end.")] = False,
    host: Host = LOOPBACK,
    port: Port = 8000,
) -> None:
    """Record five articles about Panjshir, tell what was believed when and why, and serve it."""
    from factledger.demo.database import fresh  # here, since it loads the database's library

    with fresh(None if database is None else _file(database)) as path:
        told = telling.story(path)
        telling.show(told, json=output.json)
        if not no_serve:
            telling.serve(path, told.asks, host, port, json=output.json)


def _file(url: str) -> Path:
    path = sqlite_file(url)
    if path is None:
        raise unfit("--database", "must be sqlite:///FILE for a demonstration")
    return path


@app.command()
@spread
def serve(where: Local, host: Host = LOOPBACK, port: Port = 8000) -> None:
    """Run the service until it is told to stop."""
    from factledger.http.serving import serve as serve_http
    from factledger.settings import read_settings

    with suppress(KeyboardInterrupt):  # one of the ways to tell it
        serve_http(database_url(where), read_settings(), host, port, lambda line: terminal.err().print(line))
