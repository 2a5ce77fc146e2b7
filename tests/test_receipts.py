"""Receipts: what a server says of one belief, checked without it; and whatever is not quite a receipt, refused."""

from __future__ import annotations

import base64
import copy
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from factledger import receipts
from factledger.core import encoding, times
from factledger.core.errors import LedgerError
from factledger.http import describing
from factledger.http.app import create_app
from factledger.ledger import Ledger, Ledgers
from factledger.reading import Question
from factledger.sealing import Sealer
from factledger.settings import Settings
from factledger.signing import Keeper
from factledger.store import tree
from factledger.verifier import Checkpoint, VerifierKey
from tests import oracle, strategies
from tests.checking import Event, naive_root, read_log, record, request
from tests.core.test_belief import START
from tests.http.posting import problem
from tests.http.test_description import validator

names = (f"r{n}" for n in itertools.count())

ANY_LOG = st.one_of(
    strategies.logs(14, 2), strategies.corrected_logs(14), strategies.crowded_logs(12), strategies.logs(25, 12)
)
DAY = times.parse_moment("2021-09-05")


def keys_of(ledger: Ledger) -> list[VerifierKey]:
    return [VerifierKey.parse(ledger.describe()["verifier_key"])]


def why_of(ledger: Ledger, receipt: Mapping[str, Any]) -> Any:
    """What the ledger itself answers at the coordinates of a receipt."""
    stated = receipt["belief"]
    at = stated["coordinates"]
    before = at["asserted_before"]
    question = Question(
        valid_at=times.parse_instant(at["valid_at"]),
        at_size=at["at_size"],
        asserted_before=None if before is None else times.parse_instant(before),
        identity_at_size=at["identity_at_size"],
        method=at["method"],
        when=at["when"],
    )
    return json.loads(ledger.why(stated["entity"], stated["predicate"], question).body)


@st.composite
def questions(draw: st.DrawFn, size: int) -> Question:
    return Question(
        valid_at=START - draw(st.integers(0, 9)) * oracle.DAY if draw(st.booleans()) else DAY,
        at_size=draw(st.one_of(st.just(size), st.integers(1, size))),
        asserted_before=draw(st.sampled_from([None, None, DAY])),
        identity_at_size=draw(st.one_of(st.none(), st.integers(0, size))),
        method=draw(st.sampled_from([None, None, "weighed", "latest", "majority"])),
        when=draw(st.sampled_from(["possible", "possible", "presumed", "definite"])),
    )


@settings(max_examples=100)
@given(data=st.data(), posted=ANY_LOG)
def test_any_receipt_proves_what_the_ledger_answers(signed: Ledgers, data: st.DataObject, posted: list[Event]) -> None:
    name = next(names)
    signed.create(name)
    ledger = signed.get(name)
    record(ledger, [strategies.DECLARE_PLACE, *posted])
    size = ledger.size()
    for _ in range(3):
        question = data.draw(questions(size))
        entity, predicate = (data.draw(st.sampled_from(some)) for some in (strategies.SUBJECTS, ["place", "alias"]))
        try:
            answered = json.loads(ledger.why(entity, predicate, question).body)
        except LedgerError as refusal:
            with pytest.raises(LedgerError, match=refusal.detail):
                ledger.receipt(entity, predicate, question)
            continue
        answer = ledger.receipt(entity, predicate, question)
        proven = receipts.verify(answer.body, keys_of(ledger))
        assert json.loads(json.dumps(proven.belief)) == answered
        state = json.loads(ledger.entity(entity, question).body)
        slot = state["facts"].get(predicate, {"status": "unknown", "values": []})
        assert (proven.belief["status"], proven.belief["canonical"]) == (slot["status"], state["canonical"])
        stated, shown = ([(v["value"], v["probability"]) for v in side["values"]] for side in (proven.belief, slot))
        assert stated == shown


# --- a receipt with something of everything, and what is done to it


