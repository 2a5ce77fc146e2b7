"""Settings: read once from the environment, frozen, each one documented in docs/reference/settings.md."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from factledger.core.errors import Category, Fault, LedgerError

PREFIX = "FACTLEDGER_"


def data_directory() -> Path:
    """Return where this user's databases are kept unless told otherwise (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "factledger"


def _default_database() -> str:
    return f"sqlite:///{data_directory() / 'ledger.db'}"


class Settings(BaseSettings):
    """Everything that the environment decides."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    database_url: str = Field(
        default_factory=_default_database,
        description="SQLAlchemy URL of the database: sqlite:///FILE or postgresql://USER@HOST/NAME.",
    )
    signing_key: Path | None = Field(
        default=None,
        description="The file of the key that signs checkpoints; beside the database file if not given.",
    )
    checkpoints: Path | None = Field(
        default=None,
        description="The directory that holds the last checkpoint of each ledger; beside the key if not given.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe log lines that are written."
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="How log lines are written: one JSON object each, or coloured text."
    )
    open_on_any_address: bool = Field(
        default=False,
        description="Let `serve` listen beyond the loopback address without API keys. Whoever reaches the "
        "address can then read and append everything.",
    )
    append_queue: int = Field(
        default=1024,
        ge=1,
        le=1_000_000,
        description="How many append requests may wait for the writer before further ones are answered 429.",
    )
    max_body_bytes: int = Field(
        default=16 * 1024 * 1024, ge=1024, description="The largest JSON body that is accepted."
    )


def read_settings() -> Settings:
    """Return the settings of this process.

    Raises:
        LedgerError: `settings-invalid`, naming every variable that is unknown or has an unfit value.
    """
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    faults = [
        Fault(name, f"is no setting; known: {', '.join(sorted(known))}")
        for name in sorted(os.environ)
        if name.upper().startswith(PREFIX) and name.upper() not in known
    ]
    try:
        settings = Settings()
    except ValidationError as problem:
        faults += [Fault(f"{PREFIX}{str(error['loc'][0]).upper()}", error["msg"]) for error in problem.errors()]
        settings = None
    if faults or settings is None:
        raise LedgerError(
            Category.INVALID,
            "settings-invalid",
            "The environment has settings that cannot be used: "
            + "; ".join(f"{fault.pointer} {fault.detail}" for fault in faults),
            errors=faults,
        )
    return settings
