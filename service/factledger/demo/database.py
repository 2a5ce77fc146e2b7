"""The demonstration's own database: made anew each time, and never in place of anything else."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from factledger.core import times
from factledger.core.errors import Category, LedgerError
from factledger.core.events import read_event
from factledger.ledger import Ledger
from factledger.reading import Question
from factledger.recording import Request, Sources
from factledger.settings import data_directory
from factledger.wiring import DEFAULT_LEDGER, open_ledgers, salt

_MARK = "The database beside this file is a demonstration; `factledger demo` makes it anew each time.\n"
_MOST = 9  # demonstrations at the same time, on default files


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that the desk records at one moment."""

    recorded_at: int
    events: tuple[dict[str, Any], ...]


def batches() -> list[Batch]:
    """Return the data set, in order."""
    text = resources.files("factledger.demo").joinpath("panjshir.jsonl").read_text(encoding="utf-8")
    read = [json.loads(line) for line in text.splitlines()]
    return [Batch(times.parse_instant(batch["recorded_at"]), tuple(batch["events"])) for batch in read]


def default_file() -> Path:
    """Return where the demonstration keeps its ledger unless told otherwise: in the user's data directory."""
    return data_directory() / "demo.db"


@contextmanager
def fresh(chosen: Path | None = None) -> Iterator[Path]:
    """Yield the file of a database that holds the data set and nothing else; it is ours until the block ends.

    A default file that another demonstration is using is left to it, and `demo-2.db` is taken, and so on.

    Raises:
        LedgerError: `demo-not-empty` if the chosen file is there and is no demonstration; `demo-in-use`.
    """
    first = default_file()
    others = [first.with_stem(f"{first.stem}-{number}") for number in range(2, _MOST + 1)]
    for path in [chosen] if chosen is not None else [first, *others]:
        with _held(path) as ours:
            if ours:
                _remove(path)
                _record(path)
                yield path
                return
    raise LedgerError(Category.CONFLICT, "demo-in-use", "Another demonstration is using this database just now.")


@contextmanager
def _held(path: Path) -> Iterator[bool]:
    """Yield whether the file is ours alone; the system lets go of it when the process ends, however it ends."""
    mark = path.with_name(path.name + ".lock")
    if path.exists() and not mark.exists():
        raise _not_a_demonstration(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with mark.open("a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        handle.truncate(0)
        handle.write(_MARK)
        handle.flush()
        yield True


def _not_a_demonstration(path: Path) -> LedgerError:
    return LedgerError(
        Category.CONFLICT,
        "demo-not-empty",
        f"{path} is there and is not a demonstration, so it stays as it is; choose another with --database.",
    )


def _remove(path: Path) -> None:
    """Delete a former demonstration.

    Raises:
        LedgerError: `demo-not-empty` if the file has come to hold something else.
    """
    if path.exists():
        ledgers = open_ledgers(_url(path))
        try:
            theirs = [name for name in ledgers.names() if not _is_demonstration(ledgers.get(name))]
        finally:
            ledgers.database.close()
        if theirs:
            raise _not_a_demonstration(path)
    for suffix in ("", "-wal", "-shm", ".key"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    shutil.rmtree(path.with_name(path.name + ".checkpoints"), ignore_errors=True)


def _is_demonstration(ledger: Ledger) -> bool:
    """Tell whether a ledger is empty or began in days that only a demonstration's clock can show."""
    if ledger.size() == 0:
        return True
    first = json.loads(ledger.event(0, Question()).body)
    return times.parse_instant(first["recordedat"]) < batches()[-1].recorded_at


def _url(path: Path) -> str:
    return f"sqlite:///{path}"


def _record(path: Path) -> None:
    """Record the data set, each batch at its own moment."""
    moment = batches()[0].recorded_at
    ledgers = open_ledgers(_url(path), Sources(now=lambda: moment, salt=salt))
    try:
        ledger = ledgers.get(DEFAULT_LEDGER)
        for batch in batches():
            moment = batch.recorded_at
            ledger.append_one(Request([read_event(event) for event in batch.events]))
    finally:
        ledgers.close()
