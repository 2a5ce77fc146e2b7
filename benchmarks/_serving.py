"""The service as its users have it: a process of its own, and a client over HTTP that costs little itself."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson

ROOT = Path(__file__).resolve().parents[1]
EVENTS_PATH = "/v1/ledgers/main/events"


class Served(NamedTuple):
    """A process that serves HTTP on this machine."""

    port: int
    pid: int


@contextlib.contextmanager
def service(database_url: str) -> Iterator[Served]:
    """Serve a database by `factledger serve`, and stop it at the end."""
    command = [sys.executable, "-c", "from factledger.cli import main; main()", "serve", "--port", "0"]
    command += ["--database", database_url]
    with _process(command, "listens on http://127.0.0.1:") as served:
        yield served


@contextlib.contextmanager
def empty_service() -> Iterator[Served]:
    """Serve the least that FastAPI can: a POST that reads its body and answers with a constant."""
    with _process([sys.executable, str(ROOT / "benchmarks" / "_empty.py")], "listens on http://127.0.0.1:") as served:
        yield served


@contextlib.contextmanager
def _process(command: Sequence[str], announced: str) -> Iterator[Served]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "service")}
    with tempfile.NamedTemporaryFile("r") as said, Path(said.name).open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            while announced not in (text := Path(said.name).read_text()):
                if process.poll() is not None:
                    raise RuntimeError(f"it did not start: {text}")
                time.sleep(0.05)
            yield Served(int(text.partition(announced)[2].split()[0]), process.pid)
        finally:
            process.terminate()
            process.wait(60)


def stream(served: Served, body: bytes) -> float:
    """Post lines in one stream, and return the seconds until the last is known to be on disk."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=600)
    begun = time.perf_counter()
    connection.request("POST", EVENTS_PATH, body, {"Content-Type": "application/x-ndjson"})
    answer = connection.getresponse()
    lines = answer.read().splitlines()
    taken = time.perf_counter() - begun
    connection.close()
    summary = orjson.loads(lines[-1])["summary"]
    if answer.status != 200 or summary["recorded"] != body.count(b"\n"):
        raise RuntimeError(f"not everything was recorded: {summary}, {lines[0][:500]!r}")
    return taken


def memory(served: Served) -> int:
    """Return the bytes that a process holds in memory, without what it shares with files."""
    for line in Path(f"/proc/{served.pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the system does not say")


class _Connection(asyncio.Protocol):
    """One connection that posts one body after the other, and keeps how long each took."""

    def __init__(self, bodies: Iterator[bytes], taken: list[float], done: asyncio.Future[None]) -> None:
        self._bodies, self._taken, self._done = bodies, taken, done
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def _send(self) -> None:
        body = next(self._bodies, None)
        if body is None:
            self._transport.close()
            self._done.set_result(None)
            return
        head = (
            f"POST {EVENTS_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/cloudevents+json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._begun = time.perf_counter()
        self._transport.write(head.encode() + body)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, rest = self._received.partition(b"\r\n\r\n")
        if not blank:
            return
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
        if len(rest) < length:
            return
        if not head.startswith(b"HTTP/1.1 201"):
            self._done.set_exception(RuntimeError(f"not recorded: {self._received[:500]!r}"))
            self._transport.abort()
            return
        self._taken.append(time.perf_counter() - self._begun)
        self._received = b""
        self._send()

    def connection_lost(self, problem: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(problem or RuntimeError("the connection was closed"))


def singles(served: Served, bodies: Sequence[bytes], connections: int) -> tuple[float, list[float]]:
    """Post each body by itself over so many connections; return the seconds for all, and for each, sorted."""

    async def run() -> tuple[float, list[float]]:
        loop, left, taken = asyncio.get_running_loop(), iter(bodies), list[float]()
        begun = time.perf_counter()
        finished = []
        for _ in range(connections):
            done: asyncio.Future[None] = loop.create_future()
            await loop.create_connection(lambda done=done: _Connection(left, taken, done), "127.0.0.1", served.port)  # type: ignore[misc]
            finished.append(done)
        await asyncio.gather(*finished)
        return time.perf_counter() - begun, sorted(taken)

    return asyncio.run(run())
