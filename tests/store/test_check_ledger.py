"""The check of a whole ledger can fail: every way of tampering with a stored row turns it red."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import rfc8785
from sqlalchemy import text

from factledger.core import times
from factledger.ledger import Ledger, Ledgers
from factledger.reading import Question
from factledger.store.engines import Database
from tests import strategies
from tests.checking import Event, check_ledger, everything, naive_root, read_log, record

WHERE = 5  # the position of the bulk retraction below


def log() -> list[Event]:
    def event(kind: str, number: int, **data: Any) -> Event:
        named = {"specversion": "1.0", "source": "x:one@1", "id": f"n{number}"}
        return {**named, "type": f"factledger.{kind}.v1", "data": data}

    def claim(number: int, value: Any, outlet: str, **data: Any) -> Event:
        content = {"subject": "e:1", "predicate": "place", "value": value, "provenance": {"outlet": outlet}}
        return event("assertion", number, **content, asserted_at=f"2021-09-0{number}", **data)

    return [
        strategies.DECLARE_PLACE,
        claim(1, {"entity": "e:2"}, "a:1", valid="2021-09-01/2021-09-20"),
        claim(2, {"entity": "e:3"}, "a:2", corrects=[1]),
        event("agent", 3, agent="a:1", reliability="B", relays="a:3"),
        event("identity", 4, entities=["e:2", "e:4"], judgement="same"),
        event("retraction", 5, where={"outlet": "a:2"}, reason="other"),
        event("retraction", 6, targets=[5], reason="other"),
        claim(7, {"entity": "e:4"}, "a:4"),
        event("retraction", 8, targets=[2], reason="other"),
        claim(9, "x", "a:1", confidence=0.5, polarity="denies"),
    ]


@pytest.fixture
def filled(ledger: Ledger) -> Ledger:
    assert record(ledger, log()) == log()
    for subject in ("e:1", "e:2"):
        ledger.entity(subject, Question(valid_at=times.parse_moment("2021-09-10")))
    assert ledger.save_memo() == 1
    return ledger


@pytest.fixture
def at_will(ledgers: Ledgers) -> Callable[..., None]:
    """Execute SQL on the database with the triggers that guard the log taken away."""

    def execute(statement: str, **parameters: Any) -> None:
        with ledgers.database.writing() as connection:
            for trigger in _triggers(ledgers.database):
                connection.execute(text(trigger))
            assert connection.execute(text(statement), parameters).rowcount >= 1

    return execute


def _triggers(database: Database) -> Sequence[str]:
    if database.dialect == "sqlite":
        return ["DROP TRIGGER IF EXISTS events_no_update", "DROP TRIGGER IF EXISTS events_no_delete"]
    return ["ALTER TABLE events DISABLE TRIGGER ALL"]


def test_an_untouched_ledger_checks_out(ledgers: Ledgers, filled: Ledger) -> None:
    before = everything(filled, Question(valid_at=times.parse_moment("2021-09-10")), history=True)
    check_ledger(ledgers, "main")
    assert everything(filled, Question(valid_at=times.parse_moment("2021-09-10")), history=True) == before
    check_ledger(ledgers, "main")


def test_an_empty_ledger_checks_out(ledgers: Ledgers, ledger: Ledger) -> None:
    check_ledger(ledgers, "main")
    assert ledger.describe()["root"] == "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="


TAMPERING = {
    # the log
    "an event is gone": "DELETE FROM events WHERE position = 4",
    "the last event is gone": "DELETE FROM events WHERE position = 9",
    "an event has another position": "UPDATE events SET position = 10 WHERE position = 4",
    "two events are swapped": "UPDATE events SET position = CASE position WHEN 1 THEN -2 ELSE 1 END"
    " WHERE position IN (1, 7)",
    "an envelope is edited": "UPDATE events SET envelope = :envelope WHERE position = 4",
    "an envelope is written in another way": "UPDATE events SET envelope = :spaced WHERE position = 4",
    "content is edited": "UPDATE events SET data = :data WHERE position = 4",
    "content is another event's": "UPDATE events SET data = (SELECT data FROM events WHERE position = 1)"
    " WHERE position = 7",
    "a salt is edited": "UPDATE events SET salt = :salt WHERE position = 4",
    "a salt is cut": "UPDATE events SET salt = :short WHERE position = 4",
    "a type is edited": "UPDATE events SET type = 'factledger.agent.v1' WHERE position = 4",
    "a source is edited": "UPDATE events SET source = 'x:two@1' WHERE position = 4",
    "an id is edited": "UPDATE events SET id = 'other' WHERE position = 4",
    "a time is edited": "UPDATE events SET recorded_at_us = recorded_at_us + 1 WHERE position = 4",
    "an event is another ledger's": "UPDATE events SET ledger_id = 'other' WHERE position = 9",
    # the head
    "the size is edited": "UPDATE ledgers SET size = 11, frontier = :frontier",
    "the frontier is edited": "UPDATE ledgers SET frontier = :frontier",
    "the head's time is edited": "UPDATE ledgers SET recorded_at_us = recorded_at_us + 1",
    "the projection is behind": "UPDATE ledgers SET projected_size = 9",
    # the inputs of belief
    "an assertion is not projected": "DELETE FROM assertions WHERE position = 7",
    "an assertion is projected elsewhere": "UPDATE assertions SET subject = 'e:9' WHERE position = 7",
    "an assertion's outlet is edited": "UPDATE assertions SET outlet = 'a:9' WHERE position = 7",
    "an assertion's inputs are edited": "UPDATE assertions SET inputs = "
    "(SELECT inputs FROM assertions WHERE position = 1) WHERE position = 7",
    "a slot is gone": "DELETE FROM slots WHERE subject = 'e:1'",
    "a slot is older": "UPDATE slots SET first_position = 0 WHERE subject = 'e:1'",
    "a name is gone": "DELETE FROM names WHERE entity = 'a:3'",
    "a name is older": "UPDATE names SET position = 0 WHERE entity = 'e:4'",
    "names are in another order": "UPDATE names SET ordinal = 9 - ordinal WHERE position = 3",
    "a retraction is gone": "DELETE FROM retractions WHERE position = 8",
    "a retraction has another target": "UPDATE retractions SET target = 1 WHERE position = 8",
    "a retraction's slot is edited": "UPDATE retractions SET target_subject = 'e:9' WHERE position = 8",
    "a touch is gone": "DELETE FROM touches WHERE position = 8",
    "a touch is elsewhere": "UPDATE touches SET predicate = 'rank' WHERE position = 8",
    "a context event is gone": "DELETE FROM context WHERE position = 3",
    "a context event is edited": "UPDATE context SET data = :data WHERE position = 4",
    "a context event has another target": "UPDATE context SET targets = :none WHERE position = 6",
    # leftovers
    "a row is of another generation": "UPDATE touches SET generation = 9 WHERE position = 8",
}


on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # what is checked is the same on both


@on_sqlite
@pytest.mark.parametrize("statement", TAMPERING.values(), ids=list(TAMPERING))
def test_tampering_is_found(statement: str, ledgers: Ledgers, filled: Ledger, at_will: Callable[..., None]) -> None:
    event = {
        name: member for name, member in read_log(filled)[4].items() if name not in ("data", "inforce", "datasalt")
    }
    values = {
        "envelope": rfc8785.dumps({**event, "recordedby": "somebody"}),
        "spaced": json.dumps(event).encode(),
        "data": rfc8785.dumps({"entities": ["e:2", "e:3"], "judgement": "same"}),
        "salt": bytes(32),
        "short": bytes(31),
        "frontier": bytes(32 * (3 if "size = 11" in statement else 2)),
        "none": b"[]",
    }
    at_will(statement, **{name: value for name, value in values.items() if f":{name}" in statement})
    if "-2" in statement:
        at_will("UPDATE events SET position = 7 WHERE position = -2")
    with pytest.raises((AssertionError, LookupError)):
        check_ledger(ledgers, "main")


def test_a_memo_that_is_edited_is_found(ledgers: Ledgers, filled: Ledger, at_will: Callable[..., None]) -> None:
    at_will("UPDATE beliefs SET body = :body", body=b'{"cardinality":"one","status":"unknown","values":[]}')
    with pytest.raises(AssertionError):
        check_ledger(ledgers, "main")


def test_a_memo_that_reaches_too_far_is_found(ledgers: Ledgers, filled: Ledger, at_will: Callable[..., None]) -> None:
    at_will("UPDATE beliefs SET to_us = :later", later=times.FOREVER)
    with pytest.raises(AssertionError):
        check_ledger(ledgers, "main")


@on_sqlite
@pytest.mark.parametrize("lie", [{"count": 0}, {"size": 4}, {"sha256": "0" * 64}])
def test_what_a_bulk_retraction_matched_is_checked_even_where_all_hashes_agree(
    lie: dict[str, Any], ledgers: Ledgers, filled: Ledger, at_will: Callable[..., None]
) -> None:
    """Forged through and through: content, commitment, envelope, frontier and projection."""
    event = read_log(filled)[WHERE]
    data = {**event["data"], "matched": {**event["data"]["matched"], **lie}}
    salt, body = bytes(32), rfc8785.dumps(data)
    envelope = {name: member for name, member in event.items() if name not in ("data", "inforce", "datasalt")}
    sealed = rfc8785.dumps({**envelope, "datasha256": hashlib.sha256(salt + body).hexdigest()})
    values = {"envelope": sealed, "data": body, "salt": salt}
    at_will(f"UPDATE events SET envelope = :envelope, data = :data, salt = :salt WHERE position = {WHERE}", **values)
    at_will(f"UPDATE context SET data = :data WHERE position = {WHERE}", data=body)
    with ledgers.database.reading() as connection:
        found = connection.execute(text("SELECT envelope FROM events ORDER BY position")).scalars()
        leaves = [bytes(leaf) for leaf in found]
    full = [leaves[0:8], leaves[8:10]]  # ten leaves: a full tree of eight, and one of two
    at_will("UPDATE ledgers SET frontier = :frontier", frontier=b"".join(map(naive_root, full)))
    with pytest.raises(AssertionError, match="what 5 matched"):
        check_ledger(ledgers, "main")
