"""What tests do to a whole ledger: record and read back, ask everything, and check every stored row.

`check_ledger` re-derives all that a ledger stores from the rows themselves, by SQL and arithmetic of its own.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import rfc8785
from sqlalchemy import text

from factledger.core import events, times
from factledger.core.errors import LedgerError
from factledger.core.evidence import Assertion
from factledger.ledger import Ledger, Ledgers
from factledger.reading import Question
from factledger.recording import Receipt, Request
from tests import oracle, strategies

Event = dict[str, Any]
Row = Mapping[str, Any]

PROJECTIONS = ("assertions", "slots", "names", "retractions", "touches", "context")
REFUSALS = {"identity-conflict", "relay-cycle"}  # what a drawn event may meet, beside a target that is not there

# ---- Record, and read back -----------------------------------------------------------------------------


def request(*posted: Event, **options: Any) -> Request:
    """Return the request to append these events together."""
    return Request([events.read_event(event) for event in posted], **options)


def record(ledger: Ledger, posted: Iterable[Event]) -> list[Event]:
    """Append events in one transaction, each by itself, and return those that were accepted."""
    posted = list(posted)
    outcomes = ledger.append([request(event) for event in posted])
    for event, outcome in zip(posted, outcomes, strict=True):
        if isinstance(outcome, LedgerError):
            pointing = outcome.code == "invalid-event" and event["data"].keys() & {"targets", "corrects"}
            assert pointing or outcome.code in REFUSALS, (outcome, event)
    return [event for event, outcome in zip(posted, outcomes, strict=True) if isinstance(outcome, Receipt)]


def read_log(ledger: Ledger, size: int | None = None) -> list[Event]:
    """Return every event below a size as read back, which is as the oracle takes it."""
    found, following, at = ledger.events(Question(at_size=size), from_position=0, limit=10_000, criteria={})
    assert following is None
    assert at == (ledger.size() if size is None else size)
    assert [event["position"] for event in found] == list(range(at))
    return found


# ---- Ask everything ------------------------------------------------------------------------------------


def ask(ledger: Ledger, view: str, entity: str, predicate: str | None, question: Question) -> bytes:
    """Return an answer's bytes, or the code that it was refused with."""
    try:
        if view == "entity":
            return ledger.entity(entity, question).body
        if view == "why":
            assert predicate is not None
            return ledger.why(entity, predicate, question).body
        if view == "timeline":
            return ledger.timeline(entity, predicate, question).body
        assert view == "history"
        return ledger.history(entity, predicate, question, limit=10_000).body
    except LedgerError as refusal:
        return refusal.code.encode()


def everything(
    ledger: Ledger, question: Question, *, history: bool = False, entities: Sequence[str] = strategies.SUBJECTS
) -> dict[tuple[str, str, str | None], bytes]:
    """Return every answer about every entity at these coordinates, by (view, entity, predicate)."""
    found: dict[tuple[str, str, str | None], bytes] = {}
    for entity in entities:
        views = ("entity", "timeline", "history") if history else ("entity", "timeline")
        found |= {(view, entity, None): ask(ledger, view, entity, None, question) for view in views}
        state = without(found["entity", entity, None])
        for predicate in () if isinstance(state, bytes) else state["facts"]:
            found["why", entity, predicate] = ask(ledger, "why", entity, predicate, question)
    return found


def without(answer: bytes, *members: str) -> Any:
    """Return an answer parsed, without these members at any depth."""

    def strip(node: Any) -> Any:
        if isinstance(node, dict):
            return {name: strip(member) for name, member in node.items() if name not in members}
        return [strip(item) for item in node] if isinstance(node, list) else node

    return strip(json.loads(answer)) if answer.startswith(b"{") else answer


def pinned(permalink: str) -> tuple[str, str, str | None, Question, dict[str, int]]:
    """Return what a permalink asks: view, entity, predicate, coordinates, and the page of a history."""
    parts = urlsplit(permalink)
    _, _, _, _, _, entity, *view = parts.path.split("/")
    asked = dict(parse_qsl(parts.query, strict_parsing=True))
    before, valid_at = asked.pop("asserted_before", None), asked.pop("valid_at", None)
    question = Question(
        valid_at=None if valid_at is None else times.first_instant(valid_at),
        at_size=int(asked.pop("at_size")),
        asserted_before=None if before is None else times.parse_moment(before),
        identity_at_size=int(asked.pop("identity_at_size")),
        method=asked.pop("method"),
        when=asked.pop("when"),
    )
    predicate = asked.pop("predicate", None)
    return view[0] if view else "entity", entity, predicate, question, {name: int(n) for name, n in asked.items()}


# ---- Check every stored row ----------------------------------------------------------------------------


