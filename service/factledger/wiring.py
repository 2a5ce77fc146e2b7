"""The composition root: settings to an open, migrated database with clock, randomness and logging."""

from __future__ import annotations

import logging
import secrets
import sys
import time

import structlog

from factledger.ledger import Ledgers
from factledger.recording import Sources
from factledger.settings import Settings
from factledger.store.engines import Database
from factledger.store.migrating import migrate

DEFAULT_LEDGER = "main"


def clock() -> int:
    """Return the time in microseconds since 1970, UTC."""
    return time.time_ns() // 1000


def salt() -> bytes:
    """Return 32 fresh random bytes, which keep an event's content from being guessed from its digest."""
    return secrets.token_bytes(32)


def open_ledgers(database_url: str, sources: Sources | None = None) -> Ledgers:
    """Open a database by URL, migrate it, and make sure that the ledger `main` is there.

    Raises:
        LedgerError: `database-unsupported`, `database-unavailable`, `schema-newer`.
    """
    database = Database(database_url)
    migrate(database)
    ledgers = Ledgers(database, sources or Sources(now=clock, salt=salt))
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
