"""Posting: nothing lost and nothing doubled, whatever the connection does; bounded memory; every refusal named."""

from __future__ import annotations

import json
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from factledger.client import (
    ConflictError,
    InvalidError,
    Ledger,
    NotFoundError,
    RejectedError,
    UnavailableError,
    assertion,
    posting,
    retraction,
    service,
)
from factledger.core.errors import Category
from tests.client.flaky import flaky
from tests.serving import serving

Event = dict[str, Any]


def claims(count: int, **more: Any) -> Iterator[Event]:
    for n in range(count):
        yield assertion(f"e:{n % 7}", "seen", n, outlet="o:1", id=f"c{n}", **more)


def recorded_ids(ledger: Ledger) -> list[str]:
    return [event["id"] for event in ledger.events()]


# --- what becomes of events


def test_results_come_in_order_with_the_positions(remote: Ledger) -> None:
    results = list(remote.post(claims(3)))
    assert [(r.index, r.result, r.position) for r in results] == [(n, "recorded", n) for n in range(3)]
    again = remote.post(claims(4))
    assert [r.result for r in again] == ["duplicate"] * 3 + ["recorded"]
    assert again.summary == posting.Summary(recorded=1, duplicate=3, rejected=0, size=4)
    assert again.summary.count == 4


def test_an_event_is_completed_once(remote: Ledger) -> None:
    given = {"type": "factledger.predicate.v1", "data": {"predicate": "seen", "cardinality": "many"}}
    (result,) = remote.post([given])
    completed: Any = result.event
    assert given.keys() == {"type", "data"}
    assert (completed["specversion"], completed["source"]) == ("1.0", "extractor:test@1")
    assert remote.event(0)["id"] == completed["id"]


def test_what_an_event_says_of_itself_is_kept(remote: Ledger) -> None:
    remote.post([assertion("e:1", "seen", 1, outlet="o:1", source="s:2", id="x")]).finish()
    assert (remote.event(0)["source"], remote.event(0)["id"]) == ("s:2", "x")


