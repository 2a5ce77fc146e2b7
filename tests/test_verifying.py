"""The forgery matrix: whatever is changed in a database is found, and an untouched one is not accused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
import rfc8785
from sqlalchemy import Table, text

from factledger.auditing import Report
from factledger.core import times
from factledger.core.errors import Category, LedgerError
from factledger.ledger import Ledgers
from factledger.reading import Question
from factledger.sealing import Sealer
from factledger.signing import Keeper
from factledger.store import schema
from factledger.store.engines import Database
from factledger.verifying import verify
from tests.checking import Event, record, request
from tests.conftest import Clock, open_test_ledgers
from tests.store.test_check_ledger import log
from tests.test_sealing import frontier_of

Row = dict[str, Any]
COUNT = 300  # so that a subtree of 256 is kept


@dataclass
class Stored:
    """A ledger with something in every table, and a checkpoint that an auditor has kept."""

    ledgers: Ledgers
    keeper: Keeper
    kept: bytes

    def verify(self, **given: Any) -> Report:
        return verify(self.ledgers.database, "main", self.keeper, **given)

    def rows(self, table: str) -> list[Row]:
        with self.ledgers.database.reading() as connection:
            found = connection.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2")).mappings()
            return [{k: bytes(v) if isinstance(v, memoryview) else v for k, v in row.items()} for row in found]

    def execute(self, statement: str, parameters: Any = None) -> None:
        with self.ledgers.database.writing() as connection:
            connection.execute(text(statement), parameters or {})


def more(number: int) -> Event:
    data = {"subject": f"e:{number % 5}", "predicate": "size", "value": number, "provenance": {"outlet": "a:1"}}
    return {"specversion": "1.0", "type": "factledger.assertion.v1", "source": "x:1", "id": f"m{number}", "data": data}


@pytest.fixture
def stored(signed: Ledgers, keeper: Keeper) -> Stored:
    ledger = signed.get("main")
    assert record(ledger, log()) == log()
    ledger.append([request(*map(more, range(ledger.size(), COUNT)))])
    for subject in ("e:1", "e:2"):
        ledger.entity(subject, Question(valid_at=times.parse_moment("2021-09-10")))
    assert ledger.save_memo() >= 1
    sealed = sealer_of(signed).seal("main")
    assert sealed is not None
    made = Stored(signed, keeper, sealed.note)
    lift_guards(made)
    return made


def lift_guards(stored: Stored) -> None:
    if stored.ledgers.database.dialect == "sqlite":
        for trigger in ("update", "delete", "replace"):
            stored.execute(f"DROP TRIGGER events_no_{trigger}")
    else:
        stored.execute("ALTER TABLE events DISABLE TRIGGER ALL")


def sealer_of(ledgers: Ledgers) -> Sealer:
    assert ledgers.sealer is not None
    return ledgers.sealer


def test_an_untouched_ledger_is_what_it_says(stored: Stored) -> None:
    steps: list[tuple[int, int]] = []
    report = stored.verify(notes={"mine": stored.kept}, progress=lambda done, size: steps.append((done, size)))
    assert report.json()["verified"] is True, report.findings
    assert (report.size, report.count, report.first) == (COUNT, 0, None)
    labels = {"mine", "the held checkpoint", "the published checkpoint"}
    assert report.checkpoints == [(label, COUNT) for label, _ in report.checkpoints]
    assert {label for label, _ in report.checkpoints} == labels
    assert steps[-1] == (COUNT, COUNT)
    for table in ("subtrees", "checkpoints", "beliefs", *(table.name for table in schema.PROJECTIONS)):
        assert stored.rows(table), f"{table} is empty, and so would be the tests below"


def test_a_ledger_that_goes_on_is_verified_too(stored: Stored) -> None:
    stored.ledgers.get("main").append([request(more(900))])
    assert stored.verify().count == 0
    stored.ledgers.get("main").rebuild()
    assert stored.verify().count == 0
    stored.keeper.rotate(lambda: os.urandom(32))
    sealer_of(stored.ledgers).seal("main")
    assert stored.verify(notes={"mine": stored.kept}).count == 0


# --- every stored column


def other(value: Any) -> Any:
    """Something else of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1_000_003
    if isinstance(value, bytes):
        return bytes([*value[:-1], value[-1] ^ 1]) if value else b"x"
    return "x" if value is None else value + "x"


TABLES = (schema.ledgers, schema.events, schema.subtrees, schema.checkpoints, *schema.PROJECTIONS, schema.beliefs)
COLUMNS = [(table, column.name) for table in TABLES for column in table.c]


