"""The databases that are measured: the service's own, and the same opened through the raw driver."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import Table

from factledger.ledger import Ledger
from factledger.reading import Caches
from factledger.store import schema
from factledger.store.engines import MERGE_BUSY_PAGES, Database
from factledger.wiring import DEFAULT_LEDGER, open_ledgers
from tests.postgres import PostgresServer, postgres_server

# The tests' server has little memory on purpose; this is what a small machine would give it.
POSTGRES = {"shared_buffers": "512MB", "max_wal_size": "4GB", "max_connections": "50"}

Row = tuple[Any, ...]


class Store:
    """A place for databases of one kind; each is known by its URL."""

    kind: str
    version: str

    def fresh(self) -> str:
        """Make a database without tables and return its URL."""
        raise NotImplementedError

    def copy(self, url: str) -> str:
        """Copy a database that nobody has open, page for page, and return the URL of the copy."""
        raise NotImplementedError

    def settle(self, url: str) -> None:
        """Bring a database that nobody has open into the state that it has after a quiet while."""
        raise NotImplementedError


class _Sqlite(Store):
    kind = "sqlite"
    version = sqlite3.sqlite_version

    def __init__(self, directory: Path) -> None:
        self._directory, self._numbers = directory, count(1)

    def fresh(self) -> str:
        return f"sqlite:///{self._directory / f'{next(self._numbers)}.db'}"

    def copy(self, url: str) -> str:
        self.settle(url)
        to = self.fresh()
        shutil.copyfile(url.removeprefix("sqlite:///"), to.removeprefix("sqlite:///"))
        return to

    def settle(self, url: str) -> None:
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


class _Postgresql(Store):
    kind = "postgresql"

    def __init__(self, server: PostgresServer) -> None:
        import psycopg

        self._server, self._numbers = server, count(1)
        with psycopg.connect(server.dsn()) as connection:
            row = connection.execute("SHOW server_version").fetchone()
        assert row is not None
        self.version = str(row[0]).split(" ", 1)[0]

    def fresh(self) -> str:
        return self._server.create_database(f"bench_{next(self._numbers)}")

    def copy(self, url: str) -> str:
        self.settle(url)
        name = f"bench_{next(self._numbers)}"
        self._run("postgres", f"CREATE DATABASE {name} TEMPLATE {url.rpartition('/')[2]}")
        return self._server.url(name)

    def settle(self, url: str) -> None:
        self._run(url.rpartition("/")[2], "VACUUM ANALYZE")
        self._run(url.rpartition("/")[2], "CHECKPOINT")

    def _run(self, database: str, statement: str) -> None:
        import psycopg

        with psycopg.connect(self._server.dsn(database), autocommit=True) as connection:
            connection.execute(statement)


@contextlib.contextmanager
def store(kind: str) -> Iterator[Store]:
    """Make a place for databases of one kind, and remove it with all of them at the end."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="factledger-bench-") as directory:
            yield _Sqlite(Path(directory))
    else:
        with postgres_server(settings=POSTGRES) as server:
            yield _Postgresql(server)


@contextlib.contextmanager
def service(url: str) -> Iterator[Ledger]:
    """Open the ledger `main` of a database as the service does; new tables if there are none."""
    ledgers = open_ledgers(url)
    try:
        yield ledgers.get(DEFAULT_LEDGER)
    finally:
        # Not Ledgers.close(), which would keep the memo: each benchmark says itself when it does.
        ledgers.database.close()


def reopened(ledger: Ledger) -> Callable[[], None]:
    """Return what puts a ledger into the state that a process finds it in: nothing decoded, nothing remembered.

    Memos on disk stay; whoever wants none has dropped them.
    """

    def reopen() -> None:
        ledger._caches = Caches()  # noqa: SLF001 - there is no door for forgetting; see also Ledger.drop_memo
        ledger._contexts.clear()  # noqa: SLF001

    return reopen


def without(ledger: Ledger, *caches: str) -> Callable[[], None]:
    """Return what empties some of a ledger's caches: rows, slots, memos, unsaved."""

    def empty() -> None:
        for name in caches:
            getattr(ledger._caches, name).clear()  # noqa: SLF001

    return empty


# --- the raw driver


