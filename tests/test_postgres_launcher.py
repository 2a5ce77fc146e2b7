"""The launcher of the tests' PostgreSQL."""

import multiprocessing
from multiprocessing.queues import Queue
from pathlib import Path

import psycopg
import pytest

from tests.postgres import PostgresServer, postgres_server, shared_server


def value_of(server: PostgresServer, query: str, database: str = "postgres") -> object:
    with psycopg.connect(server.dsn(database), connect_timeout=10) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


def test_a_durable_server_starts_and_survives_a_crash() -> None:
    with postgres_server() as server:
        assert value_of(server, "SELECT 1") == 1
        assert value_of(server, "SHOW fsync") == "on"
        assert value_of(server, "SHOW synchronous_commit") == "on"
        assert server.url("x") == f"postgresql+psycopg://postgres@127.0.0.1:{server.port}/x"

        server.create_database("kept")
        with psycopg.connect(server.dsn("kept")) as connection:
            connection.execute("CREATE TABLE t AS SELECT 7 AS n")
        server.kill()
        assert server.pid is None
        with pytest.raises(psycopg.OperationalError):
            value_of(server, "SELECT 1")
        server.start()
        assert value_of(server, "SELECT n FROM t", "kept") == 7
        server.drop_database("kept")
    assert server.pid is None
    assert not server.directory.exists()


def use_shared(root: Path, answers: "Queue[int]") -> None:
    with shared_server(root) as server:
        answers.put(server.port)


def test_processes_share_one_server_and_the_last_one_out_stops_it(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    with shared_server(tmp_path) as server:
        child = spawn.Process(target=use_shared, args=(tmp_path, answers))
        child.start()
        assert answers.get(timeout=60) == server.port
        child.join(timeout=60)
        assert child.exitcode == 0
        assert value_of(server, "SELECT 1") == 1  # the child left; we are still here
    assert server.pid is None
    assert not server.directory.exists()
    answers.close()
