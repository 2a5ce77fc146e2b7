"""What integrity costs: verifying a log beside reading it raw, one proof, and checkpoints on appends.

The same events are appended in turns with and without a sealer, each time to a ledger of its own, so that what
disturbs the machine disturbs both. What the sealer still has to do once the last event is appended is counted too.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import _databases, _events
from benchmarks._databases import Raw, Store
from benchmarks._measuring import Column, Report, Step, Taken, arguments, clocked, machine, rounds, timing
from factledger.ledger import Ledgers
from factledger.recording import Request
from factledger.sealing import Sealer
from factledger.signing import Keeper
from factledger.verifying import verify
from factledger.wiring import open_ledgers, salt

REQUEST = 1_000  # events


class Plan(NamedTuple):
    """How much is measured."""

    sizes: Sequence[int]
    appended: int  # events, each time
    turns: int
    seconds: float


FULL = Plan((100_000, 1_000_000), 20_000, 7, 4.0)
QUICK = Plan((5_000,), 3_000, 3, 0.7)


def keeper(directory: str) -> Keeper:
    """Return a keeper with a new key."""
    made = Keeper(Path(directory) / "key", Path(directory) / "checkpoints")
    made.make_key(salt)
    return made


def signed(url: str, kept: Keeper) -> Ledgers:
    """Open a database with a signer."""
    plain = open_ledgers(url)
    return Ledgers(plain.database, plain._sources, sealer=Sealer(plain.database, kept))  # noqa: SLF001 - the clock


def checkpointing(databases: Store, plan: Plan) -> tuple[list[Taken], list[Taken]]:
    """Return what appending takes without and with a sealer, in turns."""
    plain, sealed = list[Taken](), list[Taken]()
    drafts = [r.drafts for r in _events.requests(_events.newsroom(3, plan.appended), REQUEST)]
    for turn in range(2 * plan.turns):
        with tempfile.TemporaryDirectory() as directory:
            ledgers = signed(databases.fresh(), keeper(directory))
            ledger, sealer = ledgers.get("main"), ledgers.sealer
            assert sealer is not None

            def append() -> None:
                for some in drafts:
                    _events.append(ledger, Request(some))  # noqa: B023 - called at once

            def append_and_seal() -> None:
                sealer.start()  # noqa: B023
                append()
                sealer.close()  # noqa: B023

            if turn % 2:
                sealed.append(clocked(append_and_seal))
                checkpoint = sealer.seal("main")
                assert checkpoint is not None
                assert checkpoint.checkpoint.size == plan.appended
            else:
                plain.append(clocked(append))
            ledgers.database.close()
    return plain, sealed


def proofs(ledgers: Ledgers, size: int) -> dict[str, Step]:
    """Return what is asked of a log: proofs at random positions and sizes, each from a snapshot of its own."""
    random, found = Random(5), ledgers.get("main").proofs
    return {
        "inclusion": Step(lambda: found.inclusion(random.randrange(size), size)),
        "consistency": Step(lambda: found.consistency(random.randrange(1, size), size)),
    }


def main() -> None:
    """Measure, and print."""
    given = arguments(__doc__ or "")
    plan = QUICK if given.quick else FULL
    report = Report("proving", machine(), given.quick, quiet=given.json)
    costs: list[tuple[Any, ...]] = []
    appended: list[tuple[Any, ...]] = []
    verified: list[tuple[Any, ...]] = []
    absolute: list[tuple[Any, ...]] = []
    asked: list[tuple[Any, ...]] = []
    for kind in _databases.kinds(given.only):
        with _databases.store(kind) as databases, tempfile.TemporaryDirectory() as directory:
            if kind == "postgresql":
                report.machine.postgresql = databases.version
            report.say(f"{kind}: {plan.appended:,} events, with and without checkpoints")
            plain, sealed = (timing(taken) for taken in checkpointing(databases, plan))
            best, median = sealed.best / plain.best, sealed.median / plain.median
            costs.append((kind, plan.appended, best, median, sealed.busy / plain.busy))
            report.goal(f"{kind}: appends with checkpoints ÷ without, at their best", best, 1.05, "×")
            for who, t in (("without", plain), ("with", sealed)):
                appended.append((kind, who, t.best, t.median, t.busy, plan.appended / t.best))
            ledgers = signed(databases.fresh(), keeper(directory))
            sealer, ledger, filled, made = ledgers.sealer, ledgers.get("main"), 0, _events.newsroom(1, max(plan.sizes))
            assert sealer is not None
            for size in plan.sizes:
                report.say(f"{kind}: filling to {size:,} events")
                _events.fill(ledger, itertools.islice(made, size - filled))
                filled = size
                sealer.seal("main")
                url = ledgers.database.url.render_as_string(hide_password=False)
                if kind == "postgresql":
                    databases.settle(url)
                report.say(f"{kind}, {size:,} events: proofs")
                for what, t in rounds(proofs(ledgers, size), seconds=plan.seconds).items():
                    asked.append((kind, size, what, t.median, t.p99, t.worst, t.times))
                    if what == "inclusion":
                        report.goal(f"{kind}: one proof in a log of {size:,}, median", t.median, 5e-3, "ms")
                report.say(f"{kind}, {size:,} events: verifying")
                times = measure_verifying(ledgers, sealer, size)
                own, raw = timing([times[0]]), timing([times[1]])
                verified.append((kind, size, own.best / raw.best))
                absolute.append((kind, size, own.best, own.busy, size / own.busy))
                share = own.busy / size * 20_000
                report.goal(f"{kind}: seconds of a processor to verify 20,000 of {size:,} events", share, 1, "s")
            ledgers.database.close()
    where = (Column("database"), Column("events", "n"))
    report.ratios(
        "Appends with checkpoints, over the same without",
        (*where, Column("best", "×"), Column("median", "×"), Column("processor", "×")),
        costs,
        f"Requests of {REQUEST:,} events, one after the other: the most events that a sealer has to keep up with.",
    )
    report.ratios("Verifying, over reading the events raw", (*where, Column("best", "×")), verified)
    taken = (Column("checkpoints"), Column("best", "s"), Column("median", "s"), Column("processor", "s"))
    report.absolute("Appends", (Column("database"), *taken, Column("events", "/s")), appended)
    report.absolute(
        "Verifying", (*where, Column("clock", "s"), Column("processor", "s"), Column("a core", "/s")), absolute
    )
    proof = (Column("proof"), *(Column(n, "ms") for n in ("median", "p99", "worst")), Column("times", "n"))
    report.absolute("Proofs", (*where, *proof), asked)
    report.finish(as_json=given.json)


def measure_verifying(ledgers: Ledgers, sealer: Sealer, size: int) -> tuple[Taken, Taken]:
    """Return what verifying takes, and what reading the same events through the raw driver does."""
    raw = Raw(ledgers.database.url.render_as_string(hide_password=False))

    def check() -> None:
        found = verify(ledgers.database, "main", sealer.keeper)
        assert (found.count, found.size) == (0, size), found.findings

    def read() -> None:
        for begin in range(0, size, 5_000):
            raw.rows("SELECT * FROM events WHERE position >= ? AND position < ?", (begin, begin + 5_000))

    try:
        return clocked(check), clocked(read)
    finally:
        raw.close()


if __name__ == "__main__":
    main()
