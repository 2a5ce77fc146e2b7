"""A service on both stores, for real, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from factledger.client import Ledger
from factledger.http.app import create_app
from factledger.ledger import Ledgers
from factledger.settings import Settings
from tests.serving import serving


@pytest.fixture
def url(ledgers: Ledgers) -> Iterator[str]:
    """The URL of a service over `ledgers`."""
    with serving(create_app(ledgers, Settings(log_level="error"))) as there:
        yield there


@pytest.fixture
def remote(url: str) -> Iterator[Ledger]:
    """The ledger `main` behind the service."""
    with Ledger(url, source="extractor:test@1") as opened:
        yield opened
