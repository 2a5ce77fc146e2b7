"""What comes in over HTTP beside what the database itself can take, on SQLite and PostgreSQL.

In every round the service, a process of its own, takes a stream of lines, durable and answered line by line; then
the raw driver writes exactly the rows that the service has just written, with every index, into a copy of its
database, in transactions of a thousand events; and then the event rows alone, with their two keys. Single events
over many connections are held to a FastAPI route that does nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import orjson

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import _databases, _events, _serving
from benchmarks._databases import Raw, Store, Written
from benchmarks._measuring import Column, Report, arguments, clocked, machine
from benchmarks.appending import split

TRANSACTION = 1_000  # events in one transaction of the raw driver
CONNECTIONS = 32
# The most that the service may take, in times of what it is held to: 1 over the share that is promised.
SAME_ROWS = 1 / 0.35
EVENTS_ONLY = {"sqlite": 1 / 0.15, "postgresql": 1 / 0.25}
SINGLE, SINGLE_P99_SECONDS = 1 / 0.5, 0.050


class Plan(NamedTuple):
    """How much is measured."""

    stored: Sequence[int]
    rounds: int
    lines: int
    singles: int


FULL = Plan((10_000, 1_000_000), 5, 10_000, 4_000)
QUICK = Plan((2_000,), 3, 1_000, 400)


def _bodies(made: Iterator[Any], count: int) -> list[bytes]:
    return [orjson.dumps(event) for event in islice(made, count)]


def _lines(bodies: Sequence[bytes]) -> bytes:
    return b"".join(body + b"\n" for body in bodies)


def _write_all(raw: Raw, parts: Sequence[Written], head: Any, *, copying: bool = False) -> None:
    for part in parts:
        _databases.write(raw, part, head, copying=copying)


def _write_all_bare(raw: Raw, parts: Sequence[Written]) -> None:
    for part in parts:
        _databases.write_bare(raw, part)


def _streams(databases: Store, base: str, made: Iterator[Any], plan: Plan) -> dict[str, list[float]]:
    """Return the seconds of each round, by who wrote."""
    with ExitStack() as stack:
        own_url = databases.copy(base)
        rows = stack.enter_context(closing(Raw(databases.copy(base))))
        bare = stack.enter_context(closing(Raw(databases.copy(base))))
        _databases.keep_only_events(bare)
        copied = None
        if databases.kind == "postgresql":
            copied = stack.enter_context(closing(Raw(databases.copy(base))))
        own = stack.enter_context(closing(Raw(own_url)))
        served = stack.enter_context(_serving.service(own_url))
        _serving.stream(served, _lines(_bodies(made, plan.lines)))  # the first of everything is slower
        taken: dict[str, list[float]] = {"service": [], "rows": [], "bare": [], "copied": []}
        for _ in range(plan.rounds):
            before = _databases.head(own)[0]
            taken["service"].append(_serving.stream(served, _lines(_bodies(made, plan.lines))))
            head = _databases.head(own)
            parts = list(split(_databases.written(own, before, head[0]), TRANSACTION))
            taken["rows"].append(clocked(lambda parts=parts, head=head: _write_all(rows, parts, head)).wall)
            taken["bare"].append(clocked(lambda parts=parts: _write_all_bare(bare, parts)).wall)
            if copied is not None:
                act = lambda parts=parts, head=head: _write_all(copied, parts, head, copying=True)  # noqa: E731
                taken["copied"].append(clocked(act).wall)
    return taken


def _single_posts(databases: Store, base: str, made: Iterator[Any], plan: Plan) -> dict[str, tuple[float, list[float]]]:
    """Return the seconds for all and the sorted seconds of each, by who answered."""
    found = {}
    with _serving.service(databases.copy(base)) as served, _serving.empty_service() as empty:
        for name, who in (("empty", empty), ("service", served)):
            _serving.singles(who, _bodies(made, plan.singles // 10), CONNECTIONS)
            found[name] = _serving.singles(who, _bodies(made, plan.singles), CONNECTIONS)
    return found


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__ or "")
    plan = QUICK if given.quick else FULL
    report = Report("ingesting", machine(), given.quick, quiet=given.json)
    ratios: list[tuple[Any, ...]] = []
    figures: list[tuple[Any, ...]] = []
    posts: list[tuple[Any, ...]] = []
    for kind in _databases.kinds(given.only):
        with _databases.store(kind) as databases:
            if kind == "postgresql":
                report.machine.postgresql = databases.version
            for stored in plan.stored:
                report.say(f"{kind}: storing {stored:,}")
                made = _events.newsroom(1, stored + (plan.rounds + 2) * plan.lines + 4 * plan.singles)
                base = databases.fresh()
                with _databases.service(base) as ledger:
                    _events.fill(ledger, islice(made, stored))
                report.say(f"{kind}, {stored:,} stored: streams")
                taken = _streams(databases, base, made, plan)
                times = {who: median(seconds) for who, seconds in taken.items() if seconds}
                own = times["service"]
                shares = {who: times[who] / own for who in ("rows", "bare", "copied") if who in times}
                ratios.append((kind, stored, shares["rows"], shares["bare"], shares.get("copied")))
                figures += [(kind, stored, who, plan.lines / t, t / plan.lines) for who, t in times.items()]
                report.goal(f"{kind}, {stored:,}: stream over same rows", 1 / shares["rows"], SAME_ROWS, "×")
                report.goal(f"{kind}, {stored:,}: stream over events only", 1 / shares["bare"], EVENTS_ONLY[kind], "×")
                report.say(f"{kind}, {stored:,} stored: single events")
                answered = _single_posts(databases, base, made, plan)
                for who, (seconds, each) in answered.items():
                    p99 = each[int(len(each) * 0.99)]
                    posts.append((kind, stored, who, len(each) / seconds, median(each), p99, each[-1]))
                share = answered["service"][0] / answered["empty"][0]
                report.goal(f"{kind}, {stored:,}: single event over an empty route", share, SINGLE, "×")
                each = answered["service"][1]
                report.goal(
                    f"{kind}, {stored:,}: single event, p99", each[int(len(each) * 0.99)], SINGLE_P99_SECONDS, "s"
                )
    columns = (
        Column("database"),
        Column("stored", "n"),
        Column("of raw, same rows", "×"),
        Column("of raw, events only", "×"),
        Column("of COPY, same rows", "×"),
    )
    report.ratios("A stream over HTTP, its events a second: the share of what the raw driver writes", columns, ratios)
    columns = (
        Column("database"),
        Column("stored", "n"),
        Column("who"),
        Column("events", "/s"),
        Column("an event", "µs"),
    )
    report.absolute(f"Streams of {plan.lines:,} lines, medians of {plan.rounds} rounds", columns, figures)
    columns = (
        Column("database"),
        Column("stored", "n"),
        Column("who"),
        Column("events", "/s"),
        Column("median", "ms"),
        Column("p99", "ms"),
        Column("worst", "ms"),
    )
    report.absolute(f"Single events over {CONNECTIONS} connections", columns, posts)
    report.finish(as_json=given.json)


if __name__ == "__main__":
    main()
