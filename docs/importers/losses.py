"""Import counts that were claimed, hedged, revised and withdrawn: a log of changes to a data set.

    python -m docs.importers.losses mod_equipment_events.jsonl.gz mod_personnel_events.jsonl.gz

A line: commit, asserted_at, key, predicate, value, old, kind (new, changed or removed). The key is the day that a
figure is of, or, in the visual count, the line of the list: category|model|maker.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from docs.importers.importing import Event, LeftOut, Mapped, Row, json_lines, main, slug
from factledger.client import assertion, predicate, retraction

SOURCE = "importer:losses@1"
DATASET = "dataset:2022-ukraine-russia-war-dataset"
FORCE = "force:russia"

# Columns that hedge another column, and what their words make of its certainty
HEDGES = {"personnel*": "personnel", "*personnel": "personnel"}
CERTAINTY: dict[str, Literal["probable"]] = {
    "about": "probable",
    "almost": "probable",
    "more": "probable",
    "more than": "probable",
}
UNITS = {"personnel": "person", "POW": "person"}  # all else is counted by the piece
TEXTS = {"greatest losses direction", "equipment", "equipment_ua"}


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file holds: whose word, under which predicates, and whether a figure stands until the next."""

    speaker: str
    prefix: str
    running: bool = False


KINDS = {
    "mod_equipment_events": Kind("agent:mod-ukraine", "losses_"),
    "mod_personnel_events": Kind("agent:mod-ukraine", "losses_"),
    "mod_correction_events": Kind("agent:mod-ukraine", "correction_"),
    "oryx_events": Kind("agent:oryx", "counted_", running=True),
}


@dataclass(slots=True)
class Said:
    """What has been said in one cell: as it stands, and under which ids."""

    value: int | str
    hedge: str | None
    ids: list[str] = field(default_factory=list)


class Log:
    """The cells of one file, as far as it has been read."""

    def __init__(self, name: str) -> None:
        """Take the file's name, which tells what it holds."""
        self._name, self._kind = name, KINDS[name]
        self._cells: dict[tuple[str, str], int | str] = {}
        self._said: dict[tuple[str, str], Said] = {}
        self._declared: set[str] = set()

    def commit(self, rows: list[tuple[int, Row]]) -> Iterator[Mapped]:
        """Yield what the lines of one commit say together: a figure and its hedge are one claim."""
        touched: dict[tuple[str, str], tuple[int, Row]] = {}
        for number, row in rows:
            try:
                self._enter(row)
                column: str = row["predicate"]
                touched[row["key"], HEDGES.get(column, column)] = number, row
            except KeyError as missing:
                yield number, LeftOut(f"has no {missing}")
            except (TypeError, ValueError) as problem:
                yield number, LeftOut(str(problem))
        for (key, column), (number, row) in touched.items():
            yield from ((number, event) for event in self._events(key, column, row))

    def _enter(self, row: Row) -> None:
        """Write a cell, or empty it.

        Raises:
            ValueError: the cell does not hold what the line says that it held, or cannot hold what it says.
        """
        cell, value, column = (row["key"], row["predicate"]), row["value"], row["predicate"]
        if row["kind"] == "removed":
            if cell not in self._cells:
                raise ValueError("takes away what was not there")
        elif column in HEDGES:
            if value not in CERTAINTY:
                raise ValueError(f"hedges with {value!r}, which is none of {', '.join(CERTAINTY)}")
        elif type(value) is not (str if column in TEXTS else int):
            raise ValueError(f"the figure is {value!r}")
        if self._cells.get(cell) != row["old"]:
            raise ValueError(f"replaces {row['old']!r} where {self._cells.get(cell)!r} stands")
        if row["kind"] == "removed":
            del self._cells[cell]
        else:
            self._cells[cell] = value

    def _events(self, key: str, column: str, row: Row) -> Iterator[Event]:
        """Yield what makes of what was said in a cell what stands there now."""
        value, said = self._cells.get((key, column)), self._said.get((key, column))
        hedges = (self._cells.get((key, by)) for by, hedged in HEDGES.items() if hedged == column)
        hedge = next((str(word) for word in hedges if word is not None), None)
        event_id = f"{self._name}/{row['commit']}/{key}/{column}"
        if value is None:
            if said is not None:
                yield retraction(*said.ids, reason="source_withdrew", id=event_id)
                del self._said[key, column]
            return
        if said is not None and (said.value, said.hedge) == (value, hedge):
            return
        earlier = said.ids if said else []
        yield from self._declare(column)
        yield assertion(
            f"model:{'_'.join(key.split())}" if self._kind.running else FORCE,
            self._predicate(column),
            value,
            outlet=DATASET,
            speakers=self._kind.speaker,
            valid=f"{_utc_day(row['asserted_at'])}/.." if self._kind.running else key,
            asserted_at=row["asserted_at"],
            certainty=CERTAINTY[hedge] if hedge else None,
            evidence={"quote": f"{hedge} {value}"} if hedge else None,
            # All earlier versions: correcting the last alone would bring back the one that it corrected.
            corrects=earlier if earlier and not self._kind.running else None,
            id=event_id,
        )
        self._said[key, column] = Said(value, hedge, [*earlier, event_id])

    def _declare(self, column: str) -> Iterator[Event]:
        name = self._predicate(column)
        if name not in self._declared:
            self._declared.add(name)
            if column in TEXTS:
                yield predicate(name, "one", value_type="text", label=column, id=f"predicate/{name}")
            else:
                unit = UNITS.get(column, "piece")
                yield predicate(name, "one", value_type="number", unit=unit, label=column, id=f"predicate/{name}")

    def _predicate(self, column: str) -> str:
        return self._kind.prefix + slug(column, "_")


def _utc_day(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone(UTC).date().isoformat()


def importer(file: Path, _previous: Path | None = None) -> Iterator[Mapped]:
    """Yield the events of a file, whose name must be that of one of the four."""
    name = file.name.partition(".")[0]
    if name not in KINDS:
        yield 0, LeftOut(f"the file is none of {', '.join(KINDS)}")
        return
    log, commit = Log(name), list[tuple[int, Row]]()
    for number, row in json_lines(file):
        if isinstance(row, LeftOut):
            yield number, row
            continue
        if commit and row.get("commit") != commit[0][1].get("commit"):
            yield from log.commit(commit)
            commit = []
        commit.append((number, row))
    yield from log.commit(commit)


if __name__ == "__main__":
    sys.exit(main(importer, SOURCE, __doc__))
