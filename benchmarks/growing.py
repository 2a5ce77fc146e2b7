"""How the steps of belief grow with a slot: usual slots, and the worst that one can think of.

The first half runs in memory, on the pure functions behind every read, the second through the ledger. The
baseline of a step is the same step on half as many assertions, a moment before: n log n makes a doubling 2.1 to
2.2 times dearer, a quadratic step makes it 4 times dearer. Times here are of the processor, not of the clock, so
that others who use the machine hardly show.
"""

from __future__ import annotations

import gc
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import _databases, _events
from benchmarks._events import Event, Shape
from benchmarks._measuring import Column, Report, arguments, machine
from factledger.core import events
from factledger.core.belief import believe
from factledger.core.context import Policy, Vocabulary
from factledger.core.evidence import DEFINITE, POSSIBLE, Assertion, Rules, Slot, prepare
from factledger.core.timeline import segments
from factledger.ledger import Ledger
from factledger.reading import Question

LARGEST = 20_000
SMALLEST = LARGEST // 128
TOLERATED = 2.5  # a doubling that costs more is not n log n
DEAR = 0.1  # seconds; what takes less at the largest size hurts nobody, and is ruled by the processor's caches


class Growth(NamedTuple):
    """What the last doublings of a slot did to a step: the mean ratio of one."""

    ratio: float
    size: int  # the larger of the two that were compared
    seconds: float  # at that size

    @property
    def order(self) -> float:
        """Return k, if the step took n^k."""
        return math.log2(max(self.ratio, 1e-3))

    def at(self, size: int) -> float:
        """Return what a size takes, foreseen by that doubling if it was not measured."""
        return self.seconds * float((size / self.size) ** self.order)


def growth(measured: dict[int, float]) -> Growth | None:
    """Return the growth at the largest size measured, over two doublings if there are two."""
    sizes = sorted(measured)
    if len(sizes) < 2:
        return None
    size, before = sizes[-1], sizes[-3:][0]
    ratio = (measured[size] / measured[before]) ** (1 / math.log2(size / before))
    return Growth(ratio, size, measured[size])


# --- in memory

Step = Callable[[], object]


