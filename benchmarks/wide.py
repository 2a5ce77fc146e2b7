"""Events that touch much: acknowledged at once, read exactly at once, and in nobody's way.

A rating that touches every slot, a merge of two entities of many assertions, a bulk retraction of everything, and the
retraction that undoes it; over HTTP, while others append one event after the other.
"""

from __future__ import annotations

import http.client
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import orjson

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import _databases, _events, _serving
from benchmarks._measuring import Column, Report, arguments, machine
from benchmarks._serving import EVENTS_PATH, Served

ACKNOWLEDGED_SECONDS, OTHERS_P99_SECONDS = 5.0, 0.250


class Plan(NamedTuple):
    """How much there is."""

    stored: int
    merged: int  # assertions of each of the two entities


FULL = Plan(1_000_000, 10_000)
QUICK = Plan(10_000, 500)


class _Client:
    """One connection to the service."""

    def __init__(self, served: Served) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=600)

    def post(self, event: Any) -> Any:
        """Append one event and return the answer."""
        return self._ask("POST", EVENTS_PATH, orjson.dumps(event), {"Content-Type": "application/cloudevents+json"})

    def get(self, path: str) -> Any:
        """Read."""
        return self._ask("GET", f"/v1/ledgers/main{path}", b"", {})

    def _ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Any:
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        told = orjson.loads(answer.read())
        if answer.status not in (200, 201):
            raise RuntimeError(f"{method} {path}: {answer.status} {told}")
        return told


@contextmanager
def _others(served: Served, taken: list[float]) -> Iterator[None]:
    """Append one event after the other meanwhile, and keep how long each took."""
    done = threading.Event()
    made = _events.newsroom(77, 1_000_000, name=f"other{time.time_ns()}")

    def run() -> None:
        client = _Client(served)
        while not done.is_set():
            begun = time.perf_counter()
            client.post(next(made))
            taken.append(time.perf_counter() - begun)
            time.sleep(0.005)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.5)
    taken.clear()
    try:
        yield
    finally:
        time.sleep(0.2)
        done.set()
        thread.join()


def _p99(taken: Sequence[float]) -> float:
    ordered = sorted(taken)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


def _wide(plan: Plan) -> list[tuple[str, Any, str, Any]]:
    """Return what is posted: its name, the event, and a read with what it must find."""
    retraction = {"where": {"source": _events.SOURCE}, "reason": "extractor_error"}
    undone = {"targets": [{"source": "human:bench", "id": "bulk"}], "reason": "other"}
    merge = {"entities": ["merged/a", "merged/b"], "judgement": "same"}

    def event(kind: str, event_id: str, data: Any) -> Any:
        return _events.event(f"factledger.{kind}.v1", event_id, data, source="human:bench")

    def is_withdrawn(facts: Any) -> bool:
        return all(fact["status"] == "withdrawn" for fact in facts.values())

    rating = {"agent": _events.SOURCE, "fidelity": 0.5}
    of_all, of_another = "/entities/entity:0", "/entities/entity:9"
    return [
        ("a rating", event("agent", "rating", rating), of_all, bool),
        (f"a merge of twice {plan.merged:,}", event("identity", "merge", merge), "/entities/merged%2Fa", bool),
        (f"a bulk retraction of {plan.stored:,}", event("retraction", "bulk", retraction), of_another, is_withdrawn),
        ("its undoing", event("retraction", "undo", undone), of_another, lambda facts: not is_withdrawn(facts)),
    ]


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__ or "")
    plan = QUICK if given.quick else FULL
    report = Report("wide", machine(), given.quick, quiet=given.json)
    rows: list[tuple[Any, ...]] = []
    for kind in _databases.kinds(given.only):
        with _databases.store(kind) as databases:
            report.say(f"{kind}: storing {plan.stored:,}")
            url = databases.fresh()
            with _databases.service(url) as ledger:
                merged = (_events.shaped(_events.scattered, plan.merged, subject=f"merged/{name}") for name in "ab")
                made = chain(_events.declared(20), *merged, _events.newsroom(1, plan.stored))
                _events.fill(ledger, islice(made, plan.stored))
            databases.settle(url)
            with _serving.service(url) as served:
                client = _Client(served)
                alone: list[float] = []
                with _others(served, alone):
                    time.sleep(3)
                rows.append((kind, "nothing", None, None, median(alone), _p99(alone), max(alone), len(alone)))
                for name, event, path, holds in _wide(plan):
                    report.say(f"{kind}: {name}")
                    taken: list[float] = []
                    with _others(served, taken):
                        begun = time.perf_counter()
                        posted = client.post(event)
                        acknowledged = time.perf_counter() - begun
                        begun = time.perf_counter()
                        read = client.get(f"{path}?min_size={posted['size']}")
                        reading = time.perf_counter() - begun
                    if not holds(read["facts"]):
                        raise RuntimeError(f"{name} is not seen at once: {read}")
                    rows.append((kind, name, acknowledged, reading, median(taken), _p99(taken), max(taken), len(taken)))
                    report.goal(f"{kind}: {name}, acknowledged", acknowledged, ACKNOWLEDGED_SECONDS, "s")
                    report.goal(f"{kind}: {name}, p99 of others", _p99(taken), OTHERS_P99_SECONDS, "ms")
    columns = (
        Column("database"),
        Column("posted"),
        Column("acknowledged", "ms"),
        Column("then read", "ms"),
        Column("others: median", "ms"),
        Column("p99", "ms"),
        Column("worst", "ms"),
        Column("appends", "n"),
    )
    report.absolute(f"Wide events on {plan.stored:,} events", columns, rows)
    report.finish(as_json=given.json)


if __name__ == "__main__":
    main()