class Raw:
    """A raw driver connection, opened by the service's own recipe: the same pragmas, the same durability."""

    def __init__(self, url: str) -> None:
        """Open a database that has tables."""
        self._database = Database(url)
        self.kind = self._database.dialect
        self._pooled = self._database.engine.raw_connection()
        connection = self._pooled.driver_connection
        assert connection is not None
        self.connection: Any = connection
        self._mark = "?" if self.kind == "sqlite" else "%s"
        if self.kind == "sqlite":  # which the service does by itself, as often
            connection.execute(f"PRAGMA wal_autocheckpoint={MERGE_BUSY_PAGES}")

    def close(self) -> None:
        """Close the connection."""
        self._pooled.close()
        self._database.close()

    def sql(self, text: str) -> str:
        """Return a statement written with `?` in the driver's own way."""
        return text.replace("?", self._mark)

    def rows(self, text: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Return all rows of a query; the transaction stays as it is."""
        found: list[Row] = self.connection.execute(self.sql(text), parameters).fetchall()
        return found

    def reading(self) -> None:
        """Take each query by itself from now on: no transaction around it, the least that a look-up can cost."""
        if self.kind == "postgresql":
            self.connection.rollback()
            self.connection.autocommit = True

    def begin(self) -> None:
        """Begin a transaction that writes."""
        if self.kind == "sqlite":
            self.connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Commit it, to disk."""
        if self.kind == "sqlite":
            self.connection.execute("COMMIT")
        else:
            self.connection.commit()

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Insert rows with executemany."""
        if rows:
            marks = ", ".join([self._mark] * len(columns))
            statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
            if self.kind == "sqlite":
                self.connection.executemany(statement, rows)
            else:
                with self.connection.cursor() as cursor:
                    cursor.executemany(statement, rows)

    def copy(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Insert rows with COPY, the fastest door of PostgreSQL."""
        if rows:
            with (
                self.connection.cursor() as cursor,
                cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copying,
            ):
                for row in rows:
                    copying.write_row(row)


# --- the rows that the service wrote

LOG_AND_PROJECTIONS: Sequence[Table] = (schema.events, *schema.PROJECTIONS)

Written = dict[str, list[Row]]


def columns(table: Table) -> list[str]:
    """Return the names of a table's columns."""
    return [column.name for column in table.c]


def position_column(table: Table) -> str:
    """Return the column that says which event a row comes from."""
    return "first_position" if table is schema.slots else "position"


def written(raw: Raw, from_position: int, to_position: int, tables: Sequence[Table] = LOG_AND_PROJECTIONS) -> Written:
    """Return the rows that the events at from_position .. to_position - 1 left, read back from the service's tables.

    They come in the order in which the service inserts them.
    """
    found: Written = {}
    for table in tables:
        position = position_column(table)
        by_position = table in (schema.events, schema.assertions, schema.context)
        keys = [c.name for c in table.primary_key.columns if c.name not in ("ledger_id", "generation")]
        found[table.name] = raw.rows(
            f"SELECT {', '.join(columns(table))} FROM {table.name} WHERE {position} >= ? AND {position} < ? "
            f"ORDER BY {position if by_position else ', '.join(keys)}",
            (from_position, to_position),
        )
    if raw.kind == "postgresql":
        raw.connection.rollback()
    return found


def head(raw: Raw) -> Row:
    """Return what an append moves in the head row."""
    (row,) = raw.rows("SELECT size, recorded_at_us, frontier, projected_size, ledger_id FROM ledgers")
    if raw.kind == "postgresql":
        raw.connection.rollback()
    return row


def write(raw: Raw, rows: Written, moved: Row, *, copying: bool = False) -> None:
    """Write the rows of one transaction of the service, and its head row, in one transaction."""
    raw.begin()
    for table in LOG_AND_PROJECTIONS:
        (raw.copy if copying else raw.insert)(table.name, columns(table), rows[table.name])
    raw.connection.execute(
        raw.sql(
            "UPDATE ledgers SET size = ?, recorded_at_us = ?, frontier = ?, projected_size = ? WHERE ledger_id = ?"
        ),
        moved,
    )
    raw.commit()


def keep_only_events(raw: Raw) -> None:
    """Add a table `bare` that holds the events with their two keys and nothing else."""
    binary, integer, key = (
        ("BLOB", "BIGINT", "TEXT") if raw.kind == "sqlite" else ("BYTEA", "BIGINT", 'TEXT COLLATE "C"')
    )
    types = {"position": integer, "recorded_at_us": integer, "envelope": binary, "data": binary, "salt": binary}
    listed = ", ".join(f"{name} {types.get(name, key)}" for name in columns(schema.events))
    raw.begin()
    raw.connection.execute(
        f"CREATE TABLE bare ({listed}, PRIMARY KEY (ledger_id, position), UNIQUE (ledger_id, source, id))"
    )
    raw.connection.execute("INSERT INTO bare SELECT * FROM events ORDER BY position")
    raw.commit()


def write_bare(raw: Raw, rows: Written) -> None:
    """Write the event rows of one transaction and nothing else, in one transaction."""
    raw.begin()
    raw.insert("bare", columns(schema.events), rows["events"])
    raw.commit()


def kinds(only: str | None) -> list[str]:
    """Return the kinds of database to measure."""
    return [only] if only else ["sqlite", "postgresql"]