def naive_root(leaves: Sequence[bytes]) -> bytes:
    """Return the Merkle tree hash of these leaves as RFC 6962, section 2.1, defines it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1 << (len(leaves) - 1).bit_length() - 1  # the largest power of two below the number of leaves
    return hashlib.sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def check_ledger(ledgers: Ledgers, name: str) -> None:
    """Check that everything stored for a ledger follows from its log; ends with a rebuild, so the memo is gone.

    Raises:
        AssertionError: some row is not what the other rows make it.
    """
    ledger = ledgers.get(name)
    log = _check_log(ledgers, name)
    _check_projections(ledgers, name, log)
    _check_memo(ledgers, name)
    _check_rebuild(ledgers, ledger)


def _rows(ledgers: Ledgers, table: str, name: str, order: str) -> list[Row]:
    with ledgers.database.reading() as connection:
        found = connection.execute(
            text(f"SELECT * FROM {table} WHERE ledger_id = :name ORDER BY {order}"), {"name": name}
        )
        return [dict(row) for row in found.mappings()]


def _check_log(ledgers: Ledgers, name: str) -> list[Event]:
    """Check the head and every event by itself; return the log as the oracle takes it."""
    (head,) = _rows(ledgers, "ledgers", name, "ledger_id")
    rows = _rows(ledgers, "events", name, "position")
    assert [row["position"] for row in rows] == list(range(len(rows))), "positions have a gap"
    log = [_check_event(name, row) for row in rows]
    instants = [head["created_at_us"], *(row["recorded_at_us"] for row in rows)]
    assert all(a < b for a, b in itertools.pairwise(instants)), "recorded_at does not rise"
    assert head["recorded_at_us"] == instants[-1]
    assert head["size"] == head["projected_size"] == len(rows)
    root = base64.b64encode(naive_root([bytes(row["envelope"]) for row in rows])).decode()
    described = ledgers.get(name).describe()
    assert (described["root"], described["size"]) == (root, len(rows)), "the root is not that of the leaves"
    for position, event in enumerate(log):
        if "where" in event["data"]:
            _check_matched(log, position, event["data"])
    return log


def _check_event(name: str, row: Row) -> Event:
    """Check one row of the log against itself, and return the event."""
    envelope_bytes, position = bytes(row["envelope"]), row["position"]
    envelope = json.loads(envelope_bytes)
    assert rfc8785.dumps(envelope) == envelope_bytes, f"envelope {position} is not canonical"
    assert envelope.keys().isdisjoint({"data", "datasalt", "inforce"})
    assert (envelope["ledger"], envelope["position"]) == (name, position)
    assert [envelope[column] for column in ("type", "source", "id")] == [row["type"], row["source"], row["id"]]
    recorded_at = datetime.fromisoformat(envelope["recordedat"]) - datetime(1970, 1, 1, tzinfo=UTC)
    assert recorded_at // timedelta(microseconds=1) == row["recorded_at_us"]
    assert isinstance(envelope["recordedby"], str) and envelope["recordedby"]
    data, salt = bytes(row["data"]), bytes(row["salt"])
    assert len(salt) == 32
    assert hashlib.sha256(salt + data).hexdigest() == envelope["datasha256"], f"content {position} is not committed to"
    assert rfc8785.dumps(json.loads(data)) == data, f"content {position} is not canonical"
    return {**envelope, "data": json.loads(data)}


def _check_matched(log: Sequence[Event], position: int, data: Mapping[str, Any]) -> None:
    """Check what the ledger added to a bulk retraction: frozen when it was recorded."""
    found = [p for p in range(position) if oracle.matches(data["where"], p, log[p])]
    digest = hashlib.sha256(b"".join(p.to_bytes(8, "big") for p in found)).hexdigest()
    expected = {"count": len(found), "size": position, "sha256": digest}
    assert data["matched"] == expected, f"what {position} matched is not what it says"


def _check_projections(ledgers: Ledgers, name: str, log: Sequence[Event]) -> None:
    """Check the inputs of belief against what the oracle makes of the log."""
    for row in _rows(ledgers, "assertions", name, "position"):
        kept = dict(zip(Assertion._fields, json.loads(bytes(row["inputs"])), strict=True))
        indexed = {column: row[column] for column in row.keys() & kept.keys()}
        assert kept == _inputs(row["position"], log[row["position"]]), row
        assert indexed == {column: kept[column] for column in indexed}, row
        content = log[row["position"]]["data"]
        assert (row["subject"], row["predicate"]) == (content["subject"], content["predicate"])
        assert row["quoted"] == (kept["speaker"] if kept["speaker"] != kept["outlet"] else None), row
        entity = content["value"].get("entity") if isinstance(content["value"], dict) else None
        assert row["value_entity"] == entity, row
    by_kind = {kind: {p for p, e in enumerate(log) if oracle.is_a(kind, e)} for kind in ("assertion", "retraction")}
    assert {row["position"] for row in _rows(ledgers, "assertions", name, "position")} == by_kind["assertion"]

    first: dict[tuple[str, str], int] = {}
    named: dict[str, int] = {}
    for position, event in enumerate(log):
        if oracle.is_a("assertion", event):
            first.setdefault((event["data"]["subject"], event["data"]["predicate"]), position)
        for found in oracle.names(event):
            named.setdefault(found, position)
    slots = _rows(ledgers, "slots", name, "first_position")
    assert {(row["subject"], row["predicate"]): row["first_position"] for row in slots} == first
    names = _rows(ledgers, "names", name, "position, ordinal")
    assert [(row["entity"], row["position"]) for row in names] == list(named.items()), "ids are not in order of naming"

    pointing = [
        (target, position)
        for position, event in enumerate(log)
        for target in range(position)
        if "where" not in event["data"] and oracle.targets(event, target, log[target])
    ]
    rows = _rows(ledgers, "retractions", name, "position, target")
    assert [(row["target"], row["position"]) for row in rows] == pointing
    reached: dict[int, set[tuple[str, str]]] = {}
    for target, position in pointing:
        content = log[target]["data"]
        slot = {(content["subject"], content["predicate"])} if target in by_kind["assertion"] else set()
        reached[position] = reached.get(position, set()) | slot | reached.get(target, set())
    touches = _rows(ledgers, "touches", name, "position")
    expected = {(*slot, position) for position, slots in reached.items() for slot in slots}
    assert {(row["subject"], row["predicate"], row["position"]) for row in touches} == expected
    # A retraction of nothing but assertions says nothing of the context.
    beyond = {position for target, position in pointing if target not in by_kind["assertion"]}
    plain = {p for p in by_kind["retraction"] if "targets" in log[p]["data"]} - beyond
    context = _rows(ledgers, "context", name, "position")
    assert {row["position"] for row in context} == set(range(len(log))) - by_kind["assertion"] - plain
    for row in context:
        event = log[row["position"]]
        assert (row["type"], json.loads(bytes(row["data"]))) == (event["type"], event["data"])
        aimed = {target for target, position in pointing if position == row["position"]}
        assert json.loads(bytes(row["targets"])) == sorted(aimed - by_kind["assertion"])


def _inputs(position: int, event: Event) -> dict[str, Any]:
    """Return what the projection must keep of an assertion, by the names of its fields."""
    data, provenance = event["data"], event["data"]["provenance"]
    span, valid = oracle.span(event), data.get("valid")
    limits = {-math.inf: times.BEGINNING, math.inf: times.FOREVER}
    bounds = (span.start_earliest, span.start_latest, span.end_earliest, span.end_latest)
    starts_earliest, starts_latest, ends_earliest, ends_latest = (limits.get(bound, bound) for bound in bounds)
    start_kind = times.StartKind.VAGUE if span.start_vague else times.StartKind.EXACT
    if not span.start_known:
        unbounded = valid is not None and valid.startswith("..")
        start_kind = times.StartKind.UNBOUNDED if unbounded else times.StartKind.UNKNOWN
    end_kind = times.EndKind.KNOWN if span.end_known else times.EndKind.OPEN
    return {
        "position": position,
        "affirms": data.get("polarity", "affirms") == "affirms",
        "value_key": rfc8785.dumps(data["value"]).decode(),
        "speaker": (provenance.get("speakers") or [provenance["outlet"]])[0],
        "outlet": provenance["outlet"],
        "source": event["source"],
        "asserted_at": oracle.asserted_at(event),
        "start_kind": start_kind,
        "starts_earliest": starts_earliest,
        "starts_latest": starts_latest,
        "end_kind": times.EndKind.OBSERVED if valid is not None and "/" not in valid else end_kind,
        "ends_earliest": ends_earliest,
        "ends_latest": ends_latest,
        "certainty": ("certain", "probable", "possible").index(data.get("certainty", "certain")),
        "confidence": data.get("confidence", 1),
        "document_uri": provenance.get("document", {}).get("uri"),
        "run": provenance.get("method", {}).get("run"),
        "valid": valid,
    }


def _check_memo(ledgers: Ledgers, name: str) -> None:
    """Check that every stored memo says what a reading says that may use none."""
    ledger = ledgers.get(name)
    for row in _rows(ledgers, "beliefs", name, "entity, predicate, size, from_us"):
        assert row["from_us"] < row["to_us"]
        for instant in {row["from_us"], (row["from_us"] + row["to_us"]) // 2, row["to_us"] - 1}:
            question = Question(valid_at=instant, at_size=row["size"])
            method = json.loads(ledger.entity(row["entity"], question).body)["coordinates"]["method"]
            # Beliefs by a method that was asked for are never remembered.
            fresh = ledger.entity(row["entity"], Question(valid_at=instant, at_size=row["size"], method=method))
            assert json.loads(fresh.body)["facts"][row["predicate"]] == json.loads(bytes(row["body"])), row


def _check_rebuild(ledgers: Ledgers, ledger: Ledger) -> None:
    """Check that the projections are what the log alone makes them, and that a rebuild leaves nothing else."""
    before, described = ledger.digest(), ledger.describe()
    rebuilt = ledger.rebuild()
    assert rebuilt["digest_before"] == rebuilt["digest"] == before == ledger.digest(), "a rebuild differs"
    assert rebuilt["equal"] is True
    assert ledger.describe() == described
    (head,) = _rows(ledgers, "ledgers", ledger.name, "ledger_id")
    for table in (*PROJECTIONS, "beliefs"):
        generations = {row["generation"] for row in _rows(ledgers, table, ledger.name, "ledger_id")}
        assert generations <= {head["generation"]}, f"{table} keeps rows of another generation"
