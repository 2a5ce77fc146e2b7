"""What reading costs beside fetching the same rows with the raw driver, on SQLite and PostgreSQL.

Entities of 10 to 10,000 assertions, in one slot or over twenty, of three shapes: values that change, one value
that stays, values scattered over valid time. Every read of an entity takes turns with two raw baselines: the
entity's rows by one range of the primary key, and one row of the log by its key.

- cold: a process that has just started: nothing decoded, no memo
- decoded: the slots are decoded and resolved; another valid instant, so that no memo holds
- memo: the same instant again, the memo in memory
- memo from disk: a process that has just started, the memo on disk
- as of half: as of the size at which half of the entity was there, the rows decoded
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import _databases, _events
from benchmarks._databases import Raw
from benchmarks._measuring import Column, Report, Step, Timing, arguments, machine, rounds
from factledger.ledger import Ledger
from factledger.reading import Question

RANGE, ROW = "raw: the entity's rows", "raw: one row"
STEPS = ("memo", "memo from disk", "decoded", "as of half", "cold", "timeline", "why")
AGAINST_ROW = ("memo", "memo from disk")  # a hit is measured by a look-up, all else by the rows it rests on


class Plan(NamedTuple):
    """How much is measured."""

    sizes: Sequence[int]
    slots: Sequence[int]
    seconds: float  # a step


FULL = Plan((10, 100, 1_000, 10_000), (1, 20), 0.25)
QUICK = Plan((10, 100, 1_000), (1, 20), 0.025)


class Entity(NamedTuple):
    """An entity that was filled in one go, and where in the log it lies."""

    name: str
    shape: str
    assertions: int
    slots: int
    begins: int
    ends: int


def fill(ledger: Ledger, plan: Plan, report: Report) -> list[Entity]:
    """Append every entity, one after another."""
    begins = _events.fill(ledger, _events.declared(max(plan.slots)))
    # So that the indexes are not those of an empty ledger.
    begins = _events.fill(ledger, _events.newsroom(3, 5_000))
    entities = []
    for size, slots, (shape, made) in itertools.product(plan.sizes, plan.slots, _events.USUAL.items()):
        if size >= slots:
            name = f"{shape}:{size}:{slots}"
            report.say(f"filling {name}")
            ends = _events.fill(ledger, _events.shaped(made, size, subject=name, slots=slots))
            entities.append(Entity(name, shape, size, slots, begins, ends))
            begins = ends
    return entities


def steps(ledger: Ledger, raw: Raw, entity: Entity) -> dict[str, Step]:
    """Return every read of an entity, and the raw ones."""
    name, now = entity.name, Question(valid_at=_events.LATER)
    range_sql = raw.sql(
        "SELECT predicate, inputs FROM assertions WHERE ledger_id = ? AND generation = ? AND subject = ? "
        "ORDER BY predicate, position"
    )
    row_sql = raw.sql("SELECT envelope, data FROM events WHERE ledger_id = ? AND position = ?")
    random = Random(7)
    spread = max(1, entity.assertions // entity.slots)

    def nearby() -> Question:
        """Return another instant within the stretch of time that the entity is about."""
        return Question(valid_at=_events.DAY_ONE + random.randrange(spread * _events.HOUR))

    def position() -> int:
        return random.randrange(entity.begins, entity.ends)

    unremembered = _databases.without(ledger, "memos", "unsaved")
    unresolved = _databases.without(ledger, "memos", "unsaved", "slots")
    reopened = _databases.reopened(ledger)
    half = Question(valid_at=_events.LATER, at_size=(entity.begins + entity.ends) // 2)

    def read(question: Question) -> Callable[[], object]:
        return lambda: ledger.entity(name, question)

    def known() -> None:
        ledger.entity(name, now)

    def after(forget: Callable[[], None]) -> Callable[[], None]:
        """Return what makes sure that the rows are decoded, whatever the step before has left."""

        def ready() -> None:
            known()
            forget()

        return ready

    return {
        RANGE: Step(lambda: raw.connection.execute(range_sql, ("main", 1, name)).fetchall()),
        ROW: Step(lambda: raw.connection.execute(row_sql, ("main", position())).fetchall()),
        "memo": Step(read(now), known),
        "decoded": Step(lambda: ledger.entity(name, nearby()), after(unremembered)),
        "as of half": Step(read(half), after(unresolved)),
        "timeline": Step(lambda: ledger.timeline(name, None, now), known),
        "why": Step(lambda: ledger.why(name, "slot_00", now), known),
        "cold": Step(read(now), reopened),
    }


def measure(ledger: Ledger, raw: Raw, entity: Entity, plan: Plan) -> dict[str, Timing]:
    """Return the times of every read of an entity, which is remembered on disk only while that is measured."""
    ledger.drop_memo()
    reading = steps(ledger, raw, entity)
    times = rounds(reading, seconds=plan.seconds)
    now = Question(valid_at=_events.LATER)
    _databases.reopened(ledger)()
    ledger.entity(entity.name, now)
    if ledger.save_memo() != entity.slots:
        raise AssertionError("The memo was not kept.")
    from_disk = {
        ROW: reading[ROW],
        "memo from disk": Step(lambda: ledger.entity(entity.name, now), _databases.reopened(ledger)),
    }
    found = rounds(from_disk, seconds=plan.seconds)
    ledger.drop_memo()
    return {**times, "memo from disk": found["memo from disk"]}


# --- what is shown

_ENTITY = (Column("database"), Column("shape"), Column("slots", "n"), Column("assertions", "n"))

Measured = dict[Entity, dict[str, Timing]]


def _key(kind: str, entity: Entity) -> tuple[Any, ...]:
    return kind, entity.shape, entity.slots, entity.assertions


def goals(report: Report, kind: str, measured: Measured) -> None:
    """Add the goals."""
    for entity, times in measured.items():
        what = f"{kind}, {entity.shape}, {entity.slots} slots of {entity.assertions:,} assertions together"
        if entity.slots == 20 and entity.assertions == 100:
            report.goal(f"{what}: memo", times["memo"].best, 1.5e-3, "ms")
            report.goal(f"{what}: decoded", times["decoded"].best, 1.5e-3, "ms")
        if entity.slots == 20 and entity.assertions == 10_000:
            report.goal(f"{what}: cold", times["cold"].best, 50e-3, "ms")
            report.goal(f"{what}: decoded", times["decoded"].best, 10e-3, "ms")
    for shape in _events.USUAL:
        one = {e.assertions: times for e, times in measured.items() if (e.shape, e.slots) == (shape, 1)}
        least, most = min(one), max(one)
        ratio = one[most]["memo"].best / one[least]["memo"].best
        report.goal(f"{kind}, {shape}, one slot: memo at {most:,} over {least}", ratio, 2.0, "×")


def ratios(kind: str, measured: Measured, figure: str) -> Iterator[tuple[Any, ...]]:
    """Yield what each step takes over its baseline."""
    for entity, times in measured.items():
        of = {step: float(getattr(taken, figure)) for step, taken in times.items()}
        yield *_key(kind, entity), *(of[step] / of[ROW if step in AGAINST_ROW else RANGE] for step in STEPS)


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__ or "")
    plan = QUICK if given.quick else FULL
    report = Report("reading", machine(), given.quick, quiet=given.json)
    over: dict[str, list[tuple[Any, ...]]] = {"best": [], "busy": []}
    taken: dict[str, list[tuple[Any, ...]]] = {"best": [], "median": [], "busy": []}
    for kind in _databases.kinds(given.only):
        with _databases.store(kind) as databases:
            if kind == "postgresql":
                report.machine.postgresql = databases.version
            url = databases.fresh()
            with _databases.service(url) as ledger:
                entities = fill(ledger, plan, report)
            databases.settle(url)
            with _databases.service(url) as ledger, closing(Raw(url)) as raw:
                raw.reading()
                measured: Measured = {}
                for entity in entities:
                    report.say(f"{kind}: {entity.name}")
                    measured[entity] = measure(ledger, raw, entity, plan)
            goals(report, kind, measured)
            for figure, rows in over.items():
                rows += ratios(kind, measured, figure)
            for figure, rows in taken.items():
                for entity, times in measured.items():
                    rows.append((*_key(kind, entity), *(getattr(times[step], figure) for step in (RANGE, ROW, *STEPS))))
    note = f"memo and memo from disk against {ROW}; all else against {RANGE}."
    columns = (*_ENTITY, *(Column(step, "×") for step in STEPS))
    report.ratios("Reading against the raw driver: best by the clock", columns, over["best"], note)
    note = "What others do to the machine hardly shows here; nor does what PostgreSQL does in its own process."
    report.ratios("Reading against the raw driver: processor in this process", columns, over["busy"], note)
    columns = (*_ENTITY, *(Column(step, "ms") for step in (RANGE, ROW, *STEPS)))
    report.absolute("Best", columns, taken["best"])
    report.absolute("Median", columns, taken["median"])
    report.absolute("Processor in this process, least", columns, taken["busy"])
    report.finish(as_json=given.json)


if __name__ == "__main__":
    main()
