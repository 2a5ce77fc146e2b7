"""What every route works with: the ledgers, the writer, and the settings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from starlette.requests import Request

from factledger.appender import Appender
from factledger.core import facts
from factledger.core.errors import Category, LedgerError
from factledger.http.awaiting import Writer
from factledger.ledger import Ledger, Ledgers
from factledger.settings import Settings


@dataclass(frozen=True)
class Service:
    """The running service, as `app.state.service` holds it between startup and shutdown."""

    ledgers: Ledgers
    appender: Appender
    settings: Settings

    @cached_property
    def writer(self) -> Writer:
        """The appender, for those who wait for it on the event loop."""
        return Writer(self.appender)

    def is_open(self, name: str) -> bool:
        """Tell whether `open` has no need of the database."""
        return self.ledgers.is_open(name)

    def open(self, name: str) -> Ledger:
        """Return the door to a ledger; the first time, this asks the database.

        Raises:
            LedgerError: `ledger-not-found`.
        """
        if not facts.is_id(name):  # a database may refuse to even look for some characters
            raise LedgerError(
                Category.NOT_FOUND, "ledger-not-found", "There is no ledger of this name; create it with PUT."
            )
        return self.ledgers.get(name)


def serving(request: Request) -> Service:
    """Return the service that a request is to."""
    service: Service = request.app.state.service
    return service
