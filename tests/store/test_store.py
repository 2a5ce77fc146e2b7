"""The store: append-only, one history however many write, all or nothing, the same on both databases."""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from sqlalchemy import Connection, Table, UniqueConstraint, event, inspect, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from factledger.core import times
from factledger.core.errors import Category, LedgerError
from factledger.ledger import Ledger, Ledgers
from factledger.reading import Question
from factledger.recording import Receipt, Request, Sources
from factledger.store import schema
from factledger.store.engines import Database
from factledger.store.migrating import current_and_latest, migrate
from factledger.store.projections import Projection
from factledger.wiring import open_ledgers
from tests import oracle, strategies
from tests.checking import Event, check_ledger, everything, read_log, record, request
from tests.conftest import Clock
from tests.core.test_belief import START
from tests.core.test_belief import Clock as Hours
from tests.postgres import PostgresServer

names = (f"s{n}" for n in itertools.count())
AT_NOON = Question(valid_at=times.parse_moment("2021-09-05"))


def claim(number: int | str, subject: str = "e:1", outlet: str = "a:1", source: str = "x:one@1", **data: Any) -> Event:
    provenance = {"outlet": outlet, **data.pop("provenance", {})}
    content = {"subject": subject, "predicate": "alias", "value": f"v{number}", "provenance": provenance, **data}
    named = {"specversion": "1.0", "source": source, "id": f"c{number}"}
    return {**named, "type": "factledger.assertion.v1", "data": content}


def retraction(number: int | str, **data: Any) -> Event:
    named = {"specversion": "1.0", "source": "x:one@1", "id": f"r{number}"}
    return {**named, "type": "factledger.retraction.v1", "data": {"reason": "other", **data}}


def rows(ledgers: Ledgers) -> dict[str, int]:
    """Return how many rows each table has."""
    with ledgers.database.reading() as connection:
        tables = schema.metadata.tables
        return {name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one() for name in tables}


# ---- Append-only ---------------------------------------------------------------------------------------


CHANGES = (
    "UPDATE events SET id = 'other'",
    "UPDATE events SET envelope = envelope",
    "UPDATE events SET data = NULL, salt = NULL WHERE position = 1",
    "UPDATE events SET ledger_id = 'other', position = 7",
    "DELETE FROM events",
    "DELETE FROM events WHERE position = 2",
    "INSERT INTO events SELECT * FROM events WHERE position = 0",
    (
        "INSERT INTO events (ledger_id, position, source, id, type, recorded_at_us, envelope)"
        " SELECT ledger_id, 9, source, id, type, recorded_at_us, envelope FROM events WHERE position = 0"
    ),
    "INSERT INTO events SELECT * FROM events WHERE true ON CONFLICT (ledger_id, position) DO UPDATE SET type = 'x'",
)
TRUNCATIONS = ("TRUNCATE events", "TRUNCATE events, ledgers CASCADE")  # SQLite knows no such statement


def test_the_log_can_only_be_appended_to(ledgers: Ledgers, ledger: Ledger) -> None:
    record(ledger, [claim(n) for n in range(3)])
    before, stored = read_log(ledger), rows(ledgers)
    refusals = r"append-only|UNIQUE|duplicate key"
    for statement in CHANGES + (TRUNCATIONS if ledgers.database.dialect == "postgresql" else ()):
        with pytest.raises(DBAPIError, match=refusals), ledgers.database.writing() as connection:
            connection.execute(text(statement))
        assert read_log(ledger) == before, statement
        assert rows(ledgers) == stored, statement
    check_ledger(ledgers, "main")


# REPLACE deletes the row that is in its way without firing the trigger on DELETE.
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("position", [0, 9])
def test_the_log_cannot_be_replaced(position: int, ledgers: Ledgers, ledger: Ledger) -> None:
    record(ledger, [claim(n) for n in range(3)])
    before = read_log(ledger)
    statement = f"INSERT OR REPLACE INTO events SELECT ledger_id, {position}, source, id, 'x', recorded_at_us, "
    statement += "envelope, data, salt FROM events WHERE position = 0"
    with pytest.raises(DBAPIError), ledgers.database.writing() as connection:
        connection.execute(text(statement))
    assert read_log(ledger) == before


def test_a_reading_connection_cannot_write(ledgers: Ledgers, ledger: Ledger) -> None:
    with pytest.raises((DBAPIError, LedgerError)), ledgers.database.reading() as connection:
        connection.execute(text("UPDATE ledgers SET size = 1"))
    assert ledger.size() == 0


# ---- Migrations ----------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with nothing in it."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = f"empty_{next(names)}_{tmp_path.name[-20:].lower()}"
    yield server.create_database(re.sub(r"\W", "_", name))
    server.drop_database(re.sub(r"\W", "_", name))