def _steps(rows: list[Assertion]) -> dict[str, Callable[[], Step]]:
    """Return, by name, what makes each step ready to be timed once."""
    context = _events.context(rows)
    rules = Rules.of(Vocabulary(cardinality="one"), Policy())
    decoded = prepare(rows, (), context, rules)
    instants = decoded.boundaries()
    middle, late = instants[len(instants) // 2], instants[-1]

    def fresh() -> Slot:
        return Slot(decoded.evidence, rules, decoded.muted, decoded.retracted, decoded.voices)

    def first_belief() -> Step:
        slot = fresh()
        return lambda: believe(slot, late)

    def timeline(weakest: int) -> Step:
        slot = fresh()
        return lambda: segments(slot, weakest)

    return {
        "prepare": lambda: lambda: prepare(rows, (), context, rules),
        "first belief": first_belief,
        "belief amid": lambda: lambda: believe(decoded, middle),
        "belief late": lambda: lambda: believe(decoded, late),
        "piece": lambda: lambda: decoded.piece(middle),
        "timeline": lambda: timeline(POSSIBLE),
        "timeline, definite": lambda: timeline(DEFINITE),
    }


def grow_in_memory(report: Report, *, smallest: int, largest: int, limit: float) -> None:
    """Measure every step on every shape, doubling the slot for as long as it will take `limit` seconds at most."""
    found: list[tuple[str, str, Growth]] = []
    for name, shape in {**_events.USUAL, **_events.WORST}.items():
        report.say(name)
        found += [(name, step, grown) for step, grown in _grow(shape, smallest, largest, limit).items() if grown]
    slow = [entry for entry in found if entry[2].ratio > TOLERATED and entry[2].at(largest) > DEAR]
    rest = [entry for entry in found if entry not in slow]
    report.ratios(
        f"Grows faster than n log n: a doubling costs more than {TOLERATED:g}×, and {largest:,} over {DEAR:g} s",
        _COLUMNS,
        [_row(*entry, largest) for entry in sorted(slow, key=lambda e: -e[2].at(largest))],
        f"Seconds at {largest:,} are foreseen by the last doublings where a step was stopped before.",
    )
    report.ratios(
        "All else: the dearest doubling of each step over all shapes",
        _COLUMNS,
        [
            _row(*max((e for e in rest if e[1] == step), key=lambda e: e[2].ratio), largest)
            for step in dict.fromkeys(entry[1] for entry in rest)
        ],
    )
    report.absolute("Every shape and step", _COLUMNS, [_row(*entry, largest) for entry in found])


_COLUMNS = (
    Column("shape"),
    Column("step"),
    Column("doubling", "×"),
    Column("order", "^"),
    Column("assertions", "n"),
    Column("takes", "ms"),
    Column("at the largest", "s"),
    Column(""),
)


def _row(shape: str, step: str, grown: Growth, largest: int) -> tuple[Any, ...]:
    foreseen = "foreseen" if grown.size < largest else ""
    return shape, step, grown.ratio, grown.order, grown.size, grown.seconds, grown.at(largest), foreseen


def _grow(shape: Shape, smallest: int, largest: int, limit: float) -> dict[str, Growth | None]:
    measured: dict[str, dict[int, float]] = {}
    stopped: set[str] = set()
    size = smallest
    while size <= largest:
        rows = _events.inputs(_events.shaped(shape, size, subject="e:0"))
        for name, ready in _steps(rows).items():
            if name not in stopped:
                first = _busy(ready())
                # What is quick is repeated, and the best counts.
                again = [_busy(ready()) for _ in range(min(8, int(limit / 8 / max(first, 1e-6))))]
                times = measured.setdefault(name, {})
                times[size] = min([first, *again])
                if _next(times) > limit:
                    stopped.add(name)
        size *= 2
    return {name: growth(times) for name, times in measured.items()}


def _next(measured: dict[int, float]) -> float:
    """Return what twice the largest size will take, if the step grows as before; as n² where nothing is known."""
    if not measured:
        return 0.0
    grown = growth(measured)
    return measured[max(measured)] * (max(grown.ratio, 2.0) if grown else 4.0)


def _busy(act: Step) -> float:
    """Return the seconds of processor time that one call takes; collecting garbage is put off, as by timeit."""
    gc.collect(1)
    gc.disable()
    try:
        begun = time.thread_time()
        act()
        return time.thread_time() - begun
    finally:
        gc.enable()


# --- through the ledger


def _again(act: Step, prepare: Step, times: int) -> float:
    taken = []
    for _ in range(times):
        prepare()
        taken.append(_busy(act))
    return min(taken)


def _ledger_steps(ledger: Ledger, subject: str, size: int, times: int) -> dict[str, float]:
    """Return the best seconds of each read of one slot that holds `size` assertions, the last ones recorded."""
    now, last = Question(), ledger.size()
    instants = itertools.cycle(range(_events.DAY_ONE, _events.DAY_ONE + size * _events.HOUR, _events.HOUR * size // 64))
    another = _databases.without(ledger, "memos", "unsaved")
    half = Question(at_size=last - size // 2)
    unresolved = _databases.without(ledger, "memos", "unsaved", "slots")

    def nothing() -> None: ...

    return {
        "cold": _again(lambda: ledger.entity(subject, now), _databases.reopened(ledger), times),
        "decoded": _again(lambda: ledger.entity(subject, Question(valid_at=next(instants))), another, 4 * times),
        "as of half": _again(lambda: ledger.entity(subject, half), unresolved, times),
        "timeline": _again(lambda: ledger.timeline(subject, "slot_00", now), nothing, 2),
        "why": _again(lambda: ledger.why(subject, "slot_00", now), nothing, 2),
        "history, last event": _again(
            lambda: ledger.history(subject, "slot_00", now, from_size=last - 1, limit=1), nothing, 1
        ),
    }


def _append_seconds(ledger: Ledger, subject: str, size: int, times: int) -> float:
    """Return the best seconds of appending one more assertion to a slot."""
    more = _events.shaped(_events.changing, size + times, subject=subject)
    requests = iter(_events.requests(list(more)[-times:], 1))
    return min(_busy(lambda: _events.append(ledger, next(requests))) for _ in range(times))


def grow_in_a_ledger(report: Report, *, sizes: tuple[int, int], times: int) -> None:
    """Measure reads and appends of one slot at one size and at twice that, on SQLite."""
    half, size = sizes
    grown: list[tuple[Any, ...]] = []
    with _databases.store("sqlite") as databases, _databases.service(databases.fresh()) as ledger:
        _events.fill(ledger, _events.declared())
        for name, shape in _events.USUAL.items():
            measured = []
            for count in sizes:
                report.say(f"ledger, {name}, {count:,}")
                subject = f"{name}:{count}"
                _events.fill(ledger, _events.shaped(shape, count, subject=subject))
                steps = _ledger_steps(ledger, subject, count, times)
                if shape is _events.changing:
                    steps["append"] = _append_seconds(ledger, subject, count, 10 * times)
                measured.append(steps)
            for step, before in measured[0].items():
                after = measured[1][step]
                grown.append((name, step, after / before, before, after))
                if step in ("timeline", "cold", "decoded", "append"):
                    report.goal(f"{step}, {name}: {size:,} over {half:,} assertions", after / before, TOLERATED, "×")
    columns = (
        Column("shape"),
        Column("step"),
        Column("ratio", "×"),
        Column(f"at {half:,}", "ms"),
        Column(f"at {size:,}", "ms"),
    )
    report.ratios(f"Through the ledger, one slot: {size:,} over {half:,} assertions", columns, grown)


# --- what is taken back


def _repeating(count: int, subject: str) -> Iterable[Event]:
    """Yield assertions of one origin that all say the same."""
    for made in _events.shaped(_events.stable, count, subject=subject):
        made["data"]["provenance"]["outlet"] = "o0"
        yield made


def _plain(count: int, subject: str) -> Iterable[Event]:
    """Yield assertions."""
    return _events.shaped(_events.changing, count, subject=subject)


def _corrections(count: int, subject: str) -> Iterable[Event]:
    """Yield a chain: every assertion corrects the one before it."""
    for made in _events.shaped(_events.stable, count, subject=subject):
        number = int(made["id"].rpartition("/")[2])
        if number:
            made["data"]["corrects"] = [{"id": f"{subject}/0/{number - 1}"}]
        yield made


def _retractions(count: int, subject: str) -> Iterable[Event]:
    """Yield assertions, half of which are retracted one by one."""
    yield from _events.shaped(_events.stable, count, subject=subject)
    for number in range(0, count, 2):
        data = {"targets": [{"id": f"{subject}/0/{number}"}], "reason": "other"}
        yield _events.event(events.RETRACTION, f"{subject}/back/{number}", data)


def _bulk(count: int, subject: str) -> Iterable[Event]:
    """Yield assertions, and a tenth as many bulk retractions of runs that are none of theirs."""
    yield from _events.shaped(_events.stable, count, subject=subject)
    for number in range(count // 10):
        data = {"where": {"run": f"no such run {number}"}, "reason": "extractor_error"}
        yield _events.event(events.RETRACTION, f"{subject}/bulk/{number}", data)


def _merged(count: int, subject: str) -> Iterable[Event]:
    """Yield assertions about as many ids as there are, all judged to be the same entity."""
    for number in range(count):
        (made,) = _events.shaped(_events.stable, 1, subject=f"{subject}/{number}")
        yield made
    for number in range(1, count):
        data = {"entities": [f"{subject}/0", f"{subject}/{number}"], "judgement": "same"}
        yield _events.event(events.IDENTITY, f"{subject}/same/{number}", data)


def grow_taken_back(report: Report, *, smallest: int, limit: float) -> None:
    """Measure appending and cold reading where much is corrected, retracted or merged, on SQLite."""
    rows: list[tuple[Any, ...]] = []
    makers = {
        "values changing": (_plain, "e:0"),
        "one origin, repeating": (_repeating, "e:0"),
        "a chain of corrections": (_corrections, "e:0"),
        "half retracted one by one": (_retractions, "e:0"),
        "bulk retractions, a tenth": (_bulk, "e:0"),
        "merged ids": (_merged, "e:0/0"),
    }
    for name, (make, entity) in makers.items():
        report.say(name)
        measured: dict[str, dict[int, float]] = {}
        size, failed = smallest, ""
        while size <= LARGEST and not failed:
            wanted = [step for step in READS if _next(measured.get(step, {})) <= limit]
            try:
                taken = _taken_back(list(make(size, "e:0")), entity, wanted)
            except RecursionError:
                failed = f"RecursionError at {size:,}"
                break
            for step, seconds in taken.items():
                measured.setdefault(step, {})[size] = seconds
            if max(_next(measured["append all"]), _next(measured["cold"])) > limit:
                break
            size *= 2
        for step, by_size in measured.items():
            if grown := growth(by_size):
                rows.append((name, step, grown.ratio, grown.order, grown.size, grown.seconds, failed))
    columns = (*_COLUMNS[:6], Column(""))
    report.ratios("Repeated, taken back, merged, and told event by event, through the ledger", columns, rows)


READS = ("cold", "why", "whole history")


def _taken_back(made: list[Event], entity: str, wanted: Sequence[str]) -> dict[str, float]:
    """Return the seconds of appending these events in one batch, and of reading them."""
    with _databases.store("sqlite") as databases, _databases.service(databases.fresh()) as ledger:
        _events.fill(ledger, _events.declared(1))
        taken = {"append all": _busy(lambda: _events.fill(ledger, made))}
        reads = {
            "cold": lambda: ledger.entity(entity, Question()),
            "why": lambda: ledger.why(entity, "slot_00", Question()),
            "whole history": lambda: ledger.history(entity, "slot_00", Question(), limit=10_000),
        }
        reopened = _databases.reopened(ledger)
        for step in wanted:
            taken[step] = _again(reads[step], reopened, 2 if step == "cold" else 1)
        return taken


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__ or "")
    report = Report("growing", machine(), given.quick, quiet=given.json)
    if given.quick:
        grow_in_memory(report, smallest=SMALLEST, largest=SMALLEST * 8, limit=0.05)
        grow_in_a_ledger(report, sizes=(400, 800), times=3)
        grow_taken_back(report, smallest=25, limit=0.15)
    else:
        grow_in_memory(report, smallest=SMALLEST, largest=SMALLEST * 128, limit=1.5)
        grow_in_a_ledger(report, sizes=(10_000, 20_000), times=5)
        grow_taken_back(report, smallest=50, limit=3.0)
    report.finish(as_json=given.json)


if __name__ == "__main__":
    main()
