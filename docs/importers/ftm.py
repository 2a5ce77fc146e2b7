"""Import FollowTheMoney statements: the CSV of OpenSanctions and of `ftm`.

    python -m docs.importers.ftm statements.csv --previous statements-of-last-week.csv

The columns: canonical_id, entity_id, prop, prop_type, schema, value, dataset, origin, lang, original_value, external,
first_seen, last_seen, id. Times are UTC. Source: `followthemoney.statement`, of version 4.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.importers.importing import Event, LeftOut, Mapped, Row, main, mapped, once, opened, slug
from factledger.client import assertion, date, entity, identity, retraction, text

SOURCE = "importer:followthemoney@1"
NEEDED = {
    "canonical_id",
    "entity_id",
    "prop",
    "prop_type",
    "schema",
    "value",
    "dataset",
    "first_seen",
    "last_seen",
    "id",
}
SCHEMA = "id"  # the property by which a statement says that an entity of this schema exists
MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d)?(?:\.\d+)?(Z|[+-]\d\d:\d\d)?)?")

csv.field_size_limit(1 << 20)  # a value may be longer than Python's 128 KiB; the ledger refuses it by itself


def rows(file: Path) -> Iterator[tuple[int, Row | LeftOut]]:
    """Yield the rows of a CSV with the line on which each ends."""
    with opened(file) as lines:
        reader = csv.DictReader(lines, strict=True)
        lacking = NEEDED - set(reader.fieldnames or ())
        if lacking:
            yield 1, LeftOut(f"the header lacks {', '.join(sorted(lacking))}")
            return
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as problem:
                yield reader.line_num, LeftOut(f"is no CSV: {problem}")
                continue
            if None in row or None in row.values():
                yield reader.line_num, LeftOut("has more or fewer cells than the header")
            else:
                yield reader.line_num, row


def moment(cell: str) -> str:
    """Return a time of the file as the ledger takes it: UTC where it names no offset.

    Raises:
        ValueError: it is none.
    """
    match = MOMENT.fullmatch(cell)
    if match is None:
        raise ValueError(f"{cell!r} is no date and no time")
    day, clock, seconds, offset = match.groups()
    return day if clock is None else f"{day}T{clock}{seconds or ':00'}{offset or 'Z'}"


def value(row: Row) -> Any:
    """Return what a statement says, as a value of the ledger."""
    match row["prop_type"]:
        case "entity":
            return entity(f"ftm:{row['value']}")
        case "date":
            return date(moment(row["value"]) if len(row["value"]) > 10 else row["value"])
        case "number" if re.fullmatch(r"-?\d{1,15}", row["value"]):
            return int(row["value"])
        case "number" if re.fullmatch(r"-?\d{1,15}\.\d+", row["value"]):
            return float(row["value"])
    return text(row["value"], row["lang"]) if row.get("lang") else row["value"]


def same(row: Row) -> Event | None:
    """Return the judgement that a row rests on: the entity of the dataset is a canonical one."""
    canonical, own = f"ftm:{row['canonical_id']}", f"ftm:{row['entity_id']}"
    if canonical == own:
        return None
    # The canonical id first: the ledger, too, then calls the cluster by it.
    return identity(canonical, own, judgement="same", id=f"same/{canonical}/{own}")


def statement(row: Row, over: bool) -> Iterator[Event]:
    """Yield what a row says: who is who, the statement, and, if it is over, its end.

    Raises:
        LookupError, TypeError, ValueError: it lacks something.
    """
    if (judged := same(row)) is not None:
        yield judged
    first, last = moment(row["first_seen"]), moment(row["last_seen"])
    is_schema = row["prop"] == SCHEMA
    said = {
        "subject": f"ftm:{row['entity_id']}",
        "predicate": "schema" if is_schema else slug(row["prop"], "_"),
        "value": row["schema"] if is_schema else value(row),
        "outlet": f"dataset:{row['dataset']}",
        "evidence": {"quote": row["original_value"]} if row.get("original_value") else None,
        "method": {"kind": row["origin"]} if row.get("origin") else None,
    }
    event_id = f"{row['id']}@{first}"
    yield assertion(**said, asserted_at=first, id=event_id)
    if over:
        yield assertion(**said, valid=f"{first[:10]}/{last[:10]}", asserted_at=last, id=f"{event_id} until {last}")


def last_runs(file: Path) -> dict[str, str]:
    """Return when each dataset of a file was last run: the latest time at which anything in it was seen."""
    runs: dict[str, str] = {}
    for _, row in rows(file):
        if not isinstance(row, LeftOut):
            runs[row["dataset"]] = max(runs.get(row["dataset"], ""), row["last_seen"])
    return runs


def importer(file: Path, previous: Path | None) -> Iterator[Mapped]:
    """Yield the events of a file, and those that end what was in the previous one and is no longer in this one."""
    runs = last_runs(file)
    kept: set[str] = set()
    canonical: dict[str, str] = {}

    def current(row: Row) -> Iterator[Event]:
        yield from statement(row, row["last_seen"] < runs[row["dataset"]])
        if previous is not None:
            kept.add(row["id"])
            canonical[row["entity_id"]] = row["canonical_id"]

    def gone(row: Row) -> Iterator[Event]:
        if row["id"] not in kept:
            *_, end = statement(row, over=True)
            yield end
        before = same(row)
        if before is not None and canonical.get(row["entity_id"], row["canonical_id"]) != row["canonical_id"]:
            yield retraction(before["id"], reason="resolver_error", id=f"not {before['id']}")

    yield from once(mapped(rows(file), current))
    if previous is not None:
        yield from once(mapped(rows(previous), gone))


if __name__ == "__main__":
    sys.exit(main(importer, SOURCE, __doc__))