def event(number: int, kind: str, **data: Any) -> Event:
    named = {"type": f"factledger.{kind}.v1", "source": "x:one@1", "id": f"n{number}"}
    made = {"specversion": "1.0", **named, "data": data}
    return {**made, "time": "2021-09-05T08:00:00Z"} if number == 5 else made


def said(number: int, value: Any, outlet: str, **more: Any) -> Event:
    method = {"method": {"run": "r1"}} if number == 9 else {}
    content = {"subject": "e:1", "predicate": "place", "value": value, "asserted_at": "2021-09-03", **more}
    return event(number, "assertion", **content, provenance={"outlet": outlet, **method})


RICH = [
    event(0, "predicate", predicate="place", cardinality="one", plausible_values=5),
    event(1, "policy", parameters={"accept": 0.7}),
    said(2, {"entity": "e:8"}, "a:0", subject="e:0"),  # names e:0, which makes that the canonical id of e:1
    event(3, "identity", entities=["e:0", "e:1"], judgement="same"),
    event(4, "agent", agent="a:1", reliability="B"),
    said(5, "here", "a:1", valid="2021-09-02/.."),
    said(6, "there", "a:2", valid="2021-09-01/.."),
    event(7, "agent", agent="a:2", relays="a:3"),
    event(8, "agent", agent="a:3", reliability=0.45),
    said(9, "nowhere", "a:4"),
    event(10, "retraction", where={"run": "r1"}, reason="extractor_error"),
    said(11, "wrong", "a:4"),
    event(12, "retraction", targets=[11], reason="duplicate"),
    said(13, "first", "a:4"),
    said(14, "second", "a:4", corrects=[13], subject="e:9", predicate="alias"),
    said(15, "vague", "a:4"),
    event(16, "retraction", targets=[{"id": "n15"}], reason="other"),
    event(17, "retraction", targets=[16], reason="other"),  # so that `vague` counts after all
    event(18, "agent", agent="a:unrelated", reliability="A"),
    said(19, "elsewhere", "a:5", subject="e:7"),
]


@pytest.fixture
def rich(signed: Ledgers) -> Ledger:
    ledger = signed.get("main")
    assert record(ledger, RICH) == RICH
    return ledger


@pytest.fixture
def receipt(rich: Ledger) -> Any:
    return json.loads(rich.receipt("e:1", "place", Question(valid_at=times.parse_moment("2021-09-04"))).body)


def test_a_receipt_has_every_event_that_the_belief_rests_on(rich: Ledger, receipt: Any) -> None:
    positions = [item["event"]["position"] for item in receipt["events"]]
    assert positions == [*range(18), 19]  # not the rating of an agent who said nothing here
    last = receipt["events"][-1]["event"]
    assert last.keys().isdisjoint({"data", "datasalt"})  # there for its time alone
    recorded = read_log(rich)
    assert [item["event"] for item in receipt["events"][:-1]] == [
        {name: member for name, member in recorded[position].items() if name != "inforce"} for position in range(18)
    ]
    belief = receipt["belief"]
    assert belief == why_of(rich, receipt)
    assert belief["canonical"] == "e:0"
    assert {item["position"]: item["because"]["position"] for item in belief["not_in_force"]} == {9: 10, 11: 12, 13: 14}
    proven = receipts.verify(json.dumps(receipt).encode(), keys_of(rich))
    assert (proven.ledger, proven.count, proven.checkpoint.size) == ("main", 19, 20)
    assert proven.json()["belief"] == belief