def catalogue(connection: Connection) -> set[tuple[Any, ...]]:
    """Return all that the database says of the tables, as it says it."""
    if connection.dialect.name == "sqlite":
        query = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE type IN ('table', 'index')"
        found = {(kind, name, table, *_words(sql)) for kind, name, table, sql in connection.execute(text(query)) if sql}
    else:
        found = set()
        for columns, tables in (
            (
                "table_name, column_name, data_type, collation_name, is_nullable, column_default",
                "information_schema.columns WHERE table_schema = 'public'",
            ),
            (
                "conrelid::regclass::text, conname, pg_get_constraintdef(oid)",
                "pg_constraint WHERE connamespace = 'public'::regnamespace",
            ),
            ("tablename, indexname, indexdef", "pg_indexes WHERE schemaname = 'public'"),
        ):
            query = f"SELECT {columns} FROM {tables}"
            found |= {tuple(row) for row in connection.execute(text(query))}
    return {row for row in found if "alembic_version" not in row}


def _words(sql: str) -> list[str]:
    return sorted(re.findall(r"[^\s,()]+|[,()]", sql))  # the order of constraints does not matter


def test_migrations_from_zero_make_what_the_metadata_says(empty_database: str) -> None:
    database = Database(empty_database)
    migrate(database)
    current, latest = current_and_latest(database)
    assert current == latest is not None
    with database.reading() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), schema.metadata) == []
        migrated = catalogue(connection)
    with database.writing() as connection:
        for table in inspect(connection).get_table_names():
            connection.execute(text(f"DROP TABLE {table}"))
        schema.metadata.create_all(connection)
    with database.reading() as connection:
        assert migrated == catalogue(connection)
    database.close()


def test_migrating_again_changes_nothing(ledgers: Ledgers, ledger: Ledger) -> None:
    record(ledger, [claim(1)])
    migrate(ledgers.database)
    migrate(ledgers.database)
    check_ledger(ledgers, "main")