def test_lines_of_a_file_are_events(remote: Ledger, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    source = {"source": "s:1"}
    body = b"\n".join(orjson.dumps(event) for event in claims(3, **source))
    file.write_bytes(b"\n" + body.replace(b"\n", b"\r\n  \n"))
    with file.open("rb") as read:
        assert [(r.index, r.result) for r in remote.post(read)] == [(1, "recorded"), (3, "recorded"), (5, "recorded")]
    with file.open(encoding="utf-8") as text:
        assert remote.post(text).finish().duplicate == 3


def test_good_events_are_kept_and_bad_ones_named(remote: Ledger) -> None:
    bad: list[Any] = [
        assertion("e:1", "Seen", 1, outlet="o:1", id="bad"),
        {"data": object()},
        b"{",
        b'{"a":\n1}',
        assertion("e:1", "seen", float("nan"), outlet="o:1"),
        assertion("e:1", "seen", "\ud800", outlet="o:1"),
        None,
        assertion("e:1", "seen", "other", outlet="o:1", id="c0"),
    ]
    mixed = [event for pair in zip(bad, claims(len(bad)), strict=True) for event in reversed(pair)]
    found: list[posting.Result] = []
    with pytest.raises(RejectedError) as caught:
        found.extend(remote.post(mixed))
    assert [r.result for r in found] == ["recorded", "rejected"] * 8
    refusal = caught.value
    assert refusal.summary == posting.Summary(recorded=8, duplicate=0, rejected=8, size=8)
    assert [(r.index, r.code) for r in refusal.rejections] == [
        (1, "invalid-event"),
        (3, "malformed-json"),
        (5, "malformed-json"),
        (7, "malformed-json"),
        (9, "malformed-json"),
        (11, "malformed-json"),
        (13, "invalid-event"),
        (15, "id-reused"),
    ]
    assert [fault.pointer for fault in refusal.rejections[0].errors] == ["/data/predicate"]
    assert (refusal.code, refusal.category) == ("events-rejected", Category.INVALID)
    assert recorded_ids(remote) == [f"c{n}" for n in range(8)]


def test_a_rejection_says_why_and_shows_no_content(remote: Ledger) -> None:
    posted = remote.post([assertion("e:secret", "Seen", "secret", outlet="o:1", id="secret")])
    result = next(posted)
    assert isinstance(result.refusal, InvalidError)
    assert result.refusal.code == "invalid-event"
    with pytest.raises(RejectedError) as caught:
        next(posted)
    assert "secret" not in f"{result!r} {caught.value!r} {caught.value.rejections!r}"


def test_conflicts_alone_are_a_conflict(remote: Ledger) -> None:
    with pytest.raises(RejectedError) as caught:
        remote.post([*claims(1), assertion("e:1", "seen", 8, outlet="o:2", id="c0")]).finish()
    assert caught.value.category is Category.CONFLICT


def test_nothing_is_nothing(remote: Ledger) -> None:
    assert remote.post([]).finish() == posting.Summary(0, 0, 0, None)
    assert remote.post([b"\n", ""]).finish().count == 0


def test_a_posting_that_nobody_iterates_warns(remote: Ledger) -> None:
    with pytest.warns(ResourceWarning, match="never iterated"):
        remote.post(claims(1))
    assert remote.size() == 0


@pytest.mark.parametrize("one", [{"type": "x"}, b"{}", "{}"])
def test_one_event_is_not_many(remote: Ledger, one: Any) -> None:
    with pytest.raises(TypeError, match="list of one"):
        remote.post(one)


def test_what_concerns_all_of_them_is_raised_at_once(url: str) -> None:
    with Ledger(url, "nope", source="s:1") as ledger, pytest.raises(NotFoundError) as caught:
        # More than the system holds between two sockets: the answer comes before all is sent.
        ledger.post(claims(50_000)).finish()
    assert caught.value.code == "ledger-not-found"


def test_a_source_that_fails_loses_nothing_before_it(remote: Ledger) -> None:
    def failing() -> Iterator[Event]:
        yield from claims(5)
        raise UnavailableError(Category.UNAVAILABLE, "elsewhere", "The source's own trouble.")

    seen: list[str] = []
    with pytest.raises(UnavailableError) as caught:
        seen.extend(result.result for result in remote.post(failing()))
    assert caught.value.code == "elsewhere"
    assert seen == ["recorded"] * 5


def test_a_source_may_ask_the_ledger(remote: Ledger) -> None:
    def asking() -> Iterator[Event]:
        for n in range(3):
            yield assertion("e:1", "seen", n + remote.size() * 0, outlet="o:1", id=f"c{n}")

    assert remote.post(asking()).finish().recorded == 3


def test_a_slow_source_has_its_results_meanwhile(remote: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "BATCH_SECONDS", 0.0)
    made: list[int] = []

    def slow() -> Iterator[Event]:
        for n, event in enumerate(claims(5)):
            made.append(n)
            yield event

    ahead = [len(made) - result.index for result in remote.post(slow())]
    assert ahead == [1] * 5


def test_memory_is_bounded_by_the_batch(remote: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "BATCH_EVENTS", 100)

    class Watched(Event):
        pass

    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0

    def watched() -> Iterator[Event]:
        nonlocal most
        for event in claims(1500, source="s:1"):
            one = Watched(event)
            alive.add(_Mark.on(one))
            most = max(most, len(alive))
            yield one

    assert sum(1 for _ in remote.post(watched())) == 1500
    assert most <= 2 * 100 + 2


class _Mark:
    """Lives as long as the event that it hangs on: a dict cannot be referred to weakly."""

    @classmethod
    def on(cls, event: Any) -> _Mark:
        event.mark = mark = cls()
        return mark


def test_only_so_many_rejections_are_held(remote: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "REJECTIONS", 3)
    with pytest.raises(RejectedError) as caught:
        remote.post([b"{"] * 10).finish()
    assert [r.index for r in caught.value.rejections] == [0, 1, 2]
    assert caught.value.summary.rejected == 10


# --- connections that break


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(service, "_backoff", lambda _: 0.001)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_lost_and_nothing_doubled(url: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "BATCH_EVENTS", 60)
    monkeypatch.setattr(posting, "CHUNK_BYTES", 2_000)
    with flaky(url, seed, breaks=12, upto=2_500) as way, Ledger(way.url, source="s:1") as ledger:
        # A correction and a retraction name events before them, so the order has to hold too.
        events = [
            *claims(200),
            assertion("e:0", "seen", 0.5, outlet="o:1", corrects="c0", id="fix"),
            retraction("c1", reason="other", id="gone"),
            *claims(400),
        ]
        results = list(ledger.post(events))
        expected = [event["id"] for event in events[:202]] + [f"c{n}" for n in range(200, 400)]
        assert way.left == 0, "not all connections broke"
        assert [r.index for r in results] == list(range(602))
        assert recorded_ids(ledger) == expected
        assert [expected[r.position or 0] for r in results] == [event["id"] for event in events]
        assert {r.result for r in results} <= {"recorded", "duplicate"}


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("seed", range(3))
def test_single_events_are_recorded_once_too(url: str, seed: int) -> None:
    with flaky(url, seed, breaks=8, upto=600) as way, Ledger(way.url, source="s:1") as ledger:
        receipts = [ledger.affirm("e:1", "seen", n, outlet="o:1") for n in range(12)]
        assert recorded_ids(ledger) == [receipt.id for receipt in receipts]
        assert [receipt.position for receipt in receipts] == list(range(12))
        assert way.left == 0


def test_patience_ends(url: str) -> None:
    waits: list[str] = []
    with (
        flaky(url, 1, breaks=10_000, upto=10) as way,
        Ledger(way.url, source="s:1", patience=0.3, waiting=lambda why, seconds: waits.append(why.code)) as ledger,
        pytest.raises(UnavailableError) as caught,
    ):
        ledger.post(claims(3)).finish()
    assert caught.value.code in ("server-unavailable", "answer-broken", "http-502", "http-503", "http-429")
    assert waits


# --- a service that has bad moments


@contextmanager
def answering(*answers: Any) -> Iterator[tuple[str, list[bytes]]]:
    """Yield the URL of what answers each request as told, and what was asked of it."""
    asked: list[bytes] = []
    left = list(answers)

    async def answer(request: Request) -> Response:
        asked.append(await request.body())
        told = left.pop(0)
        return told if isinstance(told, Response) else Response(_lines(*told), media_type="application/x-ndjson")

    with serving(Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])) as url:
        yield url, asked
    assert left == []


