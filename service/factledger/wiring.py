"""The composition root: settings to an open, migrated database with clock, randomness and logging."""

from __future__ import annotations

import logging
import re
import secrets
import sys
import time
from pathlib import Path

import structlog

from factledger.ledger import Ledgers
from factledger.recording import Sources
from factledger.sealing import Sealer
from factledger.settings import Settings, data_directory
from factledger.signing import Keeper
from factledger.store.engines import Database
from factledger.store.migrating import migrate

DEFAULT_LEDGER = "main"


def clock() -> int:
    """Return the time in microseconds since 1970, UTC."""
    return time.time_ns() // 1000


def salt() -> bytes:
    """Return 32 fresh random bytes, which keep an event's content from being guessed from its digest."""
    return secrets.token_bytes(32)


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
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if settings.log_format == "json" else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _tracebacks if settings.log_format == "json" else _as_it_is,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


# Without the values of local variables: those are content.
_tracebacks = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))


def _as_it_is(_logger: object, _method: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return entry
