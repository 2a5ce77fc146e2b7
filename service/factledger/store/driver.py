"""Straight to the driver: the few statements that every append makes, and many rows in the way that is fastest.

What SQLAlchemy adds to a statement costs more than a small one does, and an append is a handful of small ones. They
still run on its connections, within its transactions, and fail as its own do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from itertools import chain
from typing import Any

import orjson
from sqlalchemy import BigInteger, Boolean, Connection, Integer, LargeBinary, Table
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

Row = tuple[Any, ...]

_RUNS = (128, 16, 1)  # rows in one statement; a statement must be known to both sides, so there are few
_COPIED = 32  # from so many rows on, PostgreSQL takes a stream of them faster than statements


def execute(connection: Connection, statement: str, values: Row) -> list[Row]:
    """Execute a statement, its parameters written as `?`, and return its rows, if it is one that has any."""
    with _as_sqlalchemy(connection, statement), closing(connection.connection.cursor()) as cursor:
        cursor.execute(_marked(statement, connection.dialect.name), values)
        has_rows: bool = cursor.description is not None
        return list(cursor.fetchall()) if has_rows else []


@cache
def _marked(statement: str, dialect: str) -> str:
    return statement.replace("?", "%s") if dialect == "postgresql" else statement


def insert_rows(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Insert rows with a value for every column, in the table's order; fails if the key of one is there already."""
    if connection.dialect.name == "postgresql" and len(rows) >= _COPIED:
        _copy(connection, table, rows)
    else:
        _insert(connection, table, rows, _VALUES)


def insert_new_rows(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Insert the rows whose key is not there yet, and leave what is there."""
    if connection.dialect.name == "postgresql" and len(rows) >= _COPIED and not _has_bytes(table):
        execute(connection, _from_document(table), (orjson.dumps(rows).decode(),))
    else:
        _insert(connection, table, rows, _NEW_VALUES)


_VALUES = "INSERT INTO {table} ({columns}) VALUES {rows}"
_NEW_VALUES = _VALUES + " ON CONFLICT DO NOTHING"


def _insert(connection: Connection, table: Table, rows: Sequence[Row], statement: str) -> None:
    done = 0
    for count in _RUNS:
        while len(rows) - done >= count:
            values = tuple(chain.from_iterable(rows[done : done + count]))
            execute(connection, _statement(statement, table, count), values)
            done += count


@cache
def _statement(statement: str, table: Table, count: int) -> str:
    row = f"({', '.join('?' * len(table.columns))})"
    return statement.format(table=table.name, columns=_columns(table), rows=", ".join([row] * count))


def _columns(table: Table) -> str:
    return ", ".join(column.name for column in table.columns)


@cache
def _has_bytes(table: Table) -> bool:
    return any(isinstance(column.type, LargeBinary) for column in table.columns)


@cache
def _from_document(table: Table) -> str:
    """Return the statement that inserts the rows of one JSON document, a list of lists."""
    values = ", ".join(f"(r ->> {n})::{_type(column.type)}" for n, column in enumerate(table.columns))
    return (
        f"INSERT INTO {table.name} ({_columns(table)}) SELECT {values} FROM jsonb_array_elements(?::jsonb) AS r "  # noqa: S608
        "ON CONFLICT DO NOTHING"
    )


def _copy(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    statement = f"COPY {table.name} ({_columns(table)}) FROM STDIN (FORMAT BINARY)"
    cursor: Any = connection.connection.cursor()
    with _as_sqlalchemy(connection, statement), cursor, cursor.copy(statement) as copy:
        copy.set_types([_type(column.type) for column in table.columns])
        for row in rows:
            copy.write_row(row)


def _type(kind: Any) -> str:
    """Return what PostgreSQL calls a column's type."""
    for ours, theirs in ((Boolean, "bool"), (BigInteger, "int8"), (Integer, "int4"), (LargeBinary, "bytea")):
        if isinstance(kind, ours):
            return theirs
    return "text"


@contextmanager
def _as_sqlalchemy(connection: Connection, statement: str) -> Iterator[None]:
    """Raise what the driver raises as SQLAlchemy would: this is the one place that goes around it."""
    driver: Any = connection.dialect.dbapi
    try:
        yield
    except driver.Error as problem:
        lost = connection.dialect.is_disconnect(problem, None, None)
        kind = next(k for k in (OperationalError, IntegrityError, DBAPIError) if _is_a(problem, driver, k))
        raise kind(statement, None, problem, connection_invalidated=lost) from problem


def _is_a(problem: BaseException, driver: Any, kind: type[DBAPIError]) -> bool:
    return kind is DBAPIError or isinstance(problem, getattr(driver, kind.__name__))