def _lines(*told: Any) -> bytes:
    return b"".join(orjson.dumps(line) + b"\n" for line in told)


def _recorded(line: int, result: str = "recorded") -> Event:
    return {"line": line, "result": result, "position": 10 + line}


def _rejected(line: int, status: int, code: str) -> Event:
    return {"line": line, "result": "rejected", "problem": {"status": status, "code": code, "detail": "No."}}


SUMMARY = {"summary": {"recorded": 0, "duplicate": 0, "rejected": 0, "size": 9}}


def test_an_event_that_was_refused_for_the_moment_is_sent_again_with_all_after_it() -> None:
    first = (
        _recorded(1),
        _rejected(2, 503, "database-unavailable"),
        _rejected(3, 422, "invalid-event"),
        _recorded(4),
        SUMMARY,
    )
    second = (_recorded(1), _recorded(2), _recorded(3, "duplicate"), SUMMARY)
    with answering(first, second) as (url, asked), Ledger(url, source="s:1") as ledger:
        results = list(ledger.post(claims(4)))
    assert [(r.result, r.position) for r in results] == [
        ("recorded", 11),
        ("recorded", 11),
        ("recorded", 12),
        ("recorded", 13),
    ]
    assert asked[0].split(b"\n")[1:] == asked[1].split(b"\n")


def test_an_answer_that_ends_early_counts_as_far_as_it_goes() -> None:
    with answering((_recorded(1),), (_recorded(1), SUMMARY)) as (url, asked), Ledger(url, source="s:1") as ledger:
        assert ledger.post(claims(2)).finish() == posting.Summary(2, 0, 0, 9)
    assert asked[0].split(b"\n")[1] == asked[1].split(b"\n")[0]


def test_the_same_bytes_and_ids_are_sent_again_after_as_long_as_asked() -> None:
    waits: list[float] = []
    busy = Response(status_code=503, headers={"Retry-After": "1"})
    answered = Response(
        _lines({"results": [{**_recorded(1), "source": "s", "id": "i", "recorded_at": "x"}], "size": 1}), 201
    )
    with (
        answering(busy, Response(status_code=429), answered) as (url, asked),
        Ledger(url, source="s:1", waiting=lambda _, seconds: waits.append(seconds)) as ledger,
    ):
        ledger.affirm("e:1", "seen", 1, outlet="o:1")
    assert asked[0] == asked[1] == asked[2]
    assert json.loads(asked[0])["id"]
    assert 1 <= waits[0] <= 2
    assert waits[1] < 1


def test_a_wait_beyond_all_patience_is_not_begun() -> None:
    busy = Response(status_code=503, headers={"Retry-After": "3600"})
    with answering(busy) as (url, _), Ledger(url) as ledger, pytest.raises(UnavailableError) as caught:
        ledger.size()
    assert caught.value.retry_after == 3600


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 413, 415, 422, 500, 501])
def test_what_would_be_refused_again_is_not_sent_again(status: int) -> None:
    with answering(Response(status_code=status)) as (url, asked), Ledger(url, source="s:1") as ledger:
        with pytest.raises(Exception, match="status") as caught:
            ledger.post(claims(1)).finish()
        assert not isinstance(caught.value, UnavailableError)
    assert len(asked) == 1


def test_a_conflict_of_one_event_is_typed(remote: Ledger) -> None:
    remote.affirm("e:1", "seen", 1, outlet="o:1", id="x")
    with pytest.raises(ConflictError) as caught:
        remote.affirm("e:1", "seen", 2, outlet="o:1", id="x")
    assert caught.value.code == "id-reused"


def test_every_result_is_counted(remote: Ledger) -> None:
    counted = Counter(result.result for result in remote.post(claims(50)))
    assert counted == {"recorded": 50}
