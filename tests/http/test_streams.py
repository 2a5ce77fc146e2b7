"""Streams of lines: each line by itself, answered in order, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Event as Flag
from typing import Any

import anyio
import anyio.to_thread
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from factledger.appender import Appender
from factledger.core import encoding
from factledger.core.errors import Category, LedgerError
from factledger.http import streams
from factledger.http.awaiting import Writer
from factledger.http.streams import Lines, Unread, read_line
from factledger.ledger import Ledger
from factledger.reading import Question
from factledger.recording import Request
from tests.http.posting import EVENTS, Event, assertion, problem, size

NDJSON = {"content-type": "application/x-ndjson"}


def lines(events: Iterable[Any], end: bytes = b"\n") -> bytes:
    return b"".join(event if isinstance(event, bytes) else orjson.dumps(event) + end for event in events)


def stream(client: TestClient, body: bytes | Iterator[bytes], kind: str = NDJSON["content-type"]) -> list[Event]:
    answer = client.post(EVENTS, content=body, headers={"content-type": kind})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [orjson.loads(line) for line in answer.text.splitlines()]


@pytest.mark.parametrize("kind", ["application/x-ndjson", "application/jsonl", "Application/X-NDJSON; charset=utf-8"])
def test_every_line_is_answered_in_order_and_then_summed_up(client: TestClient, kind: str) -> None:
    bad = assertion("bad", value=None)
    body = lines([assertion("1"), assertion("2"), bad, b"{nonsense\n", assertion("1"), assertion("1", value=9)])
    *answers, summary = stream(client, body, kind)
    assert [answer["line"] for answer in answers] == [1, 2, 3, 4, 5, 6]
    assert [answer["result"] for answer in answers] == [
        "recorded",
        "recorded",
        "rejected",
        "rejected",
        "duplicate",
        "rejected",
    ]
    assert [answer.get("position") for answer in answers] == [0, 1, None, None, 0, None]
    problems = [answer.get("problem", {}) for answer in answers]
    assert [p.get("code") for p in problems] == [None, None, "invalid-event", "malformed-json", None, "id-reused"]
    assert [p.get("status") for p in problems] == [None, None, 422, 400, None, 409]
    assert problems[2]["errors"] == [{"pointer": "/data/value", "detail": problems[2]["errors"][0]["detail"]}]
    assert all(("problem" in a) == (a["result"] == "rejected") for a in answers)
    assert summary == {"summary": {"recorded": 2, "duplicate": 1, "rejected": 3, "size": 2}}


def test_good_lines_are_kept_and_a_repeat_is_safe(client: TestClient) -> None:
    body = lines([assertion("1"), b"\xff\n", assertion("2")])
    first, again = stream(client, body), stream(client, body)
    assert first[-1]["summary"] == {"recorded": 2, "duplicate": 0, "rejected": 1, "size": 2}
    assert again[-1]["summary"] == {"recorded": 0, "duplicate": 2, "rejected": 1, "size": 2}


@pytest.mark.parametrize("body", [b"", b"\n", b"\n\n \t\r\n"])
def test_nothing_is_answered_by_a_summary(client: TestClient, body: bytes) -> None:
    assert stream(client, body) == [{"summary": {"recorded": 0, "duplicate": 0, "rejected": 0, "size": 0}}]


def test_empty_lines_count_and_are_passed_over(client: TestClient) -> None:
    body = b"\n" + lines([assertion("1")], b"\r\n") + b"\r\n\n" + orjson.dumps(assertion("2"))  # no end
    *answers, _ = stream(client, body)
    assert [(answer["line"], answer["result"]) for answer in answers] == [(2, "recorded"), (5, "recorded")]


def test_a_line_that_is_too_long_is_rejected_as_a_line(client: TestClient) -> None:
    long = assertion("long", value="x" * 256 * 1024)
    at_limit = orjson.dumps(assertion("2"))
    at_limit += b" " * (256 * 1024 - len(at_limit)) + b"\n"
    *answers, _ = stream(client, lines([assertion("1"), long, at_limit, assertion("3"), b"x" * 3_000_000]))
    assert [answer["result"] for answer in answers] == ["recorded", "rejected", "recorded", "recorded", "rejected"]
    assert [a["problem"]["code"] for a in answers if "problem" in a] == ["line-too-long"] * 2
    assert answers[1]["problem"]["status"] == 413


def test_a_line_may_point_at_an_earlier_one(client: TestClient) -> None:
    *answers, _ = stream(client, lines([assertion("1"), assertion("2", corrects=[{"id": "1"}])]))
    assert [answer["result"] for answer in answers] == ["recorded", "recorded"]


def test_a_line_is_one_event_and_no_batch(client: TestClient) -> None:
    *answers, _ = stream(client, lines([[assertion("1")]]))
    assert answers[0]["problem"]["errors"][0]["pointer"] == ""


def test_lines_may_be_cut_anywhere(client: TestClient) -> None:
    body = lines([assertion(str(n), value="é€😀") for n in range(20)])

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(body), 7):
            yield body[start : start + 7]

    *answers, summary = stream(client, chunks())
    assert [answer["position"] for answer in answers] == list(range(20))
    assert summary["summary"]["recorded"] == 20


def test_lines_share_transactions(client: TestClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[int] = []
    append = ledger.append

    def counted(requests: Any) -> Any:
        groups.append(len(requests))
        return append(requests)

    monkeypatch.setattr(ledger, "append", counted)
    assert stream(client, lines([assertion(str(n)) for n in range(1200)]))[-1]["summary"]["recorded"] == 1200
    assert sum(groups) == 1200
    assert len(groups) <= 2  # one, if both came before the writer looked


def test_a_stream_cannot_be_conditional(client: TestClient) -> None:
    answer = client.post(EVENTS, content=lines([assertion("1")]), headers={**NDJSON, "if-match": '"0"'})
    problem(answer, 422, "invalid-request")
    assert size(client) == 0


def test_a_full_queue_is_waited_for(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    appender: Appender = client.app.state.service.appender  # type: ignore[attr-defined]
    enqueue, refusals = appender.enqueue, [1, 2, 3]

    def sometimes(*given: Any) -> Any:
        if refusals:
            refusals.pop()
            raise LedgerError(Category.BUSY, "queue-full", "Later.", retry_after=1)
        return enqueue(*given)

    monkeypatch.setattr(appender, "enqueue", sometimes)
    assert stream(client, lines([assertion("1")]))[-1]["summary"]["recorded"] == 1
    assert refusals == []


def test_a_database_that_is_away_is_said_line_by_line(
    client: TestClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: Any) -> Any:
        raise LedgerError(Category.UNAVAILABLE, "database-unavailable", "Away.", retry_after=1)

    monkeypatch.setattr(ledger, "append", away)
    *answers, summary = stream(client, lines([assertion("1"), b"{\n"]))
    assert [answer["problem"]["code"] for answer in answers] == ["database-unavailable", "malformed-json"]
    assert summary["summary"] == {"recorded": 0, "duplicate": 0, "rejected": 2, "size": 0}


def test_what_breaks_one_line_breaks_no_other_and_is_not_told(
    client: TestClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, parse = ledger.append, encoding.parse_json

    def unreadable(line: bytes) -> Any:
        return 1 / 0 if b'"id":"4"' in line else parse(line)

    def poisoned(requests: Any) -> Any:
        if any(draft.id == "2" for request in requests for draft in request.drafts):
            raise ZeroDivisionError("Zanzibar")
        return append(requests)

    monkeypatch.setattr(ledger, "append", poisoned)
    monkeypatch.setattr(encoding, "parse_json", unreadable)
    *answers, _ = stream(client, lines([assertion(str(n)) for n in range(6)]))
    assert [answer["result"] for answer in answers].count("recorded") == 4
    assert [a["problem"]["code"] for a in (answers[2], answers[4])] == ["internal-error"] * 2
    assert "Zanzibar" not in str(answers)


# --- the parts


@given(st.lists(st.binary(max_size=12)), st.data())
def test_lines_are_those_of_the_whole_wherever_it_is_cut(pieces: list[bytes], data: st.DataObject) -> None:
    body = b"\n".join(piece.replace(b"\n", b"") for piece in pieces)
    splitter, rest = Lines(), body
    found: list[bytes | None] = []
    while rest:
        cut = data.draw(st.integers(1, len(rest)))
        found += splitter.split(rest[:cut])
        rest = rest[cut:]
    found += splitter.rest()
    expected = body.split(b"\n")
    assert found == (expected if expected[-1] else expected[:-1])


@given(st.lists(st.integers(0, 30), max_size=8), st.integers(1, 20))
def test_a_long_line_is_dropped_and_the_next_is_whole(lengths: list[int], cut: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "MAX_LINE_BYTES", 10)
        body = b"".join(b"x" * length + b"\n" for length in lengths)
        splitter = Lines()
        found = [line for start in range(0, len(body), cut) for line in splitter.split(body[start : start + cut])]
        assert len(splitter._begun) <= 10
    assert found == [b"x" * length if length <= 10 else None for length in lengths]


@given(st.lists(st.binary(min_size=1, max_size=50) | st.none(), max_size=30))
def test_what_is_unread_comes_in_order_from_memory_or_file(steps: list[bytes | None]) -> None:
    async def run() -> bytes:
        unread, read = Unread(), b""
        for step in steps:
            if step is not None:
                unread.write(step)
            elif unread._read_upto < unread._written_upto:
                read += await unread.read()
        unread.complete()
        while data := await unread.read():
            read += data
        unread.close()
        return read

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "UNREAD_MEMORY", 40)
        patch.setattr(streams, "CHUNK", 7)
        assert anyio.run(run) == b"".join(step for step in steps if step is not None)


def test_too_much_unread_holds_up_the_writer_until_all_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "UNREAD_BYTES", 10)
    monkeypatch.setattr(streams, "CHUNK", 4)

    async def run() -> list[str]:
        unread, order = Unread(), []
        unread.write(b"x" * 12)

        async def write() -> None:
            await unread.room()
            order.append("room")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            for _ in range(3):
                await anyio.sleep(0)
                order.append((await unread.read()).decode())
        unread.close()
        return order

    assert anyio.run(run) == ["xxxx", "xxxx", "xxxx", "room"]


def test_a_client_that_goes_leaves_a_beginning_of_its_lines(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a line recorded without one before it, sending all again would record them in another order."""
    monkeypatch.setattr(streams, "GROUP_LINES", 1)
    appender = Appender(capacity=100)
    busy, may_go_on = Flag(), Flag()

    def append(requests: Sequence[Request], record: Callable[..., Any] = ledger.append) -> Any:
        busy.set()
        assert may_go_on.wait(30)
        return record(requests)

    monkeypatch.setattr(ledger, "append", append)
    retraction = {
        **assertion("3"),
        "type": "factledger.retraction.v1",
        "data": {"where": {"source": assertion("1")["source"]}, "reason": "other"},
    }

    async def run() -> None:
        before = appender.enqueue(ledger, [read_line(lines([assertion("before")]), "anonymous")])
        assert await anyio.to_thread.run_sync(busy.wait, 30)
        messages = [lines([assertion("1")]), lines([assertion("2")]), lines([retraction])]

        async def receive() -> Any:
            if messages:
                return {"type": "http.request", "body": messages.pop(0), "more_body": True}
            with anyio.fail_after(30):
                while len(appender._waiting) < 3:
                    await anyio.sleep(0.01)
            return {"type": "http.disconnect"}

        async def send(_message: Any) -> None:
            pass

        await streams.StreamedAppend(Writer(appender), ledger, "anonymous")({"type": "http"}, receive, send)
        may_go_on.set()
        await anyio.to_thread.run_sync(before.result, 30)

    anyio.run(run)
    appender.close()
    found, _, size = ledger.events(Question(), from_position=0, limit=10, criteria={})
    assert [event["id"] for event in found] == ["before", "1", "2", "3"][:size]
    if size == 4:
        assert found[3]["data"]["matched"]["count"] == 3
