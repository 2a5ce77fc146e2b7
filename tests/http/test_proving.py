"""Checkpoint, proofs and tiles over HTTP: a client that trusts nothing rebuilds the tree and checks all of it."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import time
from collections.abc import Iterator

import pytest
import rfc8785
from starlette.testclient import TestClient

from factledger.http.app import create_app
from factledger.ledger import Ledgers
from factledger.settings import Settings
from factledger.verifier import Checkpoint, VerifierKey, verify_consistency, verify_inclusion
from tests.checking import naive_root
from tests.http.posting import assertion, pointers, post, problem, size

MAIN = "/v1/ledgers/main"
COUNT = 600


@pytest.fixture
def auditor(signed: Ledgers) -> Iterator[TestClient]:
    """A client of a service that signs."""
    with TestClient(create_app(signed, Settings(log_level="error"))) as served:
        yield served


def record(client: TestClient, count: int) -> None:
    have = size(client)
    assert post(client, [assertion(f"n{number}") for number in range(have, have + count)]).status_code == 201


def checkpoint(client: TestClient, at_least: int) -> Checkpoint:
    """The checkpoint of at least this size, verified; the service may take a second."""
    deadline = time.monotonic() + 5
    while True:
        answer = client.get(f"{MAIN}/checkpoint")
        if answer.status_code == 200:
            key = VerifierKey.parse(client.get(MAIN).json()["verifier_key"])
            stated = Checkpoint.open(answer.content, [key], "main")
            if stated.size >= at_least:
                assert answer.headers["content-type"] == "text/plain; charset=utf-8"
                assert answer.headers["cache-control"] == "no-store"
                return stated
        assert time.monotonic() < deadline
        time.sleep(0.02)


def leaf(event: dict[str, object]) -> bytes:
    """The leaf of an event as read back, by the contract: canonical bytes of all but data, datasalt and inforce."""
    salted = base64.b64decode(str(event["datasalt"])) + rfc8785.dumps(event["data"])  # type: ignore[arg-type]
    assert event["datasha256"] == hashlib.sha256(salted).hexdigest()
    kept = {name: member for name, member in event.items() if name not in ("data", "datasalt", "inforce")}
    return rfc8785.dumps(kept)  # type: ignore[arg-type]


def test_a_client_that_trusts_nothing_checks_everything(auditor: TestClient) -> None:
    record(auditor, 260)
    earlier = checkpoint(auditor, 260)
    record(auditor, COUNT - 260)
    stated = checkpoint(auditor, COUNT)
    lines = auditor.get(f"{MAIN}/events", headers={"accept": "application/x-ndjson"}).text.splitlines()
    leaves = [leaf(json.loads(line)) for line in lines]
    assert stated == Checkpoint("main", COUNT, naive_root(leaves))
    hashed = [hashlib.sha256(b"\0" + one).digest() for one in leaves]

    for position in (0, 255, 256, 599):
        answer = auditor.get(f"{MAIN}/proofs/inclusion?position={position}&size={COUNT}")
        assert "immutable" in answer.headers["cache-control"]
        shown = answer.json()
        assert shown.keys() == {"position", "size", "leaf_hash", "root", "hashes"}
        assert (shown["position"], shown["size"]) == (position, COUNT)
        assert base64.b64decode(shown["leaf_hash"]) == hashed[position]
        proof = [base64.b64decode(one) for one in shown["hashes"]]
        verify_inclusion(hashed[position], position, COUNT, stated.root, proof)
    answer = auditor.get(f"{MAIN}/proofs/consistency?from=260&to={COUNT}")
    assert "immutable" in answer.headers["cache-control"]
    shown = answer.json()
    assert shown.keys() == {"from", "to", "from_root", "to_root", "hashes"}
    proof = [base64.b64decode(one) for one in shown["hashes"]]
    verify_consistency(260, earlier.root, COUNT, stated.root, proof)

    # By default, of the present size.
    latest = auditor.get(f"{MAIN}/proofs/inclusion?position=3")
    assert (latest.json()["size"], latest.headers["cache-control"]) == (COUNT, "no-cache")
    assert auditor.get(f"{MAIN}/proofs/consistency?from=0").json()["hashes"] == []

    # The tiles of a tree of 600, by C2SP tlog-tiles: two full ones and a partial one of leaves, and one above.
    tiles = {
        "0/000": hashed[:256],
        "0/001": hashed[256:512],
        "0/002.p/88": hashed[512:],
        "0/002.p/3": hashed[512:515],
        "1/000.p/2": [naive_root(leaves[:256]), naive_root(leaves[256:512])],
    }
    for path, expected in tiles.items():
        answer = auditor.get(f"{MAIN}/tile/{path}")
        assert answer.content == b"".join(expected), path
        assert answer.headers["content-type"] == "application/octet-stream"
        assert "immutable" in answer.headers["cache-control"]
    bundles = b"".join(auditor.get(f"{MAIN}/tile/entries/{n}").content for n in ("000", "001", "002.p/88"))
    assert bundles == b"".join(struct.pack(">H", len(one)) + one for one in leaves)


@pytest.mark.parametrize("path", ["0/002", "0/002.p/89", "1/000", "1/000.p/3", "2/000.p/1", "entries/002", "0/003.p/1"])
def test_a_tile_that_is_not_there_yet_is_not_found(auditor: TestClient, path: str) -> None:
    record(auditor, COUNT)
    problem(auditor.get(f"{MAIN}/tile/{path}"), 404, "tile-not-found")


@pytest.mark.parametrize(
    "path", ["0", "0/0", "x", "entries", "entries/0", "entriesx/000", "64/000", "0/000.p/0", "0/000/"]
)
def test_a_path_that_names_no_tile_is_not_found(client: TestClient, path: str) -> None:
    problem(client.get(f"{MAIN}/tile/{path}"), 404, "tile-not-found")


def test_proofs_of_what_is_not_there_are_refused(client: TestClient) -> None:
    record(client, 3)
    problem(client.get(f"{MAIN}/proofs/inclusion?position=3"), 404, "event-not-found")
    problem(client.get(f"{MAIN}/proofs/inclusion?position=2&size=2"), 404, "event-not-found")
    for query, pointer in (
        ("inclusion?position=0&size=4", "/query/size"),
        ("consistency?from=4", "/query/from"),
        ("consistency?from=3&to=2", "/query/from"),
        ("consistency?from=1&to=4", "/query/to"),
    ):
        refused = client.get(f"{MAIN}/proofs/{query}")
        problem(refused, 422, "size-out-of-range")
        assert pointers(refused) == [pointer]
    for query in (
        "inclusion",
        "inclusion?position=x",
        "consistency?to=1",
        "consistency?from=-1",
        "consistency?from=1&by=2",
    ):
        problem(client.get(f"{MAIN}/proofs/{query}"), 422, "invalid-request")
    problem(client.get("/v1/ledgers/none/proofs/consistency?from=0"), 404, "ledger-not-found")


def test_whoever_has_no_key_has_no_checkpoint_and_still_proves(client: TestClient) -> None:
    record(client, 2)
    problem(client.get(f"{MAIN}/checkpoint"), 404, "checkpoint-not-found")
    assert client.get(MAIN).json()["verifier_key"] is None
    shown = client.get(f"{MAIN}/proofs/inclusion?position=1").json()
    assert shown["root"] == client.get(MAIN).json()["root"]


def test_an_append_that_would_fork_the_log_is_answered_503(auditor: TestClient, signed: Ledgers) -> None:
    assert signed.sealer is not None
    record(auditor, 3)
    checkpoint(auditor, 3)
    keeper = signed.sealer.keeper
    keeper.sign(Checkpoint("main", 9, bytes(32)))
    with pytest.raises(Exception, match="over 9"):
        signed.sealer.seal("main")
    refused = post(auditor, assertion("more"))
    problem(refused, 503, "checkpoint-contradicted")
    assert int(refused.headers["retry-after"]) > 1
    assert size(auditor) == 3
