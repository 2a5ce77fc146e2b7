"""What a rebuild of the projections costs beside copying their rows raw, and what it does to reads and appends.

The same rows are copied twice more, in turns with the rebuild, in a copy of the database: by the database itself
(INSERT … SELECT), and through the raw driver, which reads the log too, as a rebuild must. Both put the copies
beside the old rows, then delete those, in one transaction.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import _databases, _events
from benchmarks._databases import Raw, Store
from benchmarks._measuring import Column, Report, Taken, Timing, arguments, clocked, machine, timing
from factledger.ledger import Ledger
from factledger.reading import Question
from factledger.store import schema

ENTITIES = 5_000
PAUSE = 0.005  # seconds between the requests that go on meanwhile

SERVICE, INSIDE, DRIVER = "service: rebuild", "raw: INSERT … SELECT", "raw: driver"


class Plan(NamedTuple):
    """How much is measured."""

    sizes: Sequence[int]
    quiet_seconds: float

    def times(self, size: int) -> int:
        """Return how often a size is rebuilt."""
        return 3 if size == min(self.sizes) else 2


FULL = Plan((10_000, 100_000), 4.0)
QUICK = Plan((1_000, 3_000), 0.7)


def _generation(raw: Raw) -> int:
    ((generation,),) = raw.rows("SELECT generation FROM ledgers")
    return int(generation)


def copy_inside(raw: Raw) -> None:
    """Copy the rows of every projection by INSERT … SELECT, and delete the old ones."""
    raw.begin()
    old = _generation(raw)
    for table in schema.PROJECTIONS:
        names = _databases.columns(table)
        chosen = ["generation + 1" if name == "generation" else name for name in names]
        raw.connection.execute(
            f"INSERT INTO {table.name} ({', '.join(names)}) SELECT {', '.join(chosen)} FROM {table.name}"
        )
    _replace(raw, old)


def copy_through_driver(raw: Raw) -> None:
    """Read the log and every projection, write the rows anew with executemany, and delete the old ones."""
    raw.begin()
    old = _generation(raw)
    raw.rows("SELECT * FROM events ORDER BY position")
    for table in schema.PROJECTIONS:
        names = _databases.columns(table)
        at = names.index("generation")
        keys = ", ".join(column.name for column in table.primary_key.columns)
        rows = raw.rows(f"SELECT {', '.join(names)} FROM {table.name} ORDER BY {keys}")
        raw.insert(table.name, names, [(*row[:at], old + 1, *row[at + 1 :]) for row in rows])
    _replace(raw, old)


def _replace(raw: Raw, old: int) -> None:
    for table in schema.PROJECTIONS:
        raw.connection.execute(raw.sql(f"DELETE FROM {table.name} WHERE generation = ?"), (old,))
    raw.connection.execute(raw.sql("UPDATE ledgers SET generation = ?"), (old + 1,))
    raw.commit()


def measure(databases: Store, base: str, times: int) -> dict[str, Timing]:
    """Return the times of a rebuild and of the raw copies, in turns."""
    own, inside, driver = (databases.copy(base) for _ in range(3))
    with _databases.service(own) as ledger, closing(Raw(inside)) as one, closing(Raw(driver)) as other:
        taken: dict[str, list[Taken]] = {SERVICE: [], INSIDE: [], DRIVER: []}
        for _ in range(times):
            taken[SERVICE].append(clocked(lambda: _rebuild(ledger)))
            taken[INSIDE].append(clocked(lambda: copy_inside(one)))
            taken[DRIVER].append(clocked(lambda: copy_through_driver(other)))
        return {who: timing(series) for who, series in taken.items()}


def _rebuild(ledger: Ledger) -> None:
    if not ledger.rebuild()["equal"]:
        raise AssertionError("The rebuild made something else than what was there.")


class Meanwhile(NamedTuple):
    """What requests took while nothing else happened, and while a rebuild did."""

    quiet: Timing
    rebuilding: Timing


def meanwhile(databases: Store, base: str, quiet_seconds: float, name: str) -> tuple[dict[str, Meanwhile], float]:
    """Return what reads and appends take without and with a rebuild in the same process, and what it takes."""
    with _databases.service(databases.copy(base)) as ledger:
        more = iter(_events.requests(_events.newsroom(11, 5_000, ENTITIES, name=name), 1))
        random, seconds = Random(5), 0.0
        quiet = _requests(ledger, more, random, lambda since: since < quiet_seconds)
        rebuilt = Event()

        def rebuild() -> None:
            nonlocal seconds
            try:
                seconds = clocked(lambda: _rebuild(ledger)).wall
            finally:
                rebuilt.set()

        thread = Thread(target=rebuild)
        thread.start()
        busy = _requests(ledger, more, random, lambda _since: not rebuilt.is_set())
        thread.join()
        return {what: Meanwhile(quiet[what], busy[what]) for what in quiet if what in busy}, seconds


def _requests(ledger: Ledger, more: Any, random: Random, go_on: Any) -> dict[str, Timing]:
    """Append and read in turns for as long as it goes on, and return what each took."""
    taken: dict[str, list[Taken]] = {"append one": [], "read": [], "read what was appended": []}
    known = list(ledger.entities(Question()))
    begun = time.perf_counter()
    for request in itertools.takewhile(lambda _: go_on(time.perf_counter() - begun), more):
        taken["append one"].append(clocked(lambda: _events.append(ledger, request)))  # noqa: B023 - called at once
        entity = request.drafts[0].data["subject"]
        taken["read what was appended"].append(clocked(lambda: ledger.entity(entity, Question())))  # noqa: B023
        other = random.choice(known)
        taken["read"].append(clocked(lambda: ledger.entity(other, Question())))  # noqa: B023
        time.sleep(PAUSE)
    return {what: timing(times) for what, times in taken.items() if times}


# --- what is shown


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__ or "")
    plan = QUICK if given.quick else FULL
    report = Report("rebuilding", machine(), given.quick, quiet=given.json)
    ratios: list[tuple[Any, ...]] = []
    figures: list[tuple[Any, ...]] = []
    stalls: list[tuple[Any, ...]] = []
    latencies: list[tuple[Any, ...]] = []
    for kind in _databases.kinds(given.only):
        with _databases.store(kind) as databases:
            if kind == "postgresql":
                report.machine.postgresql = databases.version
            base = databases.fresh()
            made = _events.newsroom(1, max(plan.sizes), ENTITIES)
            filled = 0
            for size in plan.sizes:
                report.say(f"{kind}, {size:,} events")
                with _databases.service(base) as ledger:
                    _events.fill(ledger, itertools.islice(made, size - filled))
                    filled = size
                times = measure(databases, base, plan.times(size))
                own, inside, driver = times[SERVICE], times[INSIDE], times[DRIVER]
                ratios.append((kind, size, own.best / inside.best, own.best / driver.best, own.busy / driver.busy))
                for who, t in times.items():
                    figures.append((kind, size, who, t.best, t.median, t.busy, size / t.best))
                report.say(f"{kind}, {size:,} events: requests meanwhile")
                both, seconds = meanwhile(databases, base, plan.quiet_seconds, f"late{size}-")
                for what, (quiet, busy) in both.items():
                    p99, worst = busy.p99 / quiet.p99, busy.worst / quiet.worst
                    stalls.append((kind, size, what, busy.median / quiet.median, p99, worst, seconds))
                    for when, t in (("quiet", quiet), ("rebuilding", busy)):
                        latencies.append((kind, size, what, when, t.median, t.p99, t.worst, t.times))
    where = (Column("database"), Column("events", "n"))
    report.ratios(
        "Ledger.rebuild against copying the rows",
        (*where, Column(f"÷ {INSIDE}", "×"), Column(f"÷ {DRIVER}", "×"), Column("processor", "×")),
        ratios,
        "A rebuild parses every event, and compares the new rows with the old by digest; a copy does neither.",
    )
    report.ratios(
        "Requests while a rebuild runs, over the same without",
        (*where, Column("request"), *(Column(n, "×") for n in ("median", "p99", "worst")), Column("rebuild took", "s")),
        stalls,
    )
    taken = (Column("who"), *(Column(n, "s") for n in ("best", "median", "processor")), Column("events", "/s"))
    report.absolute("One rebuild", (*where, *taken), figures)
    asked = (Column("request"), Column("while"), *(Column(n, "ms") for n in ("median", "p99", "worst")))
    report.absolute("Requests", (*where, *asked, Column("times", "n")), latencies)
    report.finish(as_json=given.json)


if __name__ == "__main__":
    main()
