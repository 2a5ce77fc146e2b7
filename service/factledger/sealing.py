"""Sealing: soon after every append, the tree over the log is signed, and what was signed is never contradicted.

Off the commit path, in a thread of its own. What is signed is worked out from committed rows, not from what the
append said, and compared with the frontier that the append left in the head row. The held checkpoint is written
before the published one. A log that contradicts what is held is neither signed nor appended to.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition, Lock, Thread

import structlog

from factledger.core import times
from factledger.core.errors import Category, LedgerError
from factledger.core.merkle import Edge
from factledger.signing import Held, Keeper
from factledger.store import log, tree
from factledger.store.engines import Connection, Database
from factledger.store.tree import Published, Tree
from factledger.verifier import Checkpoint

SECONDS = 0.8  # after an append at the latest; what remains of the promised second is for the work itself
EVENTS = 1_024  # or this many
AGAIN = 5.0  # after a failure
PAUSE = 0.5  # at least, between two checkpoints: a flood of events must not become a flood of signatures

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Due:
    since: float
    events: int


class Sealer:
    """Signs the ledgers of one database; safe to share between threads.

    Without a key file it signs nothing; appends are still refused if they would contradict what is held.
    """

    def __init__(self, database: Database, keeper: Keeper) -> None:
        """Take an open database and its keeper; the thread starts with `start`."""
        self._database, self.keeper = database, keeper
        self._edges: dict[str, tuple[Edge, Checkpoint | None]] = {}  # with the checkpoint that it has led to
        self._refusals: dict[str, LedgerError | None] = {}  # of the ledgers that have been looked at
        self._sealing = Lock()
        self._due: dict[str, _Due] = {}
        self._closed = False
        self._changed = Condition()  # guards the two above
        self._thread: Thread | None = None
        self._report: Callable[[str, Exception], None] = _logged

    def make_key(self, seed: Callable[[], bytes]) -> bool:
        """Make a key for a database that has none, from 32 random bytes; tell whether it is new.

        A database that some key has signed gets no other: whoever trusts that key would learn of none.
        """
        if self.keeper.has_key:
            return False
        with self._database.reading() as connection:
            if tree.is_signed(connection):
                return False
        return self.keeper.make_key(seed)

    # --- before and after an append

    def permit(self, name: str) -> None:
        """Return if a ledger may be appended to; only the first time, and after a refusal, is anything looked up.

        Raises:
            LedgerError: `checkpoint-contradicted`, `held-checkpoint-unusable`, `signing-key-unusable`.
        """
        if name in self._refusals and self._refusals[name] is None:
            return
        try:
            held = self.keeper.held(name)  # before the snapshot, which is then not older
            with self._database.reading() as connection:
                self._demand_agreement(connection, log.head(connection, name), held)
        except LedgerError as refusal:
            self._refusals[name] = refusal
            raise
        self._refusals[name] = None

    def appended(self, name: str, events: int = 1) -> None:
        """Take note that events were recorded, or a ledger made: it will be sealed."""
        if self._thread is None:
            return
        with self._changed:
            due = self._due.setdefault(name, _Due(time.monotonic(), 0))
            due.events += events
            self._changed.notify()

    # --- sealing

    def seal(self, name: str) -> Held | None:
        """Sign a ledger as it is now unless that is done, publish it, and return it; None if there is no key.

        Raises:
            LedgerError: `checkpoint-contradicted`, `log-corrupt`, `held-checkpoint-unusable`, `signing-key-unusable`;
                nothing is signed then.
        """
        if not self.keeper.has_key:
            return None
        with self._sealing, self.keeper.alone():
            held = self.keeper.held(name)
            try:
                sealed = self._seal(name, held)
            except LedgerError as refusal:
                if refusal.code == "checkpoint-contradicted":
                    self._refusals[name] = refusal
                raise
            self._refusals[name] = None
            return sealed

    def _seal(self, name: str, held: Held | None) -> Held:
        keys = tuple(map(str, self.keeper.verifier_keys(name)))
        with self._database.reading() as connection:
            head = log.head(connection, name)
            before = tree.published(connection, name)
            edge, led_to = self._edges.pop(name, (None, None))
            if edge is None or held is None or led_to != held.checkpoint or edge.size > head.size:
                edge = Tree(connection, name, head.size).edge()
                self._demand_agreement(connection, head, held)
            grown = edge.extend(Tree(connection, name, head.size).leaves(edge.size, head.size))
        checkpoint = Checkpoint(name, head.size, edge.root())
        if checkpoint.root != head.frontier.root():
            raise LedgerError(
                Category.CORRUPT,
                "log-corrupt",
                f"The events of {name} are not those that its head was made from; `factledger verify` says more.",
            )
        if held is None or held.checkpoint != checkpoint:
            held = self.keeper.sign(checkpoint)
        if self.keeper.settings(name) is None:
            self.keeper.hold_settings(name, settings_text(head))
        if grown or before != Published(held.note, keys):
            with self._database.writing() as connection:
                tree.keep(connection, name, grown)
                tree.publish(connection, name, Published(held.note, keys))
        self._edges[name] = edge, checkpoint
        return held

    def _demand_agreement(self, connection: Connection, head: log.Head, held: Held | None) -> None:
        """Demand that a log only adds to what is held of it."""
        name = head.ledger_id
        settings = self.keeper.settings(name)
        if settings is not None and settings != settings_text(head):
            raise _contradicted(name, "was made with other settings, or at another time, than is held of it")
        if held is None:
            return
        signed = held.checkpoint
        if signed.size > head.size:
            raise _contradicted(
                name, f"has {head.size} events, and a checkpoint over {signed.size} of them has been published"
            )
        if Tree(connection, name, signed.size).root(signed.size) != signed.root:
            raise _contradicted(name, f"has other events below {signed.size} than its published checkpoint says")

    # --- the thread

    def start(self, report: Callable[[str, Exception], None] | None = None) -> None:
        """Seal every ledger once, and from then on soon after each append, until `close`.

        What cannot be sealed goes to `report` by the ledger's name, by default into the log, and is tried again.
        """
        self._report = report or _logged
        self._thread = Thread(target=self._run, name="sealer", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Tell whether it signs in the background."""
        return self._thread is not None

    def close(self) -> None:
        """Seal what is waiting, and stop."""
        if self._thread is not None:
            with self._changed:
                self._closed = True
                self._changed.notify()
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        try:
            with self._database.reading() as connection:
                names = [head.ledger_id for head in log.heads(connection)]
        except LedgerError:
            names = []  # they are sealed with their next append
        for name in names:
            self._try(name)
        while (due := self._next()) is not None:
            self._try(due)

    def _next(self) -> str | None:
        """Wait until a ledger is due, and return its name; None once closed, with nothing left."""
        paused_until = time.monotonic() + PAUSE
        with self._changed:
            while True:
                now = time.monotonic()
                if self._closed:
                    return self._taken(next(iter(self._due))) if self._due else None
                at = {
                    name: max(paused_until, due.since + (SECONDS if due.events < EVENTS else 0))
                    for name, due in self._due.items()
                }
                first = min(at, key=at.__getitem__, default=None)
                if first is not None and at[first] <= now:
                    return self._taken(first)
                self._changed.wait(None if first is None else at[first] - now)

    def _taken(self, name: str) -> str:
        del self._due[name]
        return name

    def _try(self, name: str) -> None:
        try:
            self.seal(name)
            return
        except Exception as problem:  # noqa: BLE001 - a checkpoint may be late, the thread may not die
            self._report(name, problem)
        with self._changed:
            if not self._closed:
                self._due[name] = _Due(time.monotonic() + AGAIN, 0)


def _logged(name: str, problem: Exception) -> None:
    if isinstance(problem, LedgerError):
        _log.error("not sealed", ledger=name, code=problem.code, detail=problem.detail)
    else:
        _log.error("not sealed", ledger=name, error=type(problem).__name__)


def settings_text(head: log.Head) -> str:
    """Return what was decided when a ledger was made, one line each."""
    return f"strict {str(head.strict).lower()}\ncreated_at {times.format_instant(head.created_at)}\n"


def _contradicted(name: str, how: str) -> LedgerError:
    return LedgerError(
        Category.UNAVAILABLE,
        "checkpoint-contradicted",
        f"The ledger {name} {how}. To go on would fork the log, so nothing is appended or signed. Restore a backup "
        "that has these events; if they are lost for good, `factledger signing-key --rotate --abandon` begins anew.",
        retry_after=60,
    )
