"""Appending beside the `eventsourcing` package, in one process, on SQLite and PostgreSQL.

Both are given the same content as Python objects and return once it is on disk. Here it is judged, sealed, hashed,
projected and ready to be read; there it is one event of an aggregate, stored as JSON with its key.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

try:
    from eventsourcing.application import Application
    from eventsourcing.domain import Aggregate, event
except ModuleNotFoundError:  # for this comparison alone it is not worth a place among the dependencies
    sys.exit("This benchmark needs one package more: uv pip install --python .venv 'eventsourcing[postgres]'")
from sqlalchemy import make_url

from benchmarks import _databases, _events
from benchmarks._measuring import Column, Report, Step, arguments, machine, rounds
from factledger.core import events
from factledger.recording import Request

BATCH = 1_000


class _Entity(Aggregate):
    """An aggregate that takes assertions and keeps none: what is stored is all that is compared."""

    @event("Asserted")
    def record(self, claim: dict[str, Any]) -> None:
        """Take one."""


@contextmanager
def _application(url: str) -> Iterator[Application[Any]]:
    """Open the package's application on a database of its own, as its documentation says."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        settings = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(parsed.database)}
    else:
        settings = {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": str(parsed.database),
            "POSTGRES_HOST": str(parsed.host or parsed.query.get("host", "")),
            "POSTGRES_PORT": str(parsed.port or 5432),
            "POSTGRES_USER": str(parsed.username or ""),
            "POSTGRES_PASSWORD": str(parsed.password or os.environ.get("PGPASSWORD", "")),
        }
    application: Application[Any] = Application(env=settings)
    try:
        yield application
    finally:
        application.close()


def _save(application: Application[Any], entity: _Entity, claims: Sequence[dict[str, Any]]) -> None:
    """Store so many events of an aggregate in one transaction."""
    for claim in claims:
        entity.record(claim)
    application.save(entity)


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__ or "")
    report = Report("beside eventsourcing", machine(), given.quick, quiet=given.json)
    rows: list[tuple[Any, ...]] = []
    ratios: list[tuple[Any, ...]] = []
    for kind in _databases.kinds(given.only):
        with _databases.store(kind) as databases:
            if kind == "postgresql":
                report.machine.postgresql = databases.version
            with _databases.service(databases.fresh()) as ledger, _application(databases.fresh()) as application:
                for size in (1, BATCH):
                    report.say(f"{kind}, {size} at once")
                    made = _events.newsroom(size, 10_000_000, name=f"of{size}")
                    entity = _Entity()

                    def ours(made: Iterator[Any] = made, size: int = size) -> None:
                        drafts = [events.read_event(e) for e in islice(made, size)]
                        _events.append(ledger, Request(drafts))

                    def theirs(made: Iterator[Any] = made, size: int = size, entity: _Entity = entity) -> None:
                        _save(application, entity, list(islice(made, size)))

                    steps = {"factledger": Step(ours), "eventsourcing": Step(theirs)}
                    times = rounds(steps, seconds=3.0 if given.quick else 15.0, most=400)
                    mine, other = times["factledger"], times["eventsourcing"]
                    ratios.append((kind, size, mine.median / other.median, mine.best / other.best))
                    rows += [
                        (kind, size, who, t.best, t.median, t.p99, size / t.median, t.times) for who, t in times.items()
                    ]
                    report.goal(f"{kind}, {size} at once: over eventsourcing", mine.median / other.median, 1.0, "×")
    columns = (Column("database"), Column("at once", "n"), Column("median", "×"), Column("best", "×"))
    report.ratios("Appending over the eventsourcing package", columns, ratios)
    columns = (
        Column("database"),
        Column("at once", "n"),
        Column("who"),
        Column("best", "ms"),
        Column("median", "ms"),
        Column("p99", "ms"),
        Column("events", "/s"),
        Column("times", "n"),
    )
    report.absolute("One transaction", columns, rows)
    report.finish(as_json=given.json)


if __name__ == "__main__":
    main()
