"""What a posting leaves behind: a file of what was rejected, and a mark to go on from after an interruption.

The mark never runs ahead: it names only events that the ledger has answered for. It is bound to the ledger and to what
was read of each file, so that a mark that does not fit costs time and loses nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from factledger.cli import terminal
from factledger.cli.posting import Item, Reached, Summary
from factledger.core.errors import Category, LedgerError

SAVE_SECONDS = 1.0
_VERSION = 1


class Rejects:
    """Rejected lines in one file, exactly as they were read, and why in another, line for line."""

    def __init__(self, path: Path, lengths: Sequence[int] | None) -> None:
        """Open the files, cut to the lengths of a former run or, without, empty.

        Raises:
            LedgerError: `file-unwritable`.
        """
        self._count = 0
        self._files: list[BinaryIO] = []
        for name, length in zip((path, reasons_beside(path)), lengths or (0, 0), strict=True):
            try:
                file = name.open("r+b" if lengths else "wb")
                self._files.append(file)
                file.truncate(length)
                file.seek(length)
            except OSError as problem:
                self.close()
                raise _unwritable(name, problem) from problem
        if lengths:
            with path.open("rb") as lines:
                self._count = sum(1 for _ in lines)
        self.lengths = tuple(lengths or (0, 0))

    def add(self, item: Item, refusal: LedgerError) -> None:
        """Keep a line and why it was rejected; of a line that could not be held, the reason alone."""
        lines, reasons = self._files
        number = None
        if item.raw is not None:
            self._count += 1
            number = self._count
            lines.write(item.raw if item.raw.endswith(b"\n") else item.raw + b"\n")
        reason = terminal.problem(refusal, line=number, at=item.place)
        reasons.write(orjson.dumps(reason, option=orjson.OPT_APPEND_NEWLINE))
        self.lengths = lines.tell(), reasons.tell()

    def flush(self) -> None:
        """Hand everything to the system."""
        for file in self._files:
            file.flush()

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()


def reasons_beside(path: Path) -> Path:
    """Return where the reasons of a file of rejected lines stand."""
    return path.with_name(path.name + ".reasons.jsonl")


def _hold(path: Path, lengths: Sequence[int]) -> bool:
    """Tell whether the files still hold at least what a former run wrote."""
    try:
        return all(
            name.stat().st_size >= length for name, length in zip((path, reasons_beside(path)), lengths, strict=True)
        )
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a posting has come to: how far in each file, and the counts and the rejected lines up to there."""

    reached: Mapping[str, Callable[[], Reached]]
    summary: Summary
    lengths: tuple[int, ...] | None


class Job:
    """A posting, what became of it so far, and what it leaves behind for the next run."""

    def __init__(
        self, mark: Path | None, rejects: Path | None, ledger: Mapping[str, Any], say: Callable[[str], None]
    ) -> None:
        """Go on where the mark says, if it fits; `say` is told if it does not.

        A job that was interrupted goes on with its counts and its rejected lines. After one that was finished,
        another begins with what has been added to the files since.

        Raises:
            LedgerError: `file-unwritable`.
        """
        self._mark = mark
        self._ledger = {"ledger": ledger["ledger"], "created_at": ledger["created_at"]}
        self.summary = Summary()
        self.reached: dict[str, Reached] | None = None if mark is None else {}
        lengths = None
        if mark is not None and (former := _read(mark, say)) is not None:
            why = self._misfit(former, ledger["size"], rejects)
            if why is None:
                self.reached = {name: Reached(**reached) for name, reached in former["files"].items()}
                if not former["complete"]:
                    self.summary = Summary(**former["summary"])
                    lengths = former["rejects"]
            else:
                say(f"{mark} {why}. Everything is sent again; what is recorded is recognised.")
        self.before = self.summary.count
        if self.reached:
            lines = sum(reached.line for reached in self.reached.values())
            say(f"Going on after {lines:,} lines that were answered for, unless they are not what they were.")
        self._rejects = None if rejects is None else Rejects(rejects, lengths)
        self._place = _Place({}, copy(self.summary), self._written())
        self.save()  # before anything is recorded, so that a place that cannot be written to is refused

    def _misfit(self, former: Mapping[str, Any], size: int, rejects: Path | None) -> str | None:
        """Return why a mark cannot be gone on from."""
        if former["ledger"] != self._ledger or size < (former["summary"]["size"] or 0):
            return "is of another ledger"
        if former["complete"] or rejects is None:
            return None
        if former["rejects"] is None or not _hold(rejects, former["rejects"]):
            return f"does not fit {rejects}"
        return None

    def refused(self, item: Item, refusal: LedgerError) -> None:
        """Keep what was rejected."""
        if self._rejects is not None:
            self._rejects.add(item, refusal)

    def settled(self, item: Item) -> None:
        """Remember that the ledger has answered for an event; now and then on disk."""
        if self.reached is not None and item.reached is not None:
            # Together, since an interrupt may come at any moment: counts and lengths belong to this very place.
            reached = {**self._place.reached, item.name: item.reached}
            self._place = _Place(reached, copy(self.summary), self._written())
            if time.monotonic() - self._saved_at >= SAVE_SECONDS:
                self.save()

    def save(self, *, complete: bool = False) -> None:
        """Write the mark, whole or not at all.

        Raises:
            LedgerError: `file-unwritable`.
        """
        if self._rejects is not None:
            self._rejects.flush()
        if self._mark is None or self.reached is None:
            return
        place = replace(self._place, summary=copy(self.summary)) if complete else self._place
        self.reached |= {name: reached() for name, reached in place.reached.items()}
        state = {
            "version": _VERSION,
            "ledger": self._ledger,
            "complete": complete,
            "summary": asdict(place.summary),
            "files": {name: asdict(reached) for name, reached in self.reached.items()},
            "rejects": place.lengths,
        }
        part = self._mark.with_name(self._mark.name + ".part")
        try:
            part.write_bytes(orjson.dumps(state, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
            part.replace(self._mark)
        except OSError as problem:
            raise _unwritable(self._mark, problem) from problem
        self._saved_at = time.monotonic()

    def close(self) -> None:
        """Close the files."""
        if self._rejects is not None:
            self._rejects.close()

    def _written(self) -> tuple[int, ...] | None:
        return None if self._rejects is None else self._rejects.lengths


def _read(mark: Path, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Return what a mark says; None if there is none yet, or none that can be read."""
    try:
        state = orjson.loads(mark.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError):
        state = None
    if not isinstance(state, dict) or state.get("version") != _VERSION:
        say(f"{mark} is no mark that can be read. Everything is sent; what is recorded is recognised.")
        return None
    return state


def _unwritable(path: Path, problem: OSError) -> LedgerError:
    return LedgerError(Category.INVALID, "file-unwritable", f"{path} cannot be written: {problem.strerror}.")
