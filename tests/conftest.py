"""What every test may ask for: both databases, a settable clock, a ledger, and a client of the service."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import structlog
from hypothesis import HealthCheck, settings
from psycopg import sql

from factledger.core import times
from factledger.ledger import Ledger, Ledgers
from factledger.recording import Sources
from factledger.sealing import Sealer
from factledger.settings import Settings
from factledger.signing import Keeper
from factledger.wiring import open_ledgers
from tests.postgres import PostgresServer, shared_server
from tests.running import Command
from tests.serving import serving

if TYPE_CHECKING:
    from starlette.testclient import TestClient

# Fixtures of a test stay for all of its examples, so an example must not rely on an empty ledger.
settings.register_profile(
    "ci", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("ci")

# A line for every request would bury what a failing test has to say.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))

CREATED = "2025-12-31T00:00:00Z"  # when `main` was made; nothing is recorded before

_numbers = count(1)


class Clock:
    """A clock that moves by a microsecond whenever it is read, by `sleep`, and by hand."""

    def __init__(self, text: str = "2026-01-01T00:00:00Z") -> None:
        self.set(text)

    def __call__(self) -> int:
        self.instant += 1
        return self.instant

    def set(self, text: str) -> None:
        """Move to an RFC 3339 date-time, forwards or back."""
        self.instant = times.parse_instant(text)

    def sleep(self, seconds: float) -> None:
        """Let time pass without waiting."""
        self.instant += round(seconds * 1_000_000)


def sources_of(clock: Clock) -> Sources:
    """What a test's ledgers take from outside."""
    return Sources(now=clock, salt=lambda: os.urandom(32))


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """The PostgreSQL server that all workers share."""
    base = tmp_path_factory.getbasetemp()
    with shared_server(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> str:
    """The name of a migrated database with the ledger `main` in it; nobody is connected to it."""
    name = f"template_{os.getpid()}"
    open_ledgers(postgres.create_database(name), sources_of(Clock(CREATED))).close()
    return name


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database file with the ledger `main` in it."""
    path = tmp_path_factory.mktemp("template") / "ledger.db"
    open_ledgers(
        f"sqlite:///{path}", sources_of(Clock(CREATED))
    ).close()  # the last connection to close empties the WAL
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a fresh SQLite database, migrated, with an empty ledger `main`."""
    path = tmp_path / "ledger.db"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgresql_url(postgres: PostgresServer, postgres_template: str) -> Iterator[str]:
    """The URL of a fresh PostgreSQL database, migrated, with an empty ledger `main`."""
    with copied_database(postgres, postgres_template) as url:
        yield url


@contextmanager
def copied_database(server: PostgresServer, template: str) -> Iterator[str]:
    """Yield the URL of a copy of a database that nobody is connected to, and drop the copy at the end."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        # Through the WAL: copying files would cost two checkpoints, which is more for a database this small.
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY WAL_LOG")
        connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
    try:
        yield server.url(name)
    finally:
        server.drop_database(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh database, migrated, with an empty ledger `main`: every test runs on both."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def clock() -> Clock:
    """The clock of this test's ledgers; reads that wait only move it."""
    return Clock()


@pytest.fixture
def ledgers(database_url: str, clock: Clock) -> Iterator[Ledgers]:
    """All ledgers of a fresh database."""
    opened = open_test_ledgers(database_url, clock)
    yield opened
    opened.close()


def open_test_ledgers(url: str, clock: Clock, keeper: Keeper | None = None) -> Ledgers:
    """Open a database by its URL with the test's clock, and with a signer if there is one."""
    sources = sources_of(clock)
    database = open_ledgers(url, sources).database
    return Ledgers(database, sources, clock.sleep, None if keeper is None else Sealer(database, keeper))


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    """The files of a signer who has a key."""
    made = Keeper(tmp_path / "kept" / "signing.key", tmp_path / "kept" / "checkpoints")
    assert made.make_key(lambda: os.urandom(32))
    return made


@pytest.fixture
def signed(database_url: str, clock: Clock, keeper: Keeper) -> Iterator[Ledgers]:
    """All ledgers of a fresh database that is signed, whenever a test says so or starts the sealer."""
    opened = open_test_ledgers(database_url, clock, keeper)
    assert opened.sealer is not None
    yield opened
    opened.sealer.close()
    opened.close()


@pytest.fixture
def ledger(ledgers: Ledgers) -> Ledger:
    """The ledger `main`, empty."""
    return ledgers.get("main")


@pytest.fixture
def client(ledgers: Ledgers) -> Iterator[TestClient]:
    """A client of the service over `ledgers`, in this process."""
    from starlette.testclient import TestClient

    from factledger.http.app import create_app

    with TestClient(create_app(ledgers, Settings(log_level="error"))) as served:
        yield served


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs commands in this process."""
    return Command(capsys, monkeypatch)


@pytest.fixture
def server(sqlite_url: str) -> Iterator[str]:
    """The URL of a service on the same database as `sqlite_url`."""
    from factledger.http.app import create_app

    with serving(create_app(open_ledgers(sqlite_url), Settings(log_level="error"))) as url:
        yield url


@pytest.fixture(params=["--database", "--server"])
def at(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The option that leads to the ledger: in its database, and through a server."""
    fixture = {"--database": "sqlite_url", "--server": "server"}[request.param]
    return request.param, request.getfixturevalue(fixture)
