"""Group commit: few transactions, every outcome its own, nothing lost and nothing disturbed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from threading import Event as Flag
from typing import Any

import pytest

from factledger import appender as module
from factledger.appender import Appender
from factledger.core import events
from factledger.core.errors import Category, LedgerError
from factledger.ledger import Ledger, Ledgers
from factledger.reading import Question
from factledger.recording import Receipt, Request
from tests.http.posting import assertion


def request(event_id: str, **data: Any) -> Request:
    return Request([events.read_event(assertion(event_id, **data))])


class Spy:
    """A ledger's `append`, counted; every transaction can be held up, and made to fail."""

    def __init__(self, ledger: Ledger) -> None:
        self._append = ledger.append
        self.transactions: list[list[str]] = []
        self.may_go_on = Flag()
        self.may_go_on.set()
        self.entered = Flag()
        self.fail: Callable[[list[str]], None] = lambda _ids: None

    def __call__(self, requests: Sequence[Request]) -> Any:
        ids = [draft.id for r in requests for draft in r.drafts]
        self.transactions.append(ids)
        self.entered.set()
        assert self.may_go_on.wait(30)
        self.fail(ids)
        return self._append(requests)


@pytest.fixture
def spy(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Spy:
    watched = Spy(ledger)
    monkeypatch.setattr(ledger, "append", watched)
    return watched


@pytest.fixture
def appender() -> Iterator[Appender]:
    running = Appender(capacity=1000)
    yield running
    running.close()


def hold(appender: Appender, ledger: Ledger, spy: Spy) -> Any:
    """Let the writer enter a transaction and stay there; what is submitted now waits."""
    spy.may_go_on.clear()
    first = appender.enqueue(ledger, [request("held")])
    assert spy.entered.wait(30)
    return first


def test_requests_that_come_while_one_commits_share_the_next_transaction(
    appender: Appender, ledger: Ledger, spy: Spy
) -> None:
    hold(appender, ledger, spy)
    with ThreadPoolExecutor(50) as pool:
        futures = [pool.submit(appender.submit, ledger, request(f"e{n}")) for n in range(50)]
        while len(appender._waiting) < 50:
            assert not any(future.done() for future in futures)
        spy.may_go_on.set()
        receipts = [future.result(30) for future in futures]
    assert [len(ids) for ids in spy.transactions] == [1, 50]
    assert sorted(receipt.results[0].position for receipt in receipts) == list(range(1, 51))
    assert [r.size for r in sorted(receipts, key=lambda r: r.size)] == list(range(2, 52))
    assert ledger.size() == 51


def test_the_same_id_fifty_times_at_once_is_recorded_once(appender: Appender, ledger: Ledger) -> None:
    with ThreadPoolExecutor(50) as pool:
        receipts = list(pool.map(lambda _: appender.submit(ledger, request("same")), range(50)))
    assert sorted(receipt.results[0].recorded for receipt in receipts) == [False] * 49 + [True]
    assert {receipt.results[0].position for receipt in receipts} == {0}
    assert ledger.size() == 1


def test_a_refused_request_does_not_disturb_the_others(appender: Appender, ledger: Ledger, spy: Spy) -> None:
    hold(appender, ledger, spy)
    good = [appender.enqueue(ledger, [request(f"e{n}")]) for n in range(3)]
    bad = appender.enqueue(ledger, [request("e1", value="other content")])
    mixed = appender.enqueue(ledger, [request("lonely", corrects=[99]), request("e4")])
    spy.may_go_on.set()
    assert [isinstance(future.result(30)[0], Receipt) for future in good] == [True] * 3
    refusal = bad.result(30)[0]
    assert isinstance(refusal, LedgerError)
    assert refusal.code == "id-reused"
    first, second = mixed.result(30)
    assert isinstance(first, LedgerError)
    assert isinstance(second, Receipt)
    assert len(spy.transactions) == 2
    assert ledger.size() == 5


def test_submit_raises_what_the_request_was_refused_for(appender: Appender, ledger: Ledger) -> None:
    with pytest.raises(LedgerError) as refused:
        appender.submit(ledger, request("e", corrects=[99]))
    assert refused.value.category is Category.INVALID
    assert ledger.size() == 0


def test_a_full_queue_refuses_and_records_nothing(ledger: Ledger, spy: Spy) -> None:
    appender = Appender(capacity=2)
    first = hold(appender, ledger, spy)
    waiting = [appender.enqueue(ledger, [request(f"e{n}")]) for n in range(2)]
    with pytest.raises(LedgerError) as refused:
        appender.submit(ledger, request("one too many"))
    assert refused.value.category is Category.BUSY
    assert refused.value.code == "queue-full"
    assert refused.value.retry_after == 1
    spy.may_go_on.set()
    assert all(isinstance(future.result(30)[0], Receipt) for future in [first, *waiting])
    assert isinstance(appender.submit(ledger, request("one too many")), Receipt)  # there is room again
    appender.close()
    assert ledger.size() == 4


def test_a_queue_is_full_by_bytes_too(ledger: Ledger, spy: Spy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE_BYTES", 1000)
    appender = Appender(capacity=1000)
    hold(appender, ledger, spy)
    large = appender.enqueue(ledger, [request("large", valid_text="x" * 1000)])  # the queue was empty
    with pytest.raises(LedgerError) as refused:
        appender.enqueue(ledger, [request("small")])
    assert refused.value.code == "queue-full"
    spy.may_go_on.set()
    assert isinstance(large.result(30)[0], Receipt)
    appender.submit(ledger, request("small"))
    appender.close()
    assert appender._waiting_bytes == 0


def test_a_poisonous_request_fails_alone(appender: Appender, ledger: Ledger, spy: Spy) -> None:
    def fail(ids: list[str]) -> None:
        if "poison" in ids:
            raise ZeroDivisionError

    spy.fail = fail
    hold(appender, ledger, spy)
    before = [appender.enqueue(ledger, [request(f"before{n}")]) for n in range(3)]
    poison = appender.enqueue(ledger, [request("poison")])
    after = appender.enqueue(ledger, [request("after")])
    spy.may_go_on.set()
    assert all(isinstance(future.result(30)[0], Receipt) for future in [*before, after])
    assert isinstance(poison.result(30)[0], ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        appender.submit(ledger, request("poison"))
    assert ledger.size() == 5


def test_a_database_that_is_away_fails_the_whole_group_once(appender: Appender, ledger: Ledger, spy: Spy) -> None:
    away = LedgerError(Category.UNAVAILABLE, "database-unavailable", "gone", retry_after=1)

    def fail(ids: list[str]) -> None:
        if "held" not in ids:
            raise away

    spy.fail = fail
    hold(appender, ledger, spy)
    futures = [appender.enqueue(ledger, [request(f"e{n}")]) for n in range(5)]
    spy.may_go_on.set()
    assert [future.result(30) for future in futures] == [[away]] * 5
    assert len(spy.transactions) == 2
    spy.fail = lambda _ids: None
    assert isinstance(appender.submit(ledger, request("e0")), Receipt)


def test_what_follows_what_the_database_could_not_take_is_not_recorded(
    appender: Appender, ledger: Ledger, spy: Spy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a bulk retraction would match nothing, and what it was for would come after it when it is sent again."""
    monkeypatch.setattr(module, "GROUP_SUBMISSIONS", 1)
    away = LedgerError(Category.UNAVAILABLE, "database-unavailable", "gone", retry_after=1)

    def fail(ids: list[str]) -> None:
        if "e0" in ids:
            raise away

    spy.fail = fail
    hold(appender, ledger, spy)
    first = appender.enqueue(ledger, [request("e0")])
    second = appender.enqueue(ledger, [request("e1"), request("e2")], first)
    third = appender.enqueue(ledger, [request("e3")], second)
    apart = appender.enqueue(ledger, [request("e4")])
    going_on = appender.enqueue(ledger, [request("e5")], apart)
    spy.may_go_on.set()
    assert [future.result(30) for future in (first, second, third)] == [[away], [away, away], [away]]
    assert [isinstance(future.result(30)[0], Receipt) for future in (apart, going_on)] == [True, True]


def test_a_database_that_goes_away_amid_a_retry_is_asked_no_more(appender: Appender, ledger: Ledger, spy: Spy) -> None:
    def fail(ids: list[str]) -> None:
        if len(ids) > 1:
            raise ZeroDivisionError
        if ids == ["e1"]:
            raise LedgerError(Category.UNAVAILABLE, "database-unavailable", "gone", retry_after=1)

    spy.fail = fail
    hold(appender, ledger, spy)
    futures = [appender.enqueue(ledger, [request(f"e{n}")]) for n in range(5)]
    spy.may_go_on.set()
    outcomes = [future.result(30)[0] for future in futures]
    assert [isinstance(outcome, Receipt) for outcome in outcomes] == [True, False, False, False, False]
    assert [len(ids) for ids in spy.transactions] == [1, 5, 1, 1]


def test_a_group_is_bounded(ledger: Ledger, spy: Spy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP_SUBMISSIONS", 4)
    monkeypatch.setattr(module, "GROUP_EVENTS", 10)
    appender = Appender(capacity=100)
    hold(appender, ledger, spy)
    counts = [1, 1, 1, 1, 1, 6, 4, 30, 1]
    for n, count in enumerate(counts):
        appender.enqueue(ledger, [request(f"e{n}-{m}") for m in range(count)])
    spy.may_go_on.set()
    appender.close()
    assert [len(ids) for ids in spy.transactions] == [1, 4, 7, 4, 30, 1]
    assert ledger.size() == 1 + sum(counts)


def test_a_cancelled_submission_is_not_recorded(appender: Appender, ledger: Ledger, spy: Spy) -> None:
    hold(appender, ledger, spy)
    left = appender.enqueue(ledger, [request("left")])
    stayed = appender.enqueue(ledger, [request("stayed")])
    assert left.cancel()
    spy.may_go_on.set()
    assert isinstance(stayed.result(30)[0], Receipt)
    with pytest.raises(CancelledError):
        left.result(30)
    assert ledger.size() == 2


def test_close_records_what_waits_and_takes_no_more(ledger: Ledger, spy: Spy) -> None:
    appender = Appender(capacity=100)
    hold(appender, ledger, spy)
    waiting = [appender.enqueue(ledger, [request(f"e{n}")]) for n in range(5)]
    spy.may_go_on.set()
    appender.close()
    assert all(future.done() for future in waiting)
    assert ledger.size() == 6
    with pytest.raises(LedgerError) as refused:
        appender.submit(ledger, request("late"))
    assert refused.value.category is Category.UNAVAILABLE


def test_ledgers_share_a_writer_and_keep_apart(appender: Appender, ledgers: Ledgers) -> None:
    ledgers.create("other")
    first, other = ledgers.get("main"), ledgers.get("other")
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda n: appender.submit((first, other)[n % 2], request(f"e{n}")), range(40)))
    assert (first.size(), other.size()) == (20, 20)


def test_an_idle_writer_keeps_what_reads_worked_out(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, appender: Appender
) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.01)
    appender.submit(ledger, request("e"))
    kept: list[int] = []
    done = Flag()
    save = ledger.save_memo

    def save_memo() -> int:
        kept.append(save())
        if kept[-1]:
            done.set()
        return kept[-1]

    monkeypatch.setattr(ledger, "save_memo", save_memo)
    ledger.entity("person:a", Question())
    appender.keep_reads(ledger)
    assert done.wait(30)
    assert sum(kept) == 1


def test_a_memo_that_cannot_be_kept_does_not_stop_the_writer(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, appender: Appender
) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.01)
    tried = Flag()

    def save_memo() -> int:
        tried.set()
        raise LedgerError(Category.UNAVAILABLE, "database-unavailable", "gone")

    monkeypatch.setattr(ledger, "save_memo", save_memo)
    appender.keep_reads(ledger)
    assert tried.wait(30)
    assert isinstance(appender.submit(ledger, request("e")), Receipt)
    monkeypatch.undo()