def test_what_was_recorded_before_a_migration_is_found_by_what_it_names(ledgers: Ledgers, ledger: Ledger) -> None:
    entity = 'e:/\\"é'
    values: list[Any] = [{"entity": entity}, '{"entity":', {"text": "x", "lang": "en"}, True, 7]
    claims = [claim(n, value=value) for n, value in enumerate(values)]
    claims[0]["data"]["provenance"]["speakers"] = ['a:☃"2"']
    claims[1]["data"]["provenance"]["speakers"] = ["a:1"]  # the outlet itself
    record(ledger, claims)
    with ledgers.database.writing() as connection:
        for index in ("ix_assertions_quoted", "ix_assertions_value_entity", "ix_slots_predicate"):
            connection.execute(text(f"DROP INDEX {index}"))
        for column in ("quoted", "value_entity"):
            connection.execute(text(f"ALTER TABLE assertions DROP COLUMN {column}"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0002'"))
    migrate(ledgers.database)
    check_ledger(ledgers, "main")
    with ledgers.database.reading() as connection:
        found = connection.execute(text("SELECT value_entity FROM assertions WHERE value_entity IS NOT NULL"))
        assert found.scalars().all() == [entity]


def test_a_database_of_a_newer_version_is_left_alone(ledgers: Ledgers) -> None:
    with ledgers.database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(LedgerError) as refused:
        migrate(ledgers.database)
    assert refused.value.code == "schema-newer"


@pytest.mark.parametrize("table", schema.metadata.sorted_tables, ids=lambda table: table.name)
def test_every_key_starts_with_the_ledger(table: Table) -> None:
    keys = [list(table.primary_key.columns)]
    keys += [list(c.columns) for c in table.constraints if isinstance(c, UniqueConstraint)]
    keys += [list(index.columns) for index in table.indexes]
    assert all(key[0].name == "ledger_id" for key in keys)
    assert not any(column.unique or column.foreign_keys for column in table.columns)
    assert table.primary_key.columns
    assert not table.c.ledger_id.nullable


def test_every_key_of_the_database_starts_with_the_ledger(ledgers: Ledgers) -> None:
    with ledgers.database.reading() as connection:
        found = inspect(connection)
        tables = [name for name in found.get_table_names() if name != "alembic_version"]
        assert set(tables) == set(schema.metadata.tables)
        for table in tables:
            firsts = {found.get_pk_constraint(table)["constrained_columns"][0]}
            firsts |= {unique["column_names"][0] for unique in found.get_unique_constraints(table)}
            firsts |= {str(index["column_names"][0]) for index in found.get_indexes(table)}
            assert firsts == {"ledger_id"}, table


# ---- Many writers --------------------------------------------------------------------------------------

SHARED_EVERY = 7  # every so many events of a worker are those of the other too


def work(url: str, worker: int, count: int, ready: Any, results: Any) -> None:
    """Append, in a process of its own, and tell what became of each event."""
    told: list[tuple[str, int, bool, int]] = []
    try:
        ledgers = open_ledgers(url)
        ledger = ledgers.get("main")
        ready.wait(60)
        for n in range(count):
            shared = n % SHARED_EVERY == 0
            posted = claim(f"shared-{n}" if shared else f"{worker}-{n}", subject=f"e:{n % 5}")
            if n % 10 == 5 and not shared:  # so that what each keeps of the context grows behind the other's back
                rating = {"agent": f"a:{worker}", "reliability": "ABCDEF"[n // 10 % 6]}
                posted = {**posted, "type": "factledger.agent.v1", "data": rating}
            (result,) = ledger.append_one(request(posted)).results
            told.append((result.id, result.position, result.recorded, result.recorded_at))
        ledgers.close()
    except BaseException as problem:
        results.put(repr(problem))
        raise
    results.put(told)


class Watch(threading.Thread):
    """Reads on and on from where it got to: whoever reads by position must never meet a hole."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger, self.seen, self.polls = ledger, list[int](), 0
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.is_set():
            self.poll()
        self.poll()

    def poll(self) -> None:
        found, _, _ = self.ledger.events(Question(), from_position=len(self.seen), limit=1000, criteria={})
        self.seen += [event["position"] for event in found]
        self.ledger.entity("e:1", Question(valid_at=0, at_size=len(self.seen))) if len(self.seen) > 10 else None
        self.polls += 1


def test_two_processes_append_at_once(database_url: str) -> None:
    count = 200
    ledgers = open_ledgers(database_url)
    ledger = ledgers.get("main")
    watch = Watch(ledgers.get("main"))
    processes = multiprocessing.get_context("spawn")
    ready, results = processes.Barrier(2), processes.Queue()
    workers = [processes.Process(target=work, args=(database_url, n, count, ready, results)) for n in (1, 2)]
    watch.start()
    for worker in workers:
        worker.start()
    try:
        told = [results.get(timeout=120) for _ in workers]
    finally:
        watch.done.set()
        watch.join(60)
        for worker in workers:
            worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0], told

    recorded = {position: identity for tell in told for identity, position, new, _ in tell if new}
    expected = 2 * count - len(range(0, count, SHARED_EVERY))
    assert sorted(recorded) == list(range(expected)), "a position was skipped or given twice"
    assert sum(new for tell in told for _, _, new, _ in tell) == expected
    log = read_log(ledger)
    assert [event["id"] for event in log] == [recorded[position] for position in range(expected)]
    for tell in told:  # the receipt of a repeat is that of the first
        for identity, position, _, recorded_at in tell:
            assert log[position]["id"] == identity
            assert log[position]["recordedat"] == times.format_instant(recorded_at)
        assert [position for _, position, new, _ in tell if new] == sorted(p for _, p, new, _ in tell if new)
    assert watch.seen == list(range(expected)), f"missed something in {watch.polls} polls"
    fresh = open_ledgers(database_url)
    assert everything(ledger, AT_NOON) == everything(fresh.get("main"), AT_NOON)
    check_ledger(fresh, "main")
    fresh.close()
    ledgers.close()


def at_once(count: int, act: Callable[[int], Any]) -> list[Any]:
    """Do something in as many threads, all released together, and return what each came to."""
    barrier = threading.Barrier(count)

    def task(number: int) -> Any:
        barrier.wait(30)
        try:
            return act(number)
        except Exception as problem:  # noqa: BLE001 - told to the test
            return problem

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(task, range(count)))


def test_the_same_id_fifty_times_at_once_is_recorded_once(ledgers: Ledgers, database_url: str) -> None:
    second = open_ledgers(database_url)
    doors = [ledgers.get("main"), second.get("main")]
    outcomes = at_once(50, lambda n: doors[n % 2].append_one(request(claim(1))))
    assert all(isinstance(outcome, Receipt) for outcome in outcomes), outcomes
    results = [outcome.results[0] for outcome in outcomes]
    assert sorted(result.recorded for result in results) == [False] * 49 + [True]
    assert {(result.position, result.recorded_at) for result in results} == {(0, results[0].recorded_at)}
    second.close()
    check_ledger(ledgers, "main")
    assert doors[0].size() == 1


def test_of_different_contents_under_one_id_one_is_recorded(ledgers: Ledgers, ledger: Ledger) -> None:
    outcomes = at_once(20, lambda n: ledger.append_one(request(claim(1, valid_text=f"{n % 4}"))))
    recorded = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Receipt)]
    codes = {outcome.code for outcome in outcomes if isinstance(outcome, LedgerError)}
    assert len(recorded) == 5, outcomes
    assert len({n % 4 for n in recorded}) == 1
    assert codes == {"id-reused"}
    assert ledger.size() == 1
    check_ledger(ledgers, "main")


def test_batches_at_once_are_whole(ledgers: Ledgers, ledger: Ledger) -> None:
    outcomes = at_once(12, lambda n: ledger.append_one(request(*(claim(f"{n}-{m}") for m in range(5)))))
    positions = [[result.position for result in outcome.results] for outcome in outcomes]
    assert all(found == list(range(found[0], found[0] + 5)) for found in positions)
    assert sorted(itertools.chain(*positions)) == list(range(60))
    check_ledger(ledgers, "main")


def test_whoever_creates_a_ledger_at_once_is_told_whether_it_is_new(ledgers: Ledgers) -> None:
    outcomes = at_once(8, lambda _: ledgers.create("another"))
    assert sorted(map(repr, outcomes)) == ["False"] * 7 + ["True"]
    check_ledger(ledgers, "another")


def test_an_empty_database_may_be_opened_by_many_at_once(empty_database: str) -> None:
    outcomes = at_once(4, lambda _: open_ledgers(empty_database))
    opened = [outcome for outcome in outcomes if isinstance(outcome, Ledgers)]
    for n, ledgers in enumerate(opened):
        ledgers.get("main").append_one(request(claim(n)))
        ledgers.close()
    assert len(opened) == 4, outcomes


# ---- Rebuilding ----------------------------------------------------------------------------------------


def mixed(number: int) -> Event:
    """One of a run of events in which each kind of target occurs, and each of them is accepted."""
    match number % 7:
        case 2:
            return claim(number, f"e:{number % 3}", corrects=[number - 1])
        case 3:
            return retraction(number, targets=[number - 1])
        case 5:
            return retraction(number, where={"subject": f"e:{number % 3}", "from_position": number - 5})
    return claim(number, f"e:{number % 3}", f"a:{number % 4}", asserted_at="2021-09-01")


def test_a_rebuild_in_many_steps_goes_on_beside_appends_and_reads(
    ledgers: Ledgers, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("factledger.ledger._CHUNK", 20)
    assert len(record(ledger, map(mixed, range(70)))) == 70
    asked = Question(valid_at=AT_NOON.valid_at, at_size=70)
    before, digest = everything(ledger, asked, entities=["e:0", "e:1", "e:2"]), ledger.digest(70)
    done = threading.Event()

    def act(number: int) -> Any:
        if number == 0:
            rebuilt = [ledger.rebuild() for _ in range(4)]
            done.set()
            return [step["equal"] for step in rebuilt]
        if number == 1:
            return [ledger.append_one(request(mixed(n))).size for n in range(70, 120)]
        same: list[bool] = []
        while not done.is_set() or not same:
            same.append(everything(ledger, asked, entities=["e:0", "e:1", "e:2"]) == before)
        return same

    rebuilt, appended, *read = at_once(4, act)
    assert rebuilt == [True] * 4
    assert appended == list(range(71, 121))
    assert all(set(same) == {True} for same in read), read
    assert ledger.digest(70) == digest
    check_ledger(ledgers, "main")


def test_an_interrupted_rebuild_leaves_everything_as_it_was(
    ledgers: Ledgers, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("factledger.ledger._CHUNK", 20)
    record(ledger, map(mixed, range(70)))
    state = ledger.describe(), ledger.digest(), everything(ledger, AT_NOON, entities=["e:0", "e:1", "e:2"])

    def interrupt(done: int, _size: int) -> None:
        if done >= 40:
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            ledger.rebuild(interrupt)
        assert (
            ledger.describe(),
            ledger.digest(),
            everything(ledger, AT_NOON, entities=["e:0", "e:1", "e:2"]),
        ) == state
    record(ledger, map(mixed, range(70, 80)))
    told: list[tuple[int, int]] = []
    assert ledger.rebuild(lambda done, size: told.append((done, size)))["equal"]
    assert sorted(set(told)) == [(20, 80), (40, 80), (60, 80), (80, 80)]
    check_ledger(ledgers, "main")


# ---- Idempotency ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda e: {**e, "data": {**e["data"], "value": "other"}},
        lambda e: {**e, "data": {**e["data"], "polarity": "affirms"}},  # the same meaning, other content
        lambda e: {**e, "time": "2021-09-07T10:02:11Z"},
        lambda e: {**e, "traceparent": "x"},
        lambda e: {**e, "datacontenttype": "application/json"},
        lambda e: {**e, "type": "factledger.agent.v1", "data": {"agent": "a"}},
    ],
)
def test_other_content_under_an_id_is_refused(
    change: Callable[[Event], Event], ledgers: Ledgers, ledger: Ledger
) -> None:
    first = claim(1)
    ledger.append_one(request(first))
    state = ledger.describe()
    for other in (request(change(first)), request(claim(2), change(first), claim(3), pointers=True)):
        with pytest.raises(LedgerError) as refused:
            ledger.append_one(other)
        assert (refused.value.category, refused.value.code) == (Category.CONFLICT, "id-reused")
        assert refused.value.errors[0].pointer == ("/1/id" if other.pointers else "/id")
        assert "position 0" in refused.value.detail
    assert ledger.describe() == state
    assert ledger.append_one(request({**change(first), "source": "x:two@1"})).results[0].recorded
    check_ledger(ledgers, "main")


def test_a_repeat_is_told_by_content_not_by_layout(ledger: Ledger) -> None:
    first = claim(1, confidence=1, provenance={"document": {"uri": "u", "title": "é"}})
    ledger.append_one(request(first))
    as_decimal = {**first, "data": {**first["data"], "confidence": 1.0}}
    in_other_order = json.loads(json.dumps(dict(reversed(first.items()))))
    in_other_order["data"] = dict(reversed(first["data"].items()))
    for repeat in (first, as_decimal, in_other_order, {**first, "time": None}):
        (result,) = ledger.append_one(request(repeat)).results
        assert (result.recorded, result.position) == (False, 0)
    both = ledger.append_one(request(claim(2), claim(1) | first, claim(2)))
    assert [(result.recorded, result.position) for result in both.results] == [(True, 1), (False, 0), (False, 1)]
    assert both.size == 2


def test_a_bulk_retraction_is_repeated_as_it_was_posted(ledger: Ledger) -> None:
    """What the ledger adds to it does not make it another, also when it would match more by now."""
    bulk = retraction(1, where={"outlet": "a:1"})
    ledger.append_one(request(claim(1), bulk))
    ledger.append_one(request(claim(2)))
    (result,) = ledger.append_one(request(bulk)).results
    assert (result.recorded, result.position) == (False, 1)
    assert read_log(ledger)[1]["data"]["matched"]["count"] == 1


# ---- Bulk retractions ----------------------------------------------------------------------------------

SAID = [
    claim(0, "e:1", "a:1", "x:one@1", provenance={"document": {"uri": "doc:1"}, "method": {"run": "r1"}}),
    claim(1, "e:2", "a:2", "x:one@2", provenance={"document": {"uri": "doc:1"}, "method": {"run": "r2"}}),
    {**claim(2, "e:1", "a:1", "x:two@1"), "type": "factledger.agent.v1", "data": {"agent": "a:1"}},
    claim(3, "e:1", "a:2", "x:two@1", provenance={"speakers": ["a:1"], "document": {"uri": "doc:2"}}),
    claim(4, "e:3", "a:1", "x:%one", polarity="denies"),
    {**claim(5, "e:1", "a:1", "😀:é"), "data": {**claim(5)["data"], "predicate": "place"}},
    claim(6, "e:1", "a:3", "x_one@1"),
]


BULKS: list[tuple[dict[str, Any], list[int]]] = [
    ({"source": "x:one@1"}, [0]),
    ({"source": "x:one"}, []),
    ({"source_prefix": "x:one"}, [0, 1]),
    ({"source_prefix": "x"}, [0, 1, 3, 4, 6]),
    ({"source_prefix": "x:one@1"}, [0]),
    ({"source_prefix": "x:one@10"}, []),
    ({"source_prefix": "x:%"}, [4]),
    ({"source_prefix": "x_"}, [6]),
    ({"source_prefix": "😀"}, [5]),
    ({"source_prefix": "😀:é"}, [5]),
    ({"source_prefix": "😀:e"}, []),
    ({"source_prefix": "X"}, []),
    ({"source_prefix": "x", "outlet": "a:3"}, [6]),
    ({"outlet": "a:1"}, [0, 4, 5]),
    ({"document_uri": "doc:1"}, [0, 1]),
    ({"run": "r1"}, [0]),
    ({"run": "r"}, []),
    ({"subject": "e:1"}, [0, 3, 5, 6]),
    ({"predicate": "place"}, [5]),
    ({"subject": "e:1", "predicate": "alias"}, [0, 3, 6]),
    ({"subject": "e:1", "outlet": "a:2", "document_uri": "doc:2"}, [3]),
    ({"subject": "e:2", "outlet": "a:1"}, []),
    ({"source_prefix": "x", "from_position": 3}, [3, 4, 6]),
    ({"source_prefix": "x", "to_position": 3}, [0, 1, 3]),
    ({"source_prefix": "x", "from_position": 1, "to_position": 1}, [1]),
    ({"source_prefix": "x", "from_position": 2, "to_position": 2}, []),
    ({"source_prefix": "x", "from_position": 4, "to_position": 3}, []),
    ({"source_prefix": "x", "from_position": 7}, []),
    ({"source_prefix": "x", "to_position": 2**53 - 1}, [0, 1, 3, 4, 6]),
]


def test_a_bulk_retraction_matches_by_all_its_criteria(ledgers: Ledgers) -> None:
    """Assertions only, recorded before it or earlier in its batch; frozen: later arrivals are not swept in."""
    again = [{**said, "id": f"again-{said['id']}"} for said in SAID]
    for n, (where, matched) in enumerate(BULKS):
        ledgers.create(f"bulk{n}")
        ledger = ledgers.get(f"bulk{n}")
        bulk = retraction("bulk", where=where)
        if n % 2:
            ledger.append_one(request(*SAID, bulk))
        else:
            record(ledger, SAID)
            ledger.append_one(request(bulk))
        record(ledger, [*again, retraction("undo", targets=[7])])
        log, undone = read_log(ledger, size=15), read_log(ledger)
        digest = hashlib.sha256(b"".join(position.to_bytes(8, "big") for position in matched)).hexdigest()
        assert log[7]["data"]["matched"] == {"count": len(matched), "size": 7, "sha256": digest}, where
        assert [position for position, e in enumerate(log) if not e["inforce"]] == matched, where
        assert [position for position, e in enumerate(undone) if not e["inforce"]] == [7], where
    check_ledger(ledgers, "bulk0")
    check_ledger(ledgers, "bulk1")


def test_a_bulk_retraction_tallied_beforehand_matches_what_came_since(ledgers: Ledgers) -> None:
    """However much was recorded between the tally and the append, in other requests and in its own batch."""
    for n, (where, matched) in enumerate(BULKS):
        ledgers.create(f"tallied{n}")
        ledger = ledgers.get(f"tallied{n}")
        before, between = n % 8, min(7, n % 8 + n % 3)
        record(ledger, SAID[:before])
        bulk = ledger.tallied(request(*SAID[between:], retraction("bulk", where=where)))
        record(ledger, SAID[before:between])
        assert [tally.size for tally in bulk.tallies.values()] == [before]
        ledger.append_one(bulk)
        digest = hashlib.sha256(b"".join(position.to_bytes(8, "big") for position in matched)).hexdigest()
        found = read_log(ledger)[7]["data"]["matched"]
        assert found == {"count": len(matched), "size": 7, "sha256": digest}, (where, before, between)


def test_a_bulk_retraction_matches_nothing_of_a_refused_request(ledger: Ledger) -> None:
    """Though it stood at the same position, and another bulk retraction of that request had looked at it."""
    bulk = retraction("bulk", where={"source_prefix": "x"})
    refused = request(claim(0, "e:1", "a:2"), bulk, retraction("bad", targets=[99]))
    outcomes = ledger.append([refused, request(claim(1), retraction("own", where={"outlet": "a:2"}), bulk)])
    assert [isinstance(outcome, Receipt) for outcome in outcomes] == [False, True]
    assert [e["data"]["matched"]["count"] for e in read_log(ledger)[1:]] == [0, 1]


def test_a_bulk_retraction_goes_by_the_ids_that_were_posted(ledgers: Ledgers, ledger: Ledger) -> None:
    """A merge neither widens nor narrows it."""
    merge = {
        **retraction("m"),
        "type": "factledger.identity.v1",
        "data": {"entities": ["e:1", "e:2"], "judgement": "same"},
    }
    record(ledger, [claim(0, "e:1"), claim(1, "e:2"), merge, retraction(1, where={"subject": "e:2"})])
    assert [e["inforce"] for e in read_log(ledger)] == [True, False, True, True]
    answer = json.loads(ledger.entity("e:2", AT_NOON).body)
    assert (answer["canonical"], [v["value"] for v in answer["facts"]["alias"]["values"]]) == ("e:1", [])
    check_ledger(ledgers, "main")


def test_a_bulk_retraction_counts_what_is_out_of_force_too(ledgers: Ledgers, ledger: Ledger) -> None:
    record(
        ledger, [claim(0), claim(1, corrects=[0]), retraction(1, targets=[1]), retraction(2, where={"subject": "e:1"})]
    )
    assert read_log(ledger)[3]["data"]["matched"]["count"] == 2
    assert [e["inforce"] for e in read_log(ledger)] == [False, False, True, True]
    record(ledger, [retraction(3, targets=[2])])
    assert [e["inforce"] for e in read_log(ledger)][:2] == [False, False]
    check_ledger(ledgers, "main")


# Neither a memo nor a history may stop at the bulk retractions that could match something in the slot itself.
def test_a_bulk_retraction_of_a_correction_restores_what_it_corrected_in_another_slot(ledgers: Ledgers) -> None:
    ledger = ledgers.get("main")
    said = {"asserted_at": "2021-09-01"}
    record(ledger, [claim(0, "e:1", **said), claim(1, "e:2", **said, corrects=[0])])

    def believed() -> Any:
        return json.loads(ledger.entity("e:1", AT_NOON).body)["facts"]["alias"]["status"]

    assert believed() == "withdrawn"
    record(ledger, [retraction(1, where={"subject": "e:2"})])
    assert believed() == "reported"
    record(ledger, [retraction(2, targets=[2])])
    assert believed() == "withdrawn"
    ledger.drop_memo()
    assert believed() == "withdrawn"
    changes = json.loads(ledger.history("e:1", "alias", AT_NOON).body)["changes"]
    assert [(c["position"], c["before"]["status"], c["after"]["status"]) for c in changes] == [
        (0, "unknown", "reported"),
        (1, "reported", "withdrawn"),
        (2, "withdrawn", "reported"),
        (3, "reported", "withdrawn"),
    ]
    check_ledger(ledgers, "main")


# ---- All or nothing ------------------------------------------------------------------------------------

FIVE = [
    claim(0),
    strategies.DECLARE_PLACE,
    claim(1, corrects=[0]),
    retraction(1, where={"outlet": "a:1"}),
    claim(2, "e:2"),
]


def fail_in_projection(monkeypatch: pytest.MonkeyPatch, _ledgers: Ledgers) -> None:
    apply = Projection.apply

    def fail(self: Projection, *arguments: Any) -> None:
        apply(self, *arguments)
        raise RuntimeError("hit")

    monkeypatch.setattr(Projection, "apply", fail)


def fail_at_commit(monkeypatch: pytest.MonkeyPatch, ledgers: Ledgers) -> None:
    def fail(_connection: Connection) -> None:
        raise RuntimeError("hit")

    event.listen(ledgers.database.engine, "commit", fail)
    monkeypatch.setattr(ledgers, "undo", lambda: event.remove(ledgers.database.engine, "commit", fail), raising=False)


def fail_for_want_of_salt(monkeypatch: pytest.MonkeyPatch, ledgers: Ledgers) -> None:
    salts = iter([bytes(32)] * 3)

    def salt() -> bytes:
        try:
            return next(salts)
        except StopIteration:
            raise RuntimeError("hit") from None

    monkeypatch.setattr(ledgers._sources, "salt", salt)


@pytest.mark.parametrize("fault", [fail_in_projection, fail_at_commit, fail_for_want_of_salt])
def test_a_failed_transaction_leaves_nothing(
    fault: Callable[[pytest.MonkeyPatch, Ledgers], None],
    ledgers: Ledgers,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record(ledger, [claim("before")])
    everything(ledger, AT_NOON)
    before, state = rows(ledgers), (ledger.describe(), read_log(ledger), everything(ledger, AT_NOON))
    with monkeypatch.context() as patched:
        fault(patched, ledgers)
        try:
            for requests in ([request(*FIVE)], [request(posted) for posted in FIVE]):
                with pytest.raises(RuntimeError, match="hit"):
                    ledger.append(requests)
        finally:
            getattr(ledgers, "undo", lambda: None)()
    assert rows(ledgers) == before
    assert (ledger.describe(), read_log(ledger), everything(ledger, AT_NOON)) == state
    record(ledger, FIVE)
    assert ledger.size() == 6
    check_ledger(ledgers, "main")


def test_what_was_stored_but_not_acknowledged_is_found_by_its_ids(
    ledgers: Ledgers, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply to COMMIT is lost: the caller sends the same ids again, and nothing is doubled."""
    writing = ledgers.database.writing

    @contextmanager
    def unheard() -> Iterator[Connection]:
        with writing() as connection:
            yield connection
        raise LedgerError(Category.UNAVAILABLE, "database-unavailable", "lost")

    record(ledger, [claim("before")])
    monkeypatch.setattr(ledgers.database, "writing", unheard)
    with pytest.raises(LedgerError, match="lost"):
        ledger.append_one(request(*FIVE))
    monkeypatch.undo()
    receipt = ledger.append_one(request(*FIVE))
    assert [(result.recorded, result.position) for result in receipt.results] == [(False, n) for n in range(1, 6)]
    assert receipt.size == ledger.size() == 6
    check_ledger(ledgers, "main")


def test_a_position_that_is_taken_stops_the_whole_append(ledgers: Ledgers, ledger: Ledger) -> None:
    """Should the head ever be behind the log, nothing is overwritten and nothing is half recorded."""
    record(ledger, [claim("before")])
    with ledgers.database.writing() as connection:
        connection.execute(
            text(
                "INSERT INTO events (ledger_id, position, source, id, type, recorded_at_us, envelope)"
                " SELECT ledger_id, 3, source, 'stray', type, recorded_at_us, envelope FROM events"
            )
        )
    before = rows(ledgers)
    with pytest.raises(IntegrityError):
        ledger.append_one(request(*FIVE))
    assert rows(ledgers) == before
    assert ledger.size() == 1
    assert ledger.append_one(request(claim("next"))).results[0].position == 1


def test_a_refused_request_does_not_disturb_the_others(ledgers: Ledgers, ledger: Ledger) -> None:
    requests: Sequence[Request] = [
        request(claim(0), claim(1)),
        request(claim(2), retraction(1, targets=[99]), claim(3), pointers=True),
        request(claim(4, corrects=[1])),
        request(claim(0, valid_text="other")),
        request(claim(5), if_size=9),
        request(claim(6), if_size=3),
    ]
    outcomes = ledger.append(requests)
    told = [o.size if isinstance(o, Receipt) else (o.code, [f.pointer for f in o.errors]) for o in outcomes]
    assert told == [2, ("invalid-event", ["/1/data/targets/0"]), 3, ("id-reused", ["/id"]), ("size-changed", []), 4]
    assert [e["id"] for e in read_log(ledger)] == ["c0", "c1", "c4", "c6"]
    check_ledger(ledgers, "main")


def test_time_goes_on_when_the_clock_does_not(ledgers: Ledgers, ledger: Ledger, clock: Clock) -> None:
    """Set back or standing still, recorded_at rises by at least a microsecond, across restarts too."""
    recorded: list[int] = []
    for setting in ("2026-01-01T00:00:00Z", "2025-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "1999-01-01T00:00:00Z"):
        clock.set(setting)
        receipt = ledger.append_one(request(claim(f"{setting}-1"), claim(f"{setting}-2")))
        recorded += [result.recorded_at for result in receipt.results]
    assert all(a < b for a, b in itertools.pairwise(recorded))
    check_ledger(ledgers, "main")


# ---- The same on both ----------------------------------------------------------------------------------


class Twin:
    """Ledgers whose clock and salts are those of every other twin."""

    def __init__(self, url: str) -> None:
        self.clock, self.salts = Hours(), itertools.count()
        self.ledgers = open_ledgers(url, Sources(now=self.clock, salt=self.salt))

    def salt(self) -> bytes:
        """32 bytes that follow from how many were asked for before."""
        return hashlib.sha256(str(next(self.salts)).encode()).digest()

    def holding(self, name: str, log: Sequence[Event], *, together: bool) -> Ledger:
        self.clock.now = START - 1
        self.ledgers.create(name)
        self.clock.now, self.salts = START, itertools.count()
        ledger = self.ledgers.get(name)
        for posted in [log] if together else [[one] for one in log]:
            record(ledger, posted)
        return ledger


@pytest.fixture(scope="module")
def twins(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Twin]]:
    file = tmp_path_factory.mktemp("twins") / "ledger.db"
    opened = [Twin(f"sqlite:///{file}"), Twin(postgres.create_database(f"twins_{file.parent.name}".replace("-", "_")))]
    yield opened
    for twin in opened:
        check_ledger(twin.ledgers, "main")
        twin.ledgers.close()


@settings(deadline=None, max_examples=10, suppress_health_check=list(HealthCheck))
@given(log=strategies.logs(12, least=3))
def test_the_same_events_make_the_same_bytes_on_both_databases(log: list[Event], twins: list[Twin]) -> None:
    """Given the same clock and salts: head, root, digest, log and every answer."""
    name = next(names)
    given_to = [twin.holding(name, [strategies.DECLARE_PLACE, *log], together=n == 0) for n, twin in enumerate(twins)]
    size = given_to[0].size()
    described = [{**ledger.describe(), "created_at": None} for ledger in given_to]
    assert described[0] == described[1]
    for question in (AT_NOON, Question(valid_at=START, at_size=size // 2, method="latest", when="presumed")):
        asked = [everything(ledger, question, history=question is AT_NOON) for ledger in given_to]
        assert asked[0] == asked[1]
    listed = [read_log(ledger) for ledger in given_to]
    assert listed[0] == listed[1]
    assert listed[0][-1]["inforce"] == (size - 1 in oracle.in_force(listed[0], size))
    for at in (size // 2, size):
        assert given_to[0].digest(at) == given_to[1].digest(at)
    entities = [list(ledger.entities(Question())) for ledger in given_to]
    assert entities[0] == entities[1]
