"""Measuring: rounds of steps one after another, what is kept of them, the machine, and how it is all shown."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

BUSY = 0.5  # a load average above this, before we start, means that others are using the machine
MISSING = "–"


class Step(NamedTuple):
    """Something to time: `act`; `prepare`, untimed, runs before each time."""

    act: Callable[[], object]
    prepare: Callable[[], object] = lambda: None


class Taken(NamedTuple):
    """Seconds that one call took: by the clock, and of the processor in this process."""

    wall: float
    busy: float


class Timing(NamedTuple):
    """Seconds that a step took by the clock, and of the processor at its least, over so many times."""

    best: float
    median: float
    p99: float
    worst: float
    busy: float
    times: int


def timing(taken: Sequence[Taken]) -> Timing:
    """Return what is kept of a series of times."""
    ordered = sorted(one.wall for one in taken)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return Timing(
        ordered[0], statistics.median(ordered), p99, ordered[-1], min(one.busy for one in taken), len(ordered)
    )


def clocked(act: Callable[[], object]) -> Taken:
    """Return what one call takes."""
    begun, busy = time.perf_counter(), time.process_time()
    act()
    return Taken(time.perf_counter() - begun, time.process_time() - busy)


def rounds(steps: Mapping[str, Step], *, seconds: float, least: int = 3, most: int = 300) -> dict[str, Timing]:
    """Run every step once a round, so that what disturbs the machine disturbs all of them, and return the times.

    A step sits out once it has run `least` times and used up its share of `seconds`, or has run `most` times.
    """
    taken: dict[str, list[Taken]] = {name: [] for name in steps}
    used = dict.fromkeys(steps, 0.0)
    gc.collect()
    running = list(steps)
    while running:
        for name in running:
            begun = time.perf_counter()
            steps[name].prepare()
            taken[name].append(clocked(steps[name].act))
            used[name] += time.perf_counter() - begun
        running = [n for n in running if len(taken[n]) < least or (used[n] < seconds and len(taken[n]) < most)]
    return {name: timing(times) for name, times in taken.items()}


# --- the machine


@dataclass(slots=True)
class Machine:
    """What the figures were measured on, and how busy it was."""

    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str
    sqlite: str
    postgresql: str | None
    flush_us: float  # median of writing 4 KiB and flushing it to disk, where the databases lie
    load_at_start: float
    load_at_end: float | None = None
    seconds: float | None = None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _flush_us() -> float:
    """Return what one flush to disk costs: the floor under every append that is alone in its transaction."""
    block, taken = b"\0" * 4096, []
    with tempfile.TemporaryFile() as file:
        for _ in range(30):
            file.write(block)
            file.flush()
            taken.append(clocked(lambda: os.fdatasync(file.fileno())).wall)
    return statistics.median(taken) * 1e6


def machine() -> Machine:
    """Return the machine as it is now."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Machine(
        cpu=_cpu(),
        cores=os.cpu_count() or 1,
        memory_gib=round(memory, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        postgresql=None,
        flush_us=round(_flush_us()),
        load_at_start=round(os.getloadavg()[0], 2),
    )


# --- what is shown

Cell = str | float | int | None

_FORMATS: Mapping[str, Callable[[float], str]] = {
    "×": lambda number: f"{number:,.2f}×" if number < 100 else f"{number:,.0f}×",
    "ms": lambda number: f"{number * 1e3:,.3f} ms" if number < 1e-3 else f"{number * 1e3:,.2f} ms",
    "µs": lambda number: f"{number * 1e6:,.1f} µs",
    "s": lambda number: f"{number:,.2f} s",
    "/s": lambda number: f"{number:,.0f}/s",
    "n": lambda number: f"{number:,.0f}",
    "^": lambda number: f"n^{number:.2f}",
}


class Column(NamedTuple):
    """A column: its heading, and the unit that its numbers (seconds for times) are shown in."""

    name: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Goal:
    """A promise beside what was measured; `at_most` in the same unit."""

    what: str
    measured: float
    at_most: float
    unit: str

    @property
    def met(self) -> bool:
        """Tell whether it is kept."""
        return self.measured <= self.at_most


@dataclass(frozen=True, slots=True)
class _Table:
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str