RARE = [
    said(0, {"entity": "v:0"}, "a:0", subject="e:7"),
    said(1, {"entity": "v:1"}, "a:1"),
    event(2, "identity", entities=["v:1", "v:0"], judgement="same"),  # so that the value goes by v:0
    said(3, "old", "a:4"),
    said(4, "new", "a:4", corrects=[3], subject="e:9", predicate="alias"),
    event(5, "retraction", where={"subject": "e:9"}, reason="other"),  # what corrects 3 is gone, so 3 counts
    said(6, {"entity": "v:3"}, "a:6"),
    event(7, "identity", entities=["v:3", "v:0"], judgement="same"),
    event(8, "agent", agent="a:1", reliability="A"),
    event(9, "retraction", targets=[7], reason="resolver_error"),
]


def test_at_every_size_and_with_identity_of_every_size(signed: Ledgers) -> None:
    ledger = signed.get("main")
    assert record(ledger, RARE) == RARE
    for size, judged in itertools.product(range(2, len(RARE) + 1), range(len(RARE) + 1)):
        question = Question(valid_at=DAY, at_size=size, identity_at_size=judged)
        proven = receipts.verify(ledger.receipt("e:1", "place", question).body)
        answered = json.loads(ledger.why("e:1", "place", question).body)
        assert json.loads(json.dumps(proven.belief)) == answered


