"""Auditing: what a verification finds, and the checks that need no database: of hashes, signatures and erasures."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from factledger.core import merkle
from factledger.core.errors import LedgerError
from factledger.core.merkle import Edge, Frontier
from factledger.verifier import Checkpoint, VerifierKey

# What rows may lead to that are not as they were written.
TROUBLE = (LedgerError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
MOST = 100  # findings that are named; all are counted


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be: the event that it is about if one can be named, and where it was found."""

    position: int | None
    where: str  # a table, or `checkpoint`
    detail: str


@dataclass(slots=True)
class Report:
    """What a verification has found."""

    ledger: str
    size: int = 0
    root: bytes = merkle.EMPTY_ROOT
    checkpoints: list[tuple[str, int]] = field(default_factory=list)  # what the log was held against, and its size
    findings: list[Finding] = field(default_factory=list)
    count: int = 0
    _exact: int | None = None  # the first position that something is wrong about
    _about: int | None = None  # the first from which on something is

    def add(self, position: int | None, where: str, detail: str, *, exact: bool = True) -> None:
        """Take in a finding; unless it is `exact`, it is about that event or one that follows."""
        self.count += 1
        if len(self.findings) < MOST:
            self.findings.append(Finding(position, where, detail))
        if position is not None and exact:
            self._exact = position if self._exact is None else min(self._exact, position)
        elif position is not None:
            self._about = position if self._about is None else min(self._about, position)

    @property
    def first(self) -> int | None:
        """The first position that is known to be wrong, or else from which on something is."""
        return self._about if self._exact is None else self._exact

    def trouble(self, position: int | None, where: str, problem: Exception) -> None:
        """Take in that something could not be read, or nothing be derived from it."""
        detail = f"makes no sense ({type(problem).__name__})"
        self.add(position, where, problem.detail if isinstance(problem, LedgerError) else detail)

    @contextmanager
    def guard(self, where: str) -> Iterator[None]:
        """Make a finding of whatever goes wrong within."""
        try:
            yield
        except TROUBLE as problem:
            self.trouble(None, where, problem)

    def json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "ledger": self.ledger,
            "verified": self.count == 0,
            "size": self.size,
            "root": base64.b64encode(self.root).decode(),
            "checkpoints": [{"from": label, "size": size} for label, size in self.checkpoints],
            "first_bad_position": self.first,
            "finding_count": self.count,
            "findings": [{"position": f.position, "where": f.where, "detail": f.detail} for f in self.findings],
        }


@dataclass(frozen=True, slots=True)
class Claim:
    """A checkpoint that the log has to contain, and whose it is."""

    label: str
    checkpoint: Checkpoint


def claim(report: Report, label: str, note: bytes, keys: Iterable[VerifierKey]) -> Claim | None:
    """Return what a signed note claims of a ledger; that nobody known has signed it is a finding."""
    try:
        return Claim(label, Checkpoint.open(note, keys, report.ledger))
    except ValueError as problem:
        report.add(None, "checkpoint", f"{label}: {problem}")
        return None


class Leaves:
    """The tree over the leaves as they come, held against every claim on the way."""

    def __init__(self, report: Report, claims: Sequence[Claim]) -> None:
        """Take the claims in any order."""
        self._report, self._edge, self._proven = report, Edge(), 0
        self._claims = sorted(claims, key=lambda one: one.checkpoint.size)
        self._compare()

    def extend(self, leaves: Sequence[bytes]) -> list[tuple[int, int, bytes]]:
        """Take in the leaf hashes that follow, and return the roots of the full subtrees that they complete."""
        grown, begin = [], 0
        while begin < len(leaves):
            end = len(leaves)
            if self._claims:
                end = min(end, begin + self._claims[0].checkpoint.size - self._edge.size)
            grown += self._edge.extend(leaves[begin:end])
            begin = end
            self._compare()
        return grown

    def _compare(self) -> None:
        while self._claims and self._claims[0].checkpoint.size <= self._edge.size:
            one = self._claims.pop(0)
            size = one.checkpoint.size
            if one.checkpoint.root == self._edge.root():
                self._report.checkpoints.append((one.label, size))
                self._proven = size
            else:
                detail = f"{one.label}: the first {size} events are not those that were signed"
                self._report.add(self._proven, "checkpoint", detail, exact=False)

    def finish(self) -> Frontier:
        """Hold what was not reached against the log; return its frontier."""
        for one in self._claims:
            detail = f"{one.label}: it is of {one.checkpoint.size} events, and the log has {self._edge.size}"
            self._report.add(self._edge.size, "checkpoint", detail, exact=False)
        self._report.size, self._report.root = self._edge.size, self._edge.root()
        return self._edge.frontier()


class Erasures:
    """Which events may be without content: those that a later erasure names."""

    def __init__(self) -> None:
        """Start with none."""
        self._positions: dict[int, int] = {}  # to that of the erasure
        self._keys: dict[tuple[str, str], int] = {}
        self._subjects = -1  # the last erasure by subject: whose events these were cannot be seen any more

    def add(self, position: int, source: str, data: Mapping[str, Any]) -> None:
        """Take in an erasure."""
        if "subject" in data:
            self._subjects = position
        for ref in data.get("targets", ()):
            if isinstance(ref, int):
                self._positions[ref] = position
            else:
                self._keys[ref.get("source", source), ref["id"]] = position

    def cover(self, position: int, source: str, event_id: str) -> bool:
        """Tell whether an event may have been erased."""
        by = max(self._positions.get(position, -1), self._keys.get((source, event_id), -1), self._subjects)
        return by > position