@pytest.mark.parametrize(("table", "column"), COLUMNS, ids=lambda value: getattr(value, "name", value))
def test_every_flipped_column_is_found(stored: Stored, table: Table, column: str) -> None:
    rows = stored.rows(table.name)
    flipped = table.c[column]
    where = " AND ".join(f"{key.name} = :old_{key.name}" for key in table.primary_key.columns)
    changes: list[Callable[[Any], Any]] = [other]
    if flipped.nullable and rows[0][column] is not None:
        changes.append(lambda _value: None)
    for row in (rows[0], rows[len(rows) // 2], rows[-1]):
        for change in changes:
            new = not row[column] if column == "strict" else change(row[column])
            if new == row[column]:
                continue
            old = {f"old_{key.name}": row[key.name] for key in table.primary_key.columns}
            stored.execute(f"UPDATE {table.name} SET {column} = :new WHERE {where}", {**old, "new": new})
            try:
                report = found(stored)
            finally:
                back = {**old, "was": row[column]}
                if column in table.primary_key.columns:
                    back[f"old_{column}"] = new
                stored.execute(f"UPDATE {table.name} SET {column} = :was WHERE {where}", back)
            assert report is None or report.count > 0, f"{table.name}.{column} of {row}"
            position = row.get("position", row.get("first_position"))
            if report is not None and table is schema.events and column != "ledger_id":
                assert report.first == position, report.findings
    assert stored.verify().count == 0  # all is as it was


PLANTED: dict[Table, Row] = {
    schema.assertions: {"source": "x:nobody", "subject": "e:planted"},
    schema.slots: {"subject": "e:planted"},
    schema.names: {"entity": "e:planted"},
    schema.retractions: {"target": 100},
    schema.touches: {"subject": "e:planted"},
    schema.context: {"position": 100},
    schema.subtrees: {"number": 7},
}


@pytest.mark.parametrize(("table", "other_key"), PLANTED.items(), ids=lambda value: getattr(value, "name", ""))
def test_a_row_that_no_event_left_is_found(stored: Stored, table: Table, other_key: Row) -> None:
    """One that looks like the others in every way, but for its key."""
    planted = {**stored.rows(table.name)[0], **other_key}
    columns = list(planted)
    marks = ", ".join(f":{name}" for name in columns)
    stored.execute(f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({marks})", planted)
    assert table.name in {finding.where for finding in stored.verify().findings}


def test_a_naming_before_the_first_is_found(stored: Stored) -> None:
    stored.execute("UPDATE names SET position = 0, ordinal = 9 WHERE position = 3")
    assert {finding.where for finding in stored.verify().findings} == {"names"}


def found(stored: Stored) -> Report | None:
    """What a verification finds; None if it is refused as corrupt."""
    try:
        return stored.verify()
    except LedgerError as refusal:
        assert refusal.category is Category.CORRUPT, refusal.code
        return None


# --- forgers who know what they do


def forge(stored: Stored, edit: Callable[[list[Row]], list[Row]]) -> None:
    """Rewrite the log as if it had always been so: positions, commitments, head, tree and projections agree."""
    rows = edit(stored.rows("events"))
    stored.execute("DELETE FROM events")
    for position, row in enumerate(rows):
        envelope = {**json.loads(row["envelope"]), "position": position, "source": row["source"], "id": row["id"]}
        envelope["recordedat"] = times.format_instant(row["recorded_at_us"])
        envelope["datasha256"] = hashlib.sha256(row["salt"] + row["data"]).hexdigest()
        row |= {"position": position, "envelope": rfc8785.dumps(envelope)}
    columns = [column.name for column in schema.events.c]
    marks = ", ".join(f":{name}" for name in columns)
    stored.execute(f"INSERT INTO events ({', '.join(columns)}) VALUES ({marks})", rows)
    for table in ("subtrees", "beliefs"):
        stored.execute(f"DELETE FROM {table}")
    head = {
        "size": len(rows),
        "at": rows[-1]["recorded_at_us"],
        "frontier": frontier_of([row["envelope"] for row in rows]),
    }
    stored.execute(
        "UPDATE ledgers SET size = :size, projected_size = :size, recorded_at_us = :at, frontier = :frontier", head
    )
    stored.ledgers.get("main").rebuild()


def edited(rows: list[Row]) -> list[Row]:
    data = {**json.loads(rows[7]["data"]), "value": {"entity": "e:9"}}
    return [*rows[:7], {**rows[7], "data": rfc8785.dumps(data)}, *rows[8:]]


def reattributed(rows: list[Row]) -> list[Row]:
    return [*rows[:20], {**rows[20], "source": "x:another"}, *rows[21:]]


def truncated(rows: list[Row]) -> list[Row]:
    return rows[:-1]


def removed(rows: list[Row]) -> list[Row]:
    return [*rows[:40], *rows[41:]]


def swapped(rows: list[Row]) -> list[Row]:
    one, two = rows[50], rows[51]
    times_kept = {"recorded_at_us": one["recorded_at_us"]}, {"recorded_at_us": two["recorded_at_us"]}
    return [*rows[:50], {**two, **times_kept[0]}, {**one, **times_kept[1]}, *rows[52:]]


def inserted(rows: list[Row]) -> list[Row]:
    shifted = [{**row, "recorded_at_us": row["recorded_at_us"] + 1} for row in rows[60:]]
    return [*rows[:60], {**rows[60], "id": "planted"}, *shifted]


def regrown(rows: list[Row]) -> list[Row]:
    last = rows[-1]
    grown = [{**last, "id": f"new{n}", "recorded_at_us": last["recorded_at_us"] + n} for n in range(5)]
    return [*rows[:-1], *grown]


FORGERIES = (edited, reattributed, truncated, removed, swapped, inserted, regrown)


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda forgery: forgery.__name__)
def test_a_perfect_forgery_is_found_by_the_checkpoint_alone(
    stored: Stored, forgery: Callable[[list[Row]], list[Row]], tmp_path: Path
) -> None:
    nobody = Keeper(tmp_path / "none", tmp_path / "nothing")
    mine = {"mine": stored.kept}
    trusted = stored.keeper.verifier_keys("main")
    forge(stored, forgery)
    stored.execute("DELETE FROM checkpoints")

    # The control: without a checkpoint the forgery is perfect.
    assert verify(stored.ledgers.database, "main", nobody).count == 0

    # Without the key: the held checkpoint finds it, and so does an auditor's on another machine.
    assert stored.verify().count > 0
    report = verify(stored.ledgers.database, "main", nobody, notes=mine, trusted=trusted)
    assert [finding.where for finding in report.findings] == ["checkpoint"]

    # Signed anew with another key, and published: the key is not the one that is known.
    forger = Keeper(tmp_path / "forger" / "key", tmp_path / "forger" / "checkpoints")
    forger.make_key(lambda: os.urandom(32))
    Sealer(stored.ledgers.database, forger).seal("main")
    assert verify(stored.ledgers.database, "main", forger).count == 0
    assert {finding.where for finding in stored.verify().findings} == {"checkpoint", "checkpoints"}
    report = verify(stored.ledgers.database, "main", nobody, notes=mine, trusted=trusted)
    assert {finding.where for finding in report.findings} == {"checkpoint"}

    # Signed with the stolen key, all held files replaced: whoever kept a checkpoint finds it.
    shutil.rmtree(stored.keeper.checkpoints)
    Sealer(stored.ledgers.database, stored.keeper).seal("main")
    assert stored.verify().count == 0
    report = stored.verify(notes=mine)
    assert [finding.where for finding in report.findings] == ["checkpoint"]
    assert report.findings[0].detail.startswith("mine: ")
    assert report.first is not None


def test_events_without_content_need_an_erasure(stored: Stored) -> None:
    """Content and salt are gone from the log, and what they left from the projections."""
    for table in ("events", "assertions"):
        change = "SET data = NULL, salt = NULL" if table == "events" else ""
        verb = "UPDATE events" if change else "DELETE FROM assertions"
        stored.execute(f"{verb} {change} WHERE position = 100")
    names = {row["entity"] for row in stored.rows("names")}
    assert names  # what it named is named by others before
    report = stored.verify()
    assert [(finding.position, finding.where) for finding in report.findings] == [(100, "events")]
    assert "no erasure" in report.findings[0].detail
    data = rfc8785.dumps({"targets": [{"id": "m100"}], "basis": "asked"})

    def erase(rows: list[Row]) -> list[Row]:
        last = rows[-1]
        envelope = {**json.loads(last["envelope"]), "type": "factledger.erasure.v1"}
        erasure = {**last, "id": "erases", "type": "factledger.erasure.v1", "data": data}
        return [*rows, {**erasure, "recorded_at_us": last["recorded_at_us"] + 1, "envelope": rfc8785.dumps(envelope)}]

    rows = erase(stored.rows("events"))
    erasure = rows[-1]
    envelope = {**json.loads(erasure["envelope"]), "position": COUNT, "id": "erases"}
    envelope["recordedat"] = times.format_instant(erasure["recorded_at_us"])
    envelope["datasha256"] = hashlib.sha256(erasure["salt"] + data).hexdigest()
    erasure |= {"position": COUNT, "envelope": rfc8785.dumps(envelope)}
    columns = [column.name for column in schema.events.c]
    stored.execute(f"INSERT INTO events VALUES ({', '.join(f':{name}' for name in columns)})", erasure)
    frontier = frontier_of([row["envelope"] for row in rows])
    stored.execute(
        "UPDATE ledgers SET size = size + 1, projected_size = size + 1, recorded_at_us = recorded_at_us + 1, "
        "frontier = :frontier",
        {"frontier": frontier},
    )
    values = {"at": COUNT, "data": data}
    stored.execute(
        "INSERT INTO context VALUES ('main', 1, :at, 'factledger.erasure.v1', :data, :none)", {**values, "none": b"[]"}
    )
    assert stored.verify(notes={"mine": stored.kept}).findings == []
    stored.execute("UPDATE events SET data = NULL, salt = NULL WHERE position = 101")
    assert stored.verify().first == 101


# --- the file itself


@pytest.fixture
def file(sqlite_url: str, clock: Clock, keeper: Keeper, tmp_path: Path) -> Path:
    """The file of a signed ledger that nobody has open."""
    ledgers = open_test_ledgers(sqlite_url, clock, keeper)
    ledger = ledgers.get("main")
    record(ledger, log())
    ledger.append([request(*map(more, range(ledger.size(), COUNT)))])
    ledger.entity("e:1", Question(valid_at=times.parse_moment("2021-09-10")))
    ledger.save_memo()
    sealer_of(ledgers).seal("main")
    ledgers.close()
    path = tmp_path / "ledger.db"
    assert not path.with_name("ledger.db-wal").exists()
    return path


def dump(path: Path) -> list[Any] | None:
    """All rows of the tables that matter, or None if they cannot be read."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.text_factory = bytes
            return [connection.execute(f"SELECT * FROM {table.name} ORDER BY 1, 2").fetchall() for table in TABLES]
    except sqlite3.DatabaseError:
        return None


def accused(path: Path, keeper: Keeper) -> bool:
    try:
        database = Database(f"sqlite:///{path}")
        try:
            return verify(database, "main", keeper).count > 0
        finally:
            database.close()
    except LedgerError as refusal:
        assert refusal.category in (Category.CORRUPT, Category.UNAVAILABLE), refusal.code
        return True


def test_every_flipped_bit_that_matters_in_the_file_is_found(file: Path, keeper: Keeper, tmp_path: Path) -> None:
    """Bits anywhere in the file; one matters if it changes what a plain reading of the tables gives."""
    whole, before = file.read_bytes(), dump(file)
    assert before is not None
    assert not accused(file, keeper)
    seed = int(os.environ.get("FLIPS_SEED", "1"))
    random, copy = Random(seed), tmp_path / "copy" / "ledger.db"
    copy.parent.mkdir()
    mattered, missed = 0, []
    for _ in range(250):
        at, bit = random.randrange(len(whole)), random.randrange(8)
        for beside in copy.parent.iterdir():
            beside.unlink()
        changed = bytearray(whole)
        changed[at] ^= 1 << bit
        copy.write_bytes(changed)
        if dump(copy) != before:
            mattered += 1
            if not accused(copy, keeper):
                missed.append((at, bit))
    print(f"seed {seed}: {mattered} of 250 flips mattered, {len(missed)} of them were missed")
    assert missed == []
    assert mattered > 60


def test_a_torn_write_ahead_log_is_found(sqlite_url: str, clock: Clock, keeper: Keeper, tmp_path: Path) -> None:
    """Cut anywhere, SQLite goes back to an earlier commit and says nothing; the held checkpoint knows better."""
    ledgers = open_test_ledgers(sqlite_url, clock, keeper)
    ledger = ledgers.get("main")
    for number in range(6):
        ledger.append([request(more(number))])
    sealer_of(ledgers).seal("main")
    main, wal = tmp_path / "ledger.db", tmp_path / "ledger.db-wal"
    torn = tmp_path / "torn" / "ledger.db"
    torn.parent.mkdir()
    whole, sizes = wal.read_bytes(), set()
    frames = (len(whole) - 32) // (24 + 4096)
    for frame in range(frames + 1):
        for beside in torn.parent.iterdir():
            beside.unlink()
        shutil.copyfile(main, torn)
        torn.with_name("ledger.db-wal").write_bytes(whole[: 32 + frame * (24 + 4096) - (17 if frame else 0)])
        with closing(sqlite3.connect(torn)) as connection:
            try:
                size = connection.execute("SELECT size FROM ledgers").fetchone()[0]
            except sqlite3.DatabaseError:
                size = None
        sizes.add(size)
        assert accused(torn, keeper) or size == 6
    ledgers.close()
    assert len(sizes) >= 4


def test_the_negative_control_for_the_file(file: Path, tmp_path: Path) -> None:
    """Without what is held outside, a database that went back in time looks right."""
    nobody = Keeper(tmp_path / "none", tmp_path / "nothing")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("DELETE FROM checkpoints")
        connection.commit()
    assert not accused(file, nobody)
