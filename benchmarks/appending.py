"""What appending costs beside writing the same rows with the raw driver, on SQLite and PostgreSQL.

Three write the same, one after the other in every round: the service, through `Ledger.append`; the raw driver,
which writes exactly the rows that the service has just written (read back from its tables) into a copy of its
database, table by table with executemany, in transactions of the same size and durability; and the raw driver
again, which writes the event rows alone, with their two keys.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import orjson

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import _databases, _events
from benchmarks._databases import LOG_AND_PROJECTIONS, Raw, Store, Written
from benchmarks._events import Event
from benchmarks._measuring import Column, Report, Step, Taken, Timing, arguments, clocked, machine, rounds, timing
from factledger.core import encoding, events
from factledger.ledger import Ledger
from factledger.recording import Request

BATCH = 1_000
HOT = 10_000  # assertions that the hot slot holds
GROWN = 100_000  # assertions that a slot grows to
HOT_GOAL = 1.5

SERVICE, ROWS, EVENTS, COPIED = "service", "raw: same rows", "raw: events only", "raw: same rows, COPY"


class Plan(NamedTuple):
    """How much is measured."""

    stored: Sequence[int]
    batches: int
    singles: int
    hot: int
    pairs: int
    grown: int


FULL = Plan((0, 100_000), 12, 150, HOT, 150, GROWN)
QUICK = Plan((0, 3_000), 3, 15, 1_000, 15, 8_000)


# --- the same rows, three times


def split(rows: Written, size: int) -> Iterator[Written]:
    """Yield the rows of each run of so many positions."""
    at = {
        table.name: _databases.columns(table).index(_databases.position_column(table)) for table in LOG_AND_PROJECTIONS
    }
    first = min(row[at["events"]] for row in rows["events"])
    last = max(row[at["events"]] for row in rows["events"])
    by_run: dict[str, dict[int, list[Any]]] = {}
    for name, found in rows.items():
        runs = by_run[name] = {}
        for row in found:
            runs.setdefault((row[at[name]] - first) // size, []).append(row)
    for run in range((last - first) // size + 1):
        yield {name: by_run[name].get(run, []) for name in rows}


class _Trio:
    """The service, and raw connections to copies of its database."""

    def __init__(self, stack: ExitStack, databases: Store, base: str) -> None:
        self.ledger = stack.enter_context(_databases.service(databases.copy(base)))
        self.own = stack.enter_context(closing(Raw(self.ledger_url)))
        self.rows = stack.enter_context(closing(Raw(databases.copy(base))))
        self.bare = stack.enter_context(closing(Raw(databases.copy(base))))
        self.copied = (
            stack.enter_context(closing(Raw(databases.copy(base)))) if databases.kind == "postgresql" else None
        )
        _databases.keep_only_events(self.bare)

    @property
    def ledger_url(self) -> str:
        """The URL of the service's database."""
        return self.ledger._database.url.render_as_string(hide_password=False)  # noqa: SLF001

    def round(self, requests: Sequence[Request], size: int, taken: dict[str, list[Taken]]) -> None:
        """Append requests of one size each, then write what they left again."""
        before = self.ledger.size()
        for request in requests:
            taken[SERVICE].append(clocked(_appending(self.ledger, request)))
        rows = _databases.written(self.own, before, self.ledger.size())
        head = _databases.head(self.own)
        for part in split(rows, size):
            taken[ROWS].append(clocked(_writing(self.rows, part, head)))
            taken[EVENTS].append(clocked(_writing_bare(self.bare, part)))
            if self.copied is not None:
                taken[COPIED].append(clocked(_writing(self.copied, part, head, copying=True)))


def _appending(ledger: Ledger, request: Request) -> Callable[[], None]:
    return lambda: _events.append(ledger, request)


def _writing(raw: Raw, rows: Written, head: Any, *, copying: bool = False) -> Callable[[], None]:
    return lambda: _databases.write(raw, rows, head, copying=copying)


def _writing_bare(raw: Raw, rows: Written) -> Callable[[], None]:
    return lambda: _databases.write_bare(raw, rows)


