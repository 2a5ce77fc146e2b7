"""Serving for real: a process, a port, signals, and streams that no test client could carry."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import orjson
import pytest

from factledger.core.errors import Category, LedgerError
from factledger.http.serving import serve
from factledger.settings import Settings
from tests.http.posting import EVENTS, assertion

SERVICE = Path(__file__).resolve().parents[2] / "service"
PROGRAM = """
import sys
from factledger.http.serving import serve
from factledger.settings import Settings
serve(sys.argv[1], Settings(), "127.0.0.1", 0, lambda line: print(line, flush=True))
print("stopped", flush=True)
"""


class Served:
    """A server in a process of its own."""

    def __init__(self, url: str, log: Path) -> None:
        self.log = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, url],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "PYTHONPATH": str(SERVICE)},
            )
        assert self.process.stdout is not None
        self.announced = [self.process.stdout.readline(), self.process.stdout.readline()]
        match = re.search(r"http://127\.0\.0\.1:(\d+)", self.announced[0])
        assert match is not None, log.read_text()
        self.port = int(match[1])
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)

    def peak_bytes(self) -> int:
        """The most memory that the process ever held."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        self.client.close()
        self.process.send_signal(how)
        rest, _ = self.process.communicate(timeout=60)
        return self.process.returncode, rest


@pytest.fixture
def served(sqlite_url: str, tmp_path: Path) -> Iterator[Served]:
    server = Served(sqlite_url, tmp_path / "stderr")
    yield server
    with contextlib.suppress(ProcessLookupError):
        server.process.kill()
    server.process.communicate()
    server.client.close()


def head(length: str) -> bytes:
    lines = (f"POST {EVENTS} HTTP/1.1", "Host: x", "Content-Type: application/x-ndjson", length, "Connection: close")
    return "\r\n".join((*lines, "", "")).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def test_it_says_where_it_listens_and_that_it_is_open(served: Served) -> None:
    assert "open" in served.announced[1]
    assert served.client.get("/readyz").json() == {"status": "ready"}
    answer = served.client.post(EVENTS, json=assertion("1"))
    assert answer.status_code == 201
    assert "server" not in answer.headers
    assert served.client.get(f"{EVENTS}/0").json()["id"] == "1"
    head = served.client.head(EVENTS)
    assert int(head.headers["content-length"]) > 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_good_order(served: Served, how: signal.Signals) -> None:
    served.client.post(EVENTS, json=assertion("1"))
    code, rest = served.stop(how)
    assert (code, rest) == (0, "stopped\n")
    lines = [json.loads(line) for line in served.log.read_text().splitlines()]
    assert [(line["event"], line["route"], line["status"]) for line in lines] == [
        ("request", "/v1/ledgers/{ledger}/events", 201)
    ]


def test_what_was_answered_is_there_after_a_kill(served: Served, sqlite_url: str, tmp_path: Path) -> None:
    served.client.post(EVENTS, json=[assertion(str(n)) for n in range(10)])
    served.process.kill()
    served.process.wait()
    again = Served(sqlite_url, tmp_path / "again")
    assert again.client.get("/v1/ledgers/main").json()["size"] == 10
    assert again.stop()[0] == 0


def all_then_read(served: Served, chunks: Iterator[bytes]) -> tuple[int, bytes]:
    """Send a whole stream before reading anything; return how long the answer was, and its last line."""
    with served.connect() as connection:
        connection.settimeout(300)
        connection.sendall(head("Transfer-Encoding: chunked"))
        for part in chunks:
            connection.sendall(chunk(part))
        connection.sendall(chunk(b""))
        answer = connection.makefile("rb")
        assert b"200" in answer.readline()
        length, last = 0, b""
        while part := answer.read(1024 * 1024):
            length += len(part)
            last = (last + part)[-1000:]
    found = re.search(rb'\{"summary":\{[^}]*\}\}', last)
    assert found is not None
    return length, found[0]


def test_a_client_may_send_everything_before_it_reads_anything(served: Served) -> None:
    """Neither side waits for the other, and memory stays within bounds: what is unread lies in a file."""
    served.client.post(EVENTS, json=assertion("0"))  # so that everything is loaded
    before = served.peak_bytes()
    line = orjson.dumps(assertion("1")) + b"\n"
    spam = (line + b"\n" * 100 + b"{]\n" * 400) * 40  # answers are many times as long as what they answer
    length, last = all_then_read(served, iter([spam] * 10))
    grown = served.peak_bytes() - before
    print(f"sent {10 * len(spam):,} bytes, got {length:,}; memory grew by {grown:,}")
    assert orjson.loads(last)["summary"] == {"recorded": 1, "duplicate": 399, "rejected": 160_000, "size": 2}
    assert length > 40 * 1024 * 1024  # more than any socket holds
    assert grown < 64 * 1024 * 1024