@dataclass(slots=True)
class Report:
    """Everything that a benchmark has to say: ratios first, then goals, absolute figures, and the machine."""

    name: str
    machine: Machine
    quick: bool
    quiet: bool = False
    _begun: float = field(default_factory=time.perf_counter)
    _ratios: list[_Table] = field(default_factory=list)
    _absolute: list[_Table] = field(default_factory=list)
    _goals: list[Goal] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Tell on standard error what is going on."""
        if not self.quiet:
            print(f"  … {text} ({time.perf_counter() - self._begun:.0f} s)", file=sys.stderr, flush=True)

    def ratios(self, title: str, columns: Sequence[Column], rows: Iterable[Sequence[Cell]], note: str = "") -> None:
        """Add a table of ratios against the baseline."""
        self._ratios.append(_Table(title, columns, list(rows), note))

    def absolute(self, title: str, columns: Sequence[Column], rows: Iterable[Sequence[Cell]], note: str = "") -> None:
        """Add a table of absolute figures."""
        self._absolute.append(_Table(title, columns, list(rows), note))

    def goal(self, what: str, measured: float, at_most: float, unit: str) -> None:
        """Add a promise and what was measured of it."""
        self._goals.append(Goal(what, measured, at_most, unit))

    def finish(self, *, as_json: bool) -> None:
        """Print everything."""
        self.machine.load_at_end = round(os.getloadavg()[0], 2)
        self.machine.seconds = round(time.perf_counter() - self._begun, 1)
        print(json.dumps(self._json(), ensure_ascii=False, indent=1) if as_json else self._text())

    def _json(self) -> dict[str, Any]:
        def tables(of: Sequence[_Table]) -> list[dict[str, Any]]:
            return [
                {
                    "title": table.title,
                    "units": {column.name: column.unit for column in table.columns if column.unit},
                    "rows": [{c.name: cell for c, cell in zip(table.columns, row, strict=True)} for row in table.rows],
                    "note": table.note,
                }
                for table in of
            ]

        return {
            "benchmark": self.name,
            "quick": self.quick,
            "ratios": tables(self._ratios),
            "goals": [{**asdict(goal), "met": goal.met} for goal in self._goals],
            "absolute": tables(self._absolute),
            "machine": asdict(self.machine),
            "busy": self.machine.load_at_start > BUSY,
        }

    def _text(self) -> str:
        lines = [f"factledger: {self.name}" + (" (quick: coarse figures)" if self.quick else "")]
        for table in self._ratios:
            lines += ["", *_lines(table)]
        if self._goals:
            rows = [
                (g.what, _shown(g.measured, g.unit), _shown(g.at_most, g.unit), "met" if g.met else "MISSED")
                for g in self._goals
            ]
            columns = (Column("goal"), Column("measured"), Column("at most"), Column(""))
            lines += ["", *_lines(_Table("Goals", columns, rows, ""))]
        for table in self._absolute:
            lines += ["", *_lines(table)]
        m = self.machine
        lines += [
            "",
            f"Machine: {m.cores} cores of {m.cpu}, {m.memory_gib:g} GiB, {m.system}",
            f"Python {m.python}, SQLite {m.sqlite}, PostgreSQL {m.postgresql or 'not used'}",
            f"A flush of 4 KiB to disk takes {m.flush_us:,.0f} µs",
            f"Load average {m.load_at_start:.2f} at the start, {m.load_at_end:.2f} at the end; took {m.seconds:.0f} s",
        ]
        if m.load_at_start > BUSY:
            lines.append(
                f"WARNING: the machine was busy before this began (load {m.load_at_start:.2f} > {BUSY}): trust the "
                "ratios and the best times, not the medians and the tails."
            )
        return "\n".join(lines)


def _shown(cell: Cell, unit: str) -> str:
    if cell is None:
        return MISSING
    return _FORMATS[unit](float(cell)) if unit in _FORMATS and not isinstance(cell, str) else str(cell)


def _lines(table: _Table) -> list[str]:
    cells = [[_shown(cell, c.unit) for cell, c in zip(row, table.columns, strict=True)] for row in table.rows]
    widths = [max(len(text) for text in texts) for texts in zip((c.name for c in table.columns), *cells, strict=True)]
    numeric = [bool(c.unit) for c in table.columns]

    def line(texts: Sequence[str]) -> str:
        padded = (t.rjust(w) if right else t.ljust(w) for t, w, right in zip(texts, widths, numeric, strict=True))
        return "  " + "  ".join(padded).rstrip()

    shown = [f"## {table.title}", line([c.name for c in table.columns]), *map(line, cells)]
    return [*shown, f"  {table.note}"] if table.note else shown


# --- the command line


def arguments(about: str, **options: Mapping[str, Any]) -> argparse.Namespace:
    """Read the command line: --quick, --json, --only, and what a benchmark adds."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="coarse figures in under 30 seconds")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.add_argument("--only", choices=("sqlite", "postgresql"), help="measure on one database only")
    for name, option in options.items():
        parser.add_argument("--" + name.replace("_", "-"), **option)
    return parser.parse_args()