def _measure(trio: _Trio, made: Iterator[Event], plan: Plan) -> dict[int, dict[str, Timing]]:
    """Return the times by size of transaction, then by who wrote."""
    found = {}
    for size, count in ((BATCH, plan.batches), (1, plan.singles)):
        taken: dict[str, list[Taken]] = {SERVICE: [], ROWS: [], EVENTS: []}
        if trio.copied is not None:
            taken[COPIED] = []
        at_once = 1 if size > 1 else max(1, count // 15)
        for _ in range(count // at_once):
            trio.round(_events.requests(islice(made, size * at_once), size), size, taken)
        found[size] = {who: timing(times) for who, times in taken.items()}
    return found


# --- what is shown

_RATIOS = (
    Column("database"),
    Column("stored", "n"),
    Column("transactions of", "n"),
    Column("÷ same rows: best", "×"),
    Column("÷ same: median", "×"),
    Column("÷ same: processor", "×"),
    Column("÷ events only: best", "×"),
    Column("÷ events: median", "×"),
    Column("÷ events: processor", "×"),
    Column("÷ COPY: best", "×"),
)
_FIGURES = (
    Column("database"),
    Column("stored", "n"),
    Column("transactions of", "n"),
    Column("who"),
    Column("best", "ms"),
    Column("median", "ms"),
    Column("p99", "ms"),
    Column("processor", "ms"),
    Column("events, median", "/s"),
    Column("times", "n"),
)


def _ratio_row(kind: str, stored: int, size: int, times: dict[str, Timing]) -> tuple[Any, ...]:
    own, rows, bare, copied = times[SERVICE], times[ROWS], times[EVENTS], times.get(COPIED)
    return (
        kind,
        stored,
        size,
        own.best / rows.best,
        own.median / rows.median,
        own.busy / rows.busy,
        own.best / bare.best,
        own.median / bare.median,
        own.busy / bare.busy,
        own.best / copied.best if copied else None,
    )


def _figure_rows(kind: str, stored: int, size: int, times: dict[str, Timing]) -> Iterator[tuple[Any, ...]]:
    for who, t in times.items():
        yield kind, stored, size, who, t.best, t.median, t.p99, t.busy, size / t.median, t.times


# --- the hot slot


def _hot_against_empty(databases: Store, plan: Plan) -> tuple[Timing, Timing, Timing, Timing]:
    """Return the times of one append to a slot that holds much, to an empty one, and of batches to each."""
    with _databases.service(databases.fresh()) as ledger:
        _events.fill(ledger, _events.declared(1))
        _events.fill(ledger, _events.shaped(_events.changing, plan.hot, subject="hot"))
        tail = list(_events.shaped(_events.changing, plan.hot + plan.pairs + 3 * BATCH, subject="hot"))[plan.hot :]
        singles = _events.requests(tail[: plan.pairs], 1)
        batches = _events.requests(tail[plan.pairs :], BATCH)
        hot, empty, hot_batches, empty_batches = [], [], [], []
        for number, request in enumerate(singles):
            hot.append(clocked(_appending(ledger, request)))
            (other,) = _events.requests(_events.shaped(_events.changing, 1, subject=f"empty/{number}"), 1)
            empty.append(clocked(_appending(ledger, other)))
        for number, request in enumerate(batches):
            hot_batches.append(clocked(_appending(ledger, request)))
            (other,) = _events.requests(_events.shaped(_events.changing, BATCH, subject=f"new/{number}"), BATCH)
            empty_batches.append(clocked(_appending(ledger, other)))
    return timing(hot), timing(empty), timing(hot_batches), timing(empty_batches)


def _growing(databases: Store, plan: Plan, shape: _events.Shape) -> tuple[Timing, Timing]:
    """Return the times of the first and of the last batches that fill one slot, after one to warm up."""
    with _databases.service(databases.fresh()) as ledger:
        _events.fill(ledger, _events.declared(1))
        made = _events.requests(_events.shaped(shape, plan.grown, subject="grown"), BATCH)
        taken = [clocked(_appending(ledger, request)) for request in made]
    some = max(1, min(5, len(taken) // 4))
    return timing(taken[1 : 1 + some]), timing(taken[-some:])


# --- what comes before the transaction


def _reading_events(report: Report, count: int) -> None:
    """Measure parsing and judging events, which needs no database and no lock."""
    bodies = [orjson.dumps(e) for e in _events.newsroom(9, count)]
    parsed = [encoding.parse_json(body) for body in bodies]
    steps = {
        "raw": Step(lambda: [orjson.loads(body) for body in bodies]),
        "strict": Step(lambda: [encoding.parse_json(body) for body in bodies]),
        "judged": Step(lambda: [events.read_event(e) for e in parsed]),
    }
    times = rounds(steps, seconds=1.0, most=20)
    raw, strict, judged = (times[name].busy for name in steps)
    size = sum(map(len, bodies)) // count
    columns = (Column("step"), Column("÷ orjson.loads", "×"), Column("an event", "µs"), Column("events", "/s"))
    rows = [
        ("orjson.loads, not strict", 1.0, raw / count, count / raw),
        ("parse_json, strict", strict / raw, strict / count, count / strict),
        ("read_event: judge, and make canonical", judged / raw, judged / count, count / judged),
    ]
    report.ratios(f"Before the transaction: reading an event of {size} bytes", columns, rows)


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__ or "")
    plan = QUICK if given.quick else FULL
    report = Report("appending", machine(), given.quick, quiet=given.json)
    ratios: list[tuple[Any, ...]] = []
    figures: list[tuple[Any, ...]] = []
    hot_rows: list[tuple[Any, ...]] = []
    grown_rows: list[tuple[Any, ...]] = []
    for kind in _databases.kinds(given.only):
        with _databases.store(kind) as databases:
            if kind == "postgresql":
                report.machine.postgresql = databases.version
            for stored in plan.stored:
                report.say(f"{kind}, {stored:,} stored")
                made = _events.newsroom(1, stored + plan.batches * BATCH + plan.singles)
                base = databases.fresh()
                with _databases.service(base) as ledger:
                    _events.fill(ledger, islice(made, stored))
                with ExitStack() as stack:
                    report.say(f"{kind}, {stored:,} stored: appending")
                    times = _measure(_Trio(stack, databases, base), made, plan)
                for size, by_who in times.items():
                    ratios.append(_ratio_row(kind, stored, size, by_who))
                    figures += _figure_rows(kind, stored, size, by_who)
            report.say(f"{kind}, a hot slot")
            hot, empty, hot_batch, empty_batch = _hot_against_empty(databases, plan)
            for size, full, bare in ((1, hot, empty), (BATCH, hot_batch, empty_batch)):
                hot_rows.append(
                    (kind, size, full.median / bare.median, full.best / bare.best, full.median, bare.median)
                )
            for shape in (_events.changing, _events.stable, _events.scattered):
                report.say(f"{kind}, a slot that grows: {shape.__name__}")
                first, last = _growing(databases, plan, shape)
                grown_rows.append((kind, shape.__name__, last.median / first.median, first.median, last.median))
                goal = f"{kind}, {shape.__name__}: a batch to a slot of {plan.grown:,} over the first"
                report.goal(goal, last.median / first.median, HOT_GOAL, "×")
            goal = f"{kind}: append to a slot of {plan.hot:,} over an empty one, median"
            report.goal(goal, hot.median / empty.median, HOT_GOAL, "×")
    note = "Processor: the least time of the processor in this process, without PostgreSQL's own."
    report.ratios("Ledger.append against the raw driver", _RATIOS, ratios, note)
    columns = (
        Column("database"),
        Column("transactions of", "n"),
        Column("median", "×"),
        Column("best", "×"),
        Column("hot, median", "ms"),
        Column("empty, median", "ms"),
    )
    report.ratios(f"Appending to a slot that holds {plan.hot:,} assertions against an empty slot", columns, hot_rows)
    columns = (
        Column("database"),
        Column("values"),
        Column("last over first", "×"),
        Column("first", "ms"),
        Column("last", "ms"),
    )
    report.ratios(f"Batches of {BATCH:,} that fill one slot up to {plan.grown:,} assertions", columns, grown_rows)
    _reading_events(report, 300 if given.quick else 2_000)
    report.absolute("One transaction", _FIGURES, figures)
    report.finish(as_json=given.json)


if __name__ == "__main__":
    main()
