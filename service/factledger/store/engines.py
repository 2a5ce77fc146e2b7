"""Connections: how to open SQLite and PostgreSQL so that a commit is on disk before it is acknowledged.

The one place that knows which database it is. SQLite: one writer, WAL, synchronous=FULL, readers that cannot
write. PostgreSQL: READ COMMITTED appends under the head row's lock, REPEATABLE READ reads.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection as Connection
from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

from factledger.core.errors import Category, LedgerError

READERS = 8
BUSY_TIMEOUT_SECONDS = 10
CONNECT_TIMEOUT_SECONDS = 5
# SQLite: when the write-ahead log is merged into the database. A large one is merged far cheaper, as pages that many
# transactions changed are written once; so while busy we let it grow, and when idle merge what little there is.
MERGE_BUSY_PAGES, MERGE_IDLE_PAGES = 32_768, 1_000
_PAGES_A_TRANSACTION, _PAGES_A_ROW = 6, 0.5  # about as many as are written; measured, and only an estimate


class Database:
    """An open database: `writing()` for one transaction that appends, `reading()` for one consistent snapshot."""

    def __init__(self, url: str) -> None:
        """Open by SQLAlchemy URL; `sqlite:///file` and `postgresql+psycopg://…` are supported.

        Raises:
            LedgerError: `database-unsupported` for any other, and for an in-memory SQLite.
        """
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError):
            raise _unsupported() from None
        if parsed.get_backend_name() == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        elif parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
            raise _unsupported()
        self.dialect = parsed.get_backend_name()
        self.url = parsed
        self._one_writer = threading.Lock() if self.dialect == "sqlite" else None
        self._unmerged_pages = 0.0
        if self.dialect == "sqlite":
            assert parsed.database is not None
            file = Path(parsed.database).expanduser()
            file.parent.mkdir(parents=True, exist_ok=True)
            parsed = self.url = parsed.set(database=str(file))
            self._writer = _sqlite(parsed, size=1, query_only=False, begin="BEGIN IMMEDIATE")
            self._reader = _sqlite(parsed, size=READERS, query_only=True, begin="BEGIN")
        else:
            patience = {"connect_timeout": CONNECT_TIMEOUT_SECONDS}
            self._writer = create_engine(
                parsed,
                isolation_level="READ COMMITTED",
                pool_size=4,
                max_overflow=0,
                pool_pre_ping=True,
                connect_args=patience,
            )
            event.listen(self._writer, "connect", _demand_durability)
            self._reader = create_engine(
                parsed,
                isolation_level="REPEATABLE READ",
                pool_size=READERS,
                max_overflow=0,
                pool_pre_ping=True,
                connect_args=patience,
            )

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield a connection in one transaction: committed, and on disk, when the block ends; else rolled back."""
        with _reported():
            if self._one_writer is None:
                with self._writer.begin() as connection:
                    yield connection
            else:
                with self._one_writer:
                    self._merge(MERGE_BUSY_PAGES)
                    with self._writer.begin() as connection:
                        driver: Any = connection.connection.driver_connection
                        before = driver.total_changes
                        yield connection
                        self._unmerged_pages += _PAGES_A_TRANSACTION
                        self._unmerged_pages += (driver.total_changes - before) * _PAGES_A_ROW

    def rest(self) -> None:
        """Do what is better done while nobody waits for a commit."""
        if self._one_writer is not None:
            with _reported(), self._one_writer:
                self._merge(MERGE_IDLE_PAGES)

    def _merge(self, least: int) -> None:
        """Merge the write-ahead log into the database once about so many pages are in it; waits for no reader.

        The writer does it itself, for two connections that write and merge at once may damage the database
        (sqlite.org/wal.html, "The WAL-Reset Bug").
        """
        if self._unmerged_pages >= least:
            connection = self._writer.raw_connection()
            try:
                connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)").close()
            finally:
                connection.close()
            self._unmerged_pages = 0

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection that sees one snapshot of the database for the whole block and cannot write."""
        with _reported(), self._reader.connect() as connection:
            if self.dialect == "postgresql":
                connection = connection.execution_options(postgresql_readonly=True)
            with connection.begin():  # said aloud: what goes straight to the driver would not begin it
                yield connection

    @property
    def engine(self) -> Engine:
        """The engine that writes, for migrations."""
        return self._writer

    def close(self) -> None:
        """Close every connection."""
        self._reader.dispose()
        self._writer.dispose()


def _unsupported() -> LedgerError:
    return LedgerError(
        Category.INVALID,
        "database-unsupported",
        "The database URL must be sqlite:///FILE or postgresql://USER@HOST/NAME.",
    )


@contextmanager
def _reported() -> Iterator[None]:
    """Turn a database that is not there, or is busy, into an error that says so; others pass as they are."""
    try:
        yield
    except (OperationalError, PoolTimeoutError) as problem:
        raise LedgerError(
            Category.UNAVAILABLE,
            "database-unavailable",
            "The database cannot be reached or is busy. Retry; an append with the same ids.",
            retry_after=1,
        ) from problem
    except DBAPIError as problem:
        if getattr(problem.orig, "sqlite_errorname", None) in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
            raise LedgerError(
                Category.CORRUPT,
                "database-corrupt",
                "The file is no SQLite database, or a damaged one; restore it from a backup.",
            ) from problem
        if problem.connection_invalidated:
            raise LedgerError(
                Category.UNAVAILABLE,
                "database-unavailable",
                "The connection to the database broke; whether the append is stored is unknown. "
                "Retry with the same ids.",
                retry_after=1,
            ) from problem
        raise


def _sqlite(url: Any, *, size: int, query_only: bool, begin: str) -> Engine:
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False, "cached_statements": 512},
    )

    def connected(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say, not where the driver guesses
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",  # NORMAL loses acknowledged commits in a power cut
            "secure_delete=ON",
            "wal_autocheckpoint=0",  # would merge within a commit, while somebody waits for it
            "mmap_size=268435456",
            f"cache_size=-{16 if query_only else 32}000",  # KiB, each connection
            "temp_store=MEMORY",
            f"query_only={'ON' if query_only else 'OFF'}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    def began(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", began)
    return engine


def _demand_durability(connection: Any, _record: Any) -> None:
    """Refuse a session whose commits may be lost: `synchronous_commit` must wait for the disk."""
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = on")
    connection.commit()


def is_durable(connection: Connection, dialect: str) -> bool:
    """Tell whether a commit on this connection is flushed to disk before it returns."""
    if dialect == "sqlite":
        return int(connection.exec_driver_sql("PRAGMA synchronous").scalar_one()) >= 2
    settings = connection.execute(text("SELECT current_setting('fsync'), current_setting('synchronous_commit')")).one()
    return settings[0] == "on" and settings[1] not in ("off", "local")