@pytest.mark.slow
def test_a_gibibyte_takes_little_memory(served: Served) -> None:
    served.client.post(EVENTS, json=assertion("0"))
    before = served.peak_bytes()

    def lines() -> Iterator[bytes]:
        for number in range(4096):
            yield orjson.dumps(assertion(f"e{number}", value="x" * 255 * 1024)) + b"\n"
        yield b"x" * 1024 * 1024 * 8

    length, last = all_then_read(served, lines())
    grown = served.peak_bytes() - before
    print(f"memory grew by {grown:,}; got {length:,} bytes")
    assert orjson.loads(last)["summary"] == {"recorded": 4096, "duplicate": 0, "rejected": 1, "size": 4097}
    assert grown < 64 * 1024 * 1024


def test_every_line_can_be_waited_for_before_the_next_is_sent(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(head("Transfer-Encoding: chunked"))
        answer = connection.makefile("rb")
        while answer.readline() != b"\r\n":
            pass
        for number in range(5):
            connection.sendall(chunk(orjson.dumps(assertion(str(number))) + b"\n"))
            length = int(answer.readline(), 16)
            assert orjson.loads(answer.read(length)) == {"line": number + 1, "result": "recorded", "position": number}
            answer.readline()
            assert served.client.get("/v1/ledgers/main").json()["size"] == number + 1
        connection.sendall(chunk(b""))
        assert b"summary" in answer.read()


def test_a_client_that_goes_away_leaves_what_was_recorded(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(head("Content-Length: 1000000"))
        connection.sendall(b"".join(orjson.dumps(assertion(str(n))) + b"\n" for n in range(10)) + b'{"id":')
        deadline = time.monotonic() + 30
        while served.client.get("/v1/ledgers/main").json()["size"] < 10:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    with served.connect() as connection:
        connection.sendall(head("Content-Length: 1000000").replace(b"x-ndjson", b"json") + b"[")
    assert served.client.post(EVENTS, json=assertion("11")).json()["size"] == 11
    code, _ = served.stop()
    assert code == 0
    assert "error" not in served.log.read_text()


ODD = [
    (b"GET /v1/ledgers/main/entities/\xff HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
    (b"GET /v1/ledgers/main/entities/%FF HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"422"),
    (b"GET /v1/ledgers/main/entities/a/../b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"404"),
    (b"GET /v1/ledgers/main/events?\xff=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"4"),
    (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
    (b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"4"),
    (b"GET http://x/livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"200"),
    (b"GET /livez HTTP/1.0\r\n\r\n", b"200"),
    (b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n" % EVENTS.encode(), b"400"),
]


def test_odd_requests_get_no_5xx(served: Served) -> None:
    for request, status in ODD:
        with served.connect() as connection:
            connection.sendall(request)
            assert connection.makefile("rb").readline().split()[1].startswith(status)
        assert served.client.get("/livez").status_code == 200


def test_many_at_once(served: Served) -> None:
    answers: list[int] = []

    def run(worker: int) -> None:
        with httpx2.Client(base_url=served.client.base_url, timeout=60) as client:
            for number in range(20):
                answers.append(client.post(EVENTS, json=assertion(f"{worker}-{number}")).status_code)
                answers.append(client.get("/v1/ledgers/main/entities/person:a?valid_at=2021").status_code)

    workers = [threading.Thread(target=run, args=(n,)) for n in range(16)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(answers) == [200] * 320 + [201] * 320
    assert served.client.get("/v1/ledgers/main").json()["size"] == 320


# --- where it may listen


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_beyond_loopback_it_refuses_to_be_open(host: str) -> None:
    with pytest.raises(LedgerError) as refused:
        serve("sqlite:///never-opened", Settings(), host, 0, print)
    assert refused.value.category is Category.FORBIDDEN
    assert refused.value.code == "open-address"


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(LedgerError) as refused:
        serve(f"sqlite:///{tmp_path}/x.db", Settings(), "127.0.0.1", taken.getsockname()[1], print)
    assert refused.value.category is Category.UNAVAILABLE
    assert refused.value.code == "address-unavailable"
    assert not (tmp_path / "x.db").exists()
