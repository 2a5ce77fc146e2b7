"""The composition root: settings to an open, migrated database with clock, randomness and logging."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import queue
import re
import secrets
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

import orjson
import structlog

from factledger.ledger import Ledgers
from factledger.recording import Sources
from factledger.sealing import Sealer
from factledger.settings import Settings, data_directory
from factledger.signing import Keeper
from factledger.store.engines import Database
from factledger.store.migrating import demand_latest, migrate

DEFAULT_LEDGER = "main"


def clock() -> int:
    """Return the time in microseconds since 1970, UTC."""
    return time.time_ns() // 1000


class Randomness:
    """Fresh random bytes from the system, drawn many at a time; each is handed out once."""

    DRAWN = 8_192

    def __init__(self) -> None:
        """Draw nothing yet."""
        self._lock = threading.Lock()
        self._drawn, self._used = b"", 0

    def take(self, count: int) -> bytes:
        """Return so many bytes that nobody has seen."""
        with self._lock:
            if self._used + count > len(self._drawn):
                self._drawn, self._used = secrets.token_bytes(max(self.DRAWN, count)), 0
            self._used += count
            return self._drawn[self._used - count : self._used]


_randomness = Randomness()
os.register_at_fork(after_in_child=_randomness.__init__)  # type: ignore[misc]


def salt() -> bytes:
    """Return 32 fresh random bytes, which keep an event's content from being guessed from its digest."""
    return _randomness.take(32)


def keeper(database: Database, settings: Settings | None = None) -> Keeper:
    """Return who keeps a database's signing key and checkpoints: where the settings say, or else beside its file.

    Beside no file, for a database on a server, they are in the user's data directory, under the server's name.
    """
    url = database.url
    beside = Path(url.database or "")
    if database.dialect != "sqlite":
        place = re.sub(r"[^A-Za-z0-9._-]", "_", f"{url.host or 'local'}-{url.port or 5432}-{url.database}")
        beside = data_directory() / place
    key_file = (settings and settings.signing_key) or beside.with_name(beside.name + ".key")
    key_file = key_file.expanduser()
    checkpoints = (settings and settings.checkpoints) or key_file.with_name(key_file.stem + ".checkpoints")
    return Keeper(key_file, checkpoints.expanduser())


def open_for_audit(database_url: str, settings: Settings | None = None) -> tuple[Database, Keeper]:
    """Open a database without changing it, or relying on what is in it, and name its keeper.

    Raises:
        LedgerError: `database-unsupported`, `database-unavailable`, `database-corrupt`, `schema-older`, `schema-newer`.
    """
    database = Database(database_url)
    demand_latest(database)
    return database, keeper(database, settings)


def open_ledgers(database_url: str, sources: Sources | None = None, settings: Settings | None = None) -> Ledgers:
    """Open a database by URL, migrate it, and make sure that the ledger `main` is there.

    Nothing is signed until the sealer is started; what is held is heeded from the first append on.

    Raises:
        LedgerError: `database-unsupported`, `database-unavailable`, `schema-newer`.
    """
    database = Database(database_url)
    migrate(database)
    sealer = Sealer(database, keeper(database, settings))
    ledgers = Ledgers(database, sources or Sources(now=clock, salt=salt), sealer=sealer)
    if DEFAULT_LEDGER not in ledgers.names():
        ledgers.create(DEFAULT_LEDGER)
    return ledgers


def configure_logging(settings: Settings) -> None:
    """Write log lines to standard error: JSON for machines or coloured text; never any event's content."""
    as_json = settings.log_format == "json"
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(serializer=orjson.dumps) if as_json else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _tracebacks if as_json else _as_it_is,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level.upper()]),
        logger_factory=(_LineWriter(sys.stderr.buffer) if as_json else structlog.PrintLoggerFactory(sys.stderr)),
        cache_logger_on_first_use=True,
    )


class _LineWriter:
    """Lines of the log, written in order by a thread of their own: a request does not wait for who reads them."""

    WAITING = 20_000

    def __init__(self, stream: BinaryIO) -> None:
        """Start the thread; what is left when the process ends is written then."""
        self._stream = stream
        self._dropped = 0
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self._finish)

    def __call__(self, *_names: object) -> _LineWriter:
        """Return the one logger that there is, as structlog's factories do."""
        return self

    def msg(self, line: bytes) -> None:
        """Take a line to be written soon; beyond so many that nobody reads, lines are counted and dropped."""
        if self._lines.qsize() < self.WAITING:
            self._lines.put(line)
        else:
            self._dropped += 1

    debug = info = warning = error = critical = exception = msg

    def _run(self) -> None:
        line: bytes | None = b""
        while line is not None:
            line = self._lines.get()
            lines = []
            with contextlib.suppress(queue.Empty):
                while line is not None:
                    lines.append(line)
                    line = self._lines.get_nowait()
            dropped, self._dropped = self._dropped, 0
            if dropped:
                lines.append(b'{"event":"log lines dropped","level":"warning","count":%d}' % dropped)
            with contextlib.suppress(OSError, ValueError):  # nobody reads any more: that stops no service
                self._stream.write(b"\n".join([*lines, b""]))
                self._stream.flush()

    def _finish(self) -> None:
        self._lines.put(None)
        self._thread.join(5)


# Without the values of local variables: those are content.
_tracebacks = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))


def _as_it_is(_logger: object, _method: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return entry
