"""A way to a service on which connections break, at any byte and in either direction, and answers are refusals."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

REFUSALS = [
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\nConnection: close\r\n\r\nnginx",
]


class Flaky:
    """Passes bytes on, and breaks `breaks` connections: how and where the seed decides."""

    def __init__(self, url: str, seed: int, breaks: int, upto: int) -> None:
        """Take where the service is, and within how many bytes a connection breaks."""
        there = urlsplit(url)
        assert there.hostname is not None and there.port is not None
        self._there = (there.hostname, there.port)
        self._random = random.Random(seed)
        self.left, self._upto = breaks, upto
        self.kinds: list[str] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _fate(self) -> tuple[str, int]:
        with self._lock:
            if self.left == 0:
                return "pass", 0
            self.left -= 1
            kind = self._random.choice(["request", "answer", "answer", "refuse", "refuse", "close"])
            self.kinds.append(kind)
            return kind, self._random.randrange(self._upto)

    def _serve(self, client: socket.socket) -> None:
        kind, at = self._fate()
        with client, contextlib.suppress(OSError):
            if kind == "close":
                return
            if kind == "refuse":
                # Not before something was asked: that would answer nothing.
                client.recv(1)
                client.sendall(REFUSALS[at % len(REFUSALS)])
                return
            with socket.create_connection(self._there) as service:
                back = threading.Thread(
                    target=self._pass, args=(service, client, at if kind == "answer" else None), daemon=True
                )
                back.start()
                self._pass(client, service, at if kind == "request" else None)
                back.join()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        """Pass bytes on until the end, or break both ways after `limit` bytes."""
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(16_384):
                if limit is not None and passed + len(data) >= limit:
                    sink.sendall(data[: limit - passed])
                    break
                sink.sendall(data)
                passed += len(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def flaky(url: str, seed: int, *, breaks: int, upto: int) -> Iterator[Flaky]:
    """Yield a way to a service that breaks so many connections."""
    way = Flaky(url, seed, breaks, upto)
    try:
        yield way
    finally:
        way.close()