def paths(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every member and item of a document."""
    members = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, member in members:
        yield (*path, name)
        yield from paths(member, (*path, name))


def others(node: Any) -> Iterator[Any]:
    """What could stand in the place of a member."""
    if isinstance(node, bool):
        yield not node
    elif isinstance(node, int | float):
        yield from (node + 1, str(node))
    elif isinstance(node, str):
        yield from {node + "x", "y" + node[1:]} - {node}
    elif node is None:
        yield from (0, "x")
    else:
        yield from (None, {} if isinstance(node, list) else [])


def tampered(document: Any, path: tuple[Any, ...], *, by: Any = ...) -> Any:
    """A copy of a document with one member replaced, or removed."""
    changed = copy.deepcopy(document)
    place = changed
    for name in path[:-1]:
        place = place[name]
    if by is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = by
    return changed


def refusal(document: Any, trusted: Any = ()) -> LedgerError:
    with pytest.raises(LedgerError) as caught:
        receipts.verify(json.dumps(document).encode(), trusted)
    assert caught.value.code == "receipt-unproven"
    return caught.value


def test_every_member_that_is_changed_is_noticed(receipt: Any) -> None:
    receipts.verify(json.dumps(receipt).encode())
    tried = 0
    for path in paths(receipt):
        node = receipt
        for name in path:
            node = node[name]
        for other in others(node):
            refused = refusal(tampered(receipt, path, by=other))
            if path[0] == "events" and len(path) > 1:
                assert refused.errors[0].pointer == f"/events/{path[1]}", path
            tried += 1
    assert tried > 1_000


def test_every_member_that_is_left_out_is_noticed(receipt: Any) -> None:
    for path in paths(receipt):
        if len(path) != 2 or path[0] != "events":
            refusal(tampered(receipt, path))


def test_an_event_that_is_left_out_is_noticed_if_the_belief_is_another_without(receipt: Any) -> None:
    unnoticed = []
    for index, item in enumerate(receipt["events"]):
        changed = tampered(receipt, ("events", index))
        try:
            proven = receipts.verify(json.dumps(changed).encode())
        except LedgerError as refused:
            assert refused.code == "receipt-unproven"
        else:
            assert json.loads(json.dumps(proven.belief)) == receipt["belief"]
            unnoticed.append(item["event"]["position"])
    # What took 15 back was itself taken back: without both, or without the first of them, 15 counts just the same.
    assert unnoticed == [16]


@pytest.mark.parametrize("name", ["type", "belief", "events", "checkpoint", "ledger", "verifier_key"])
def test_nothing_can_be_added(receipt: Any, name: str) -> None:
    assert refusal({**receipt, "more": 1}).errors[0].pointer == "/more"
    again = json.dumps(receipt).replace("{", f'{{"{name}": 1, ', 1).encode()
    with pytest.raises(LedgerError, match="same key twice"):
        receipts.verify(again)
    for path in (("belief",), ("belief", "coordinates"), ("belief", "policy"), ("events", 3), ("events", 3, "event")):
        refusal(tampered(receipt, (*path, "more"), by=1))


def test_another_key_another_ledger_and_nonsense_are_refused(rich: Ledger, receipt: Any) -> None:
    stranger = VerifierKey("main", Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    assert refusal(receipt, [stranger]).errors[0].pointer == "/checkpoint"
    assert receipts.verify(json.dumps(receipt).encode(), [stranger, *keys_of(rich)]).count == len(receipt["events"])
    assert refusal({**receipt, "ledger": "other"}).errors[0].pointer == "/checkpoint"
    for nonsense in (b"", b"\xff", b"[]", b"null", b"{}", b'{"type": NaN}', b"[" * 99 + b"]" * 99):
        with pytest.raises(LedgerError) as caught:
            receipts.verify(nonsense)
        assert caught.value.code == "receipt-unproven"


def test_what_a_dishonest_ledger_signs_is_still_worked_out(signed: Ledgers, rich: Ledger, keeper: Keeper) -> None:
    """Somebody with the key signs events that no ledger would take: the belief is not proven, and nothing breaks."""
    receipt = json.loads(rich.receipt("e:1", "place", Question(valid_at=DAY)).body)
    contents: list[Any] = [{"subject": "e:1"}, [], None, "x", {**RICH[5]["data"], "valid": "nonsense"}]
    for content in contents:
        shown = receipt["events"][5]["event"]
        forged = {**shown, "data": content, "datasalt": base64.b64encode(bytes(32)).decode()}
        forged["datasha256"] = encoding.data_sha256(bytes(32), encoding.canonical_bytes(content))
        envelope = {name: forged[name] for name in forged if name not in ("data", "datasalt")}
        leaf = encoding.canonical_bytes({**envelope, "position": 0})
        signed_note = keeper.sign(Checkpoint("main", 1, naive_root([leaf]))).note.decode()
        alone = [{"event": {**forged, "position": 0}, "hashes": []}]
        belief = copy.deepcopy(receipt["belief"])
        belief["coordinates"] |= {"at_size": 1, "identity_at_size": 1}
        refused = refusal({**receipt, "checkpoint": signed_note, "events": alone, "belief": belief})
        assert refused.errors[0].pointer == ("/belief" if isinstance(content, dict) else "/events/0")


def test_coordinates_must_lie_below_the_checkpoint(rich: Ledger, receipt: Any) -> None:
    for name in ("at_size", "identity_at_size"):
        refused = refusal(tampered(receipt, ("belief", "coordinates", name), by=21))
        assert refused.errors[0].pointer == "/belief/coordinates"


def test_a_later_checkpoint_proves_an_earlier_belief(signed: Ledgers, rich: Ledger) -> None:
    question = Question(valid_at=DAY, at_size=10)
    before = json.loads(rich.receipt("e:1", "place", question).body)
    rich.append([request(said(100, "here", "a:9"))])
    assert signed.sealer is not None
    signed.sealer.seal("main")
    after = json.loads(rich.receipt("e:1", "place", question).body)
    assert after["belief"] == before["belief"]
    assert (before["checkpoint"] == after["checkpoint"]) is False
    for kept in (before, after):
        assert receipts.verify(json.dumps(kept).encode(), keys_of(rich)).belief["values"] == before["belief"]["values"]


def test_after_a_rotation_both_keys_are_good(signed: Ledgers, rich: Ledger, keeper: Keeper) -> None:
    old = keys_of(rich) if rich.describe()["verifier_key"] else keeper.verifier_keys("main")
    rich.receipt("e:1", "place", Question(valid_at=DAY))
    keeper.rotate(lambda: bytes(range(32)))
    assert signed.sealer is not None
    signed.sealer.seal("main")
    receipt = rich.receipt("e:1", "place", Question(valid_at=DAY)).body
    assert keys_of(rich) != old
    assert receipts.verify(receipt, old).key == receipts.verify(receipt, keys_of(rich)).key == str(keys_of(rich)[0])


def test_a_log_that_was_changed_gives_no_receipt(signed: Ledgers, rich: Ledger) -> None:
    rich.receipt("e:1", "place", Question(valid_at=DAY))
    with signed.database.reading() as connection:
        published = tree.published(connection, "main")
    assert published is not None
    for note in (published.note.replace(b"main\n20\n", b"main\n19\n"), b"x"):
        with signed.database.writing() as connection:
            tree.publish(connection, "main", replace(published, note=note))
        with pytest.raises(LedgerError) as caught:
            rich.receipt("e:1", "place", Question(valid_at=DAY, at_size=5))
        assert caught.value.code == "log-corrupt"


# --- which checkpoint


def test_without_a_key_there_is_no_receipt(ledger: Ledger) -> None:
    record(ledger, RICH)
    with pytest.raises(LedgerError) as caught:
        ledger.receipt("e:1", "place", Question())
    assert caught.value.code == "checkpoint-not-found"


def test_a_checkpoint_is_waited_for_and_then_it_is_refused(signed: Ledgers, rich: Ledger, keeper: Keeper) -> None:
    rich.receipt("e:1", "place", Question(valid_at=DAY))
    rich.append([request(said(100, "here", "a:9"))])
    waited: list[float] = []
    keyless = Sealer(signed.database, Keeper(keeper.key_file.with_name("none"), keeper.checkpoints))
    lone = Ledgers(signed.database, signed._sources, waited.append, keyless).get("main")
    with pytest.raises(LedgerError) as caught:
        lone.receipt("e:1", "place", Question(valid_at=DAY))
    assert (caught.value.code, caught.value.retry_after) == ("checkpoint-behind", 1)
    assert 1.5 < sum(waited) < 2.5
    assert lone.receipt("e:1", "place", Question(valid_at=DAY, at_size=20)).size == 20

    def sign(_seconds: float) -> None:  # as the service does meanwhile
        assert signed.sealer is not None
        signed.sealer.seal("main")

    patient = Ledgers(signed.database, signed._sources, sign, keyless).get("main")
    assert receipts.verify(patient.receipt("e:1", "place", Question(valid_at=DAY)).body).checkpoint.size == 21


def test_over_http(signed: Ledgers, rich: Ledger) -> None:
    assert signed.sealer is not None
    signed.sealer.seal("main")
    path = "/v1/ledgers/main/receipt?entity=e:1&predicate=place&valid_at=2021-09-04"
    with TestClient(create_app(signed, Settings(log_level="error"))) as client:
        answer = client.get(path)
        assert answer.status_code == 200
        assert receipts.verify(answer.content, keys_of(rich)).belief["entity"] == "e:1"
        assert (answer.headers["cache-control"], answer.headers["ledger-size"]) == ("no-cache", "20")
        assert client.get(path, headers={"if-none-match": answer.headers["etag"]}).status_code == 304
        known = client.get(path, headers={"accept-datetime": "Tue, 07 Sep 2021 10:02:11 GMT"})
        problem(known, 404, "entity-not-found")
        problem(client.get("/v1/ledgers/main/receipt?predicate=place"), 422, "invalid-request")
        problem(client.get(f"{path}&at_size=21"), 422, "size-out-of-range")
        problem(client.get(f"{path}&when=never"), 422, "invalid-request")
        problem(client.get("/v1/ledgers/main/receipt?entity=e:none&predicate=place"), 404, "entity-not-found")
        described = client.get("/v1/openapi.json").json()
    validator(described, describing.ref("ReceiptAnswer")).validate(answer.json())


def test_verifying_loads_no_database_library() -> None:
    program = "import sys, factledger.receipts; sys.exit(any('sqlalchemy' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
