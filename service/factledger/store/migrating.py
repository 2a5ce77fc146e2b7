"""Migrations: bring a database's tables to the version that this code reads, or say why not."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from factledger.core.errors import Category, LedgerError
from factledger.store.engines import Database


def _scripts() -> Path:
    """Return the folder of the migrations: beside service/ in a checkout, inside the package once installed."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parents[1] / "migrations"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_scripts()))
    config.set_main_option("path_separator", "os")
    return config


def current_and_latest(database: Database) -> tuple[str | None, str | None]:
    """Return the version of the database's tables (None: no tables yet) and the one that this code needs."""
    latest = ScriptDirectory.from_config(_config()).get_current_head()
    with database.reading() as connection:
        return MigrationContext.configure(connection).get_current_revision(), latest


def _demand_known(revision: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if revision is not None and revision not in known:
        raise LedgerError(
            Category.UNAVAILABLE,
            "schema-newer",
            "A newer version of the service has migrated this database; run that version.",
        )


def demand_latest(database: Database) -> None:
    """Demand that a database's tables are current, and change nothing.

    Raises:
        LedgerError: `schema-newer`; `schema-older` if there is something to migrate.
    """
    current, latest = current_and_latest(database)
    _demand_known(current)
    if current != latest:
        raise LedgerError(
            Category.UNAVAILABLE,
            "schema-older",
            "The tables of this database are of an older version, or are not there; `factledger init` brings them up "
            "to date.",
        )


def migrate(database: Database) -> None:
    """Create or upgrade the tables in one transaction; does nothing when they are current.

    Raises:
        LedgerError: `schema-newer` if a newer version of the service has migrated the database.
    """
    current, latest = current_and_latest(database)
    if current == latest:
        return
    _demand_known(current)
    config = _config()
    with database.writing() as connection:
        if database.dialect == "postgresql":
            # One migrates, the others wait; and nobody waits for ever behind a long transaction.
            connection.execute(text("SET LOCAL lock_timeout = '10s'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(7216411095)"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
