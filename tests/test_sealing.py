"""Checkpoints: in time, of what is committed, and never against what was signed before."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import text

from factledger.core.errors import LedgerError
from factledger.ledger import Ledger, Ledgers
from factledger.sealing import Sealer
from factledger.settings import Settings
from factledger.signing import Keeper
from factledger.store.engines import Database
from factledger.verifier import Checkpoint, VerifierKey, verify_consistency, verify_inclusion
from factledger.wiring import keeper as keeper_of
from factledger.wiring import open_ledgers
from tests.checking import naive_root, request
from tests.conftest import Clock, open_test_ledgers


def event(number: int) -> dict[str, Any]:
    data = {"subject": f"e:{number % 7}", "predicate": "place", "value": number, "provenance": {"outlet": "o:1"}}
    return {"specversion": "1.0", "type": "factledger.assertion.v1", "source": "x:1", "id": f"n{number}", "data": data}


def fill(ledger: Ledger, count: int) -> None:
    size = ledger.size()
    ledger.append([request(*map(event, range(size, size + count)))])
    assert ledger.size() == size + count


def sealer_of(ledgers: Ledgers) -> Sealer:
    assert ledgers.sealer is not None
    return ledgers.sealer


def envelopes(ledgers: Ledgers) -> list[bytes]:
    with ledgers.database.reading() as connection:
        found = connection.execute(text("SELECT envelope FROM events ORDER BY position")).scalars()
        return [bytes(envelope) for envelope in found]


def tampered(ledgers: Ledgers, statement: str, **parameters: Any) -> None:
    with ledgers.database.writing() as connection:
        if ledgers.database.dialect == "sqlite":
            connection.execute(text("DROP TRIGGER IF EXISTS events_no_update"))
            connection.execute(text("DROP TRIGGER IF EXISTS events_no_delete"))
        else:
            connection.execute(text("ALTER TABLE events DISABLE TRIGGER ALL"))
        assert connection.execute(text(statement), parameters).rowcount >= 1


def checked(note: bytes, vkey: str) -> tuple[str, int, bytes]:
    """What a checkpoint states, read and verified by the words of C2SP tlog-checkpoint and signed-note alone."""
    name, key_id, encoded = vkey.split("+", 2)
    algorithm, public = base64.b64decode(encoded)[:1], base64.b64decode(encoded)[1:]
    assert algorithm == b"\x01"
    assert key_id == hashlib.sha256(name.encode() + b"\n\x01" + public).hexdigest()[:8]
    body, signatures = note.decode("utf-8").split("\n\n")
    origin, size, root = body.split("\n")
    assert origin == name
    found = 0
    for line in signatures.removesuffix("\n").split("\n"):
        dash, signer, signature = line.split(" ")
        raw = base64.b64decode(signature, validate=True)
        assert (dash, signer) == ("\u2014", name)
        if raw[:4].hex() == key_id:
            Ed25519PublicKey.from_public_bytes(public).verify(raw[4:], f"{body}\n".encode())
            found += 1
    assert found == 1
    return origin, int(size), base64.b64decode(root, validate=True)


# --- what is signed


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 700])
def test_a_checkpoint_states_size_and_root_of_the_committed_log(signed: Ledgers, keeper: Keeper, count: int) -> None:
    ledger = signed.get("main")
    if count:
        fill(ledger, count)
    sealed = sealer_of(signed).seal("main")
    assert sealed is not None
    described = ledger.describe()
    note = ledger.proofs.checkpoint()
    assert note == sealed.note == keeper.held_file("main").read_bytes()
    assert checked(note, described["verifier_key"]) == ("main", count, naive_root(envelopes(signed)))
    assert described["root"] == base64.b64encode(sealed.checkpoint.root).decode()


def test_proofs_against_checkpoints_of_every_size_verify(signed: Ledgers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sealed now and then, and read by a process that has sealed nothing; subtrees kept or not kept yet."""
    ledger = signed.get("main")
    stated = []
    for count in (3, 252, 1, 300, 468, 1, 5):
        fill(ledger, count)
        if count != 468:
            sealed = sealer_of(signed).seal("main")
            assert sealed is not None
            stated.append(sealed.checkpoint)
    leaves = [hashlib.sha256(b"\0" + envelope).digest() for envelope in envelopes(signed)]
    proofs = ledger.proofs
    for index, later in enumerate(stated):
        for position in {0, 1, 2, 254, 255, 256, 555, 1023, 1024, later.size - 1}:
            if position < later.size:
                shown = proofs.inclusion(position, later.size)
                hashes = [base64.b64decode(text) for text in shown["hashes"]]
                assert base64.b64decode(shown["leaf_hash"]) == leaves[position]
                assert base64.b64decode(shown["root"]) == later.root
                verify_inclusion(leaves[position], position, later.size, later.root, hashes)
        for earlier in [Checkpoint("main", 0, hashlib.sha256().digest()), *stated[: index + 1]]:
            shown = proofs.consistency(earlier.size, later.size)
            assert (base64.b64decode(shown["from_root"]), base64.b64decode(shown["to_root"])) == (
                earlier.root,
                later.root,
            )
            hashes = [base64.b64decode(text) for text in shown["hashes"]]
            verify_consistency(earlier.size, earlier.root, later.size, later.root, hashes)
    with signed.database.reading() as connection:
        kept = connection.execute(text("SELECT level, number, hash FROM subtrees ORDER BY level, number")).all()
    assert [(level, number) for level, number, _ in kept] == [(1, 0), (1, 1), (1, 2), (1, 3)]


def test_sealing_goes_on_where_another_process_stopped(
    signed: Ledgers, database_url: str, clock: Clock, keeper: Keeper
) -> None:
    fill(signed.get("main"), 300)
    sealer_of(signed).seal("main")
    other = open_test_ledgers(database_url, clock, keeper)
    for count in (1, 300, 211):
        fill(signed.get("main"), count)
        sealed = sealer_of(other).seal("main")
        assert sealed is not None
        assert sealed.checkpoint.root == naive_root(envelopes(signed))
        assert sealer_of(signed).seal("main") == sealed
    other.close()


def test_every_ledger_has_its_own_checkpoint(signed: Ledgers) -> None:
    signed.create("second")
    fill(signed.get("second"), 3)
    for name, size in (("main", 0), ("second", 3)):
        sealed = sealer_of(signed).seal(name)
        assert sealed is not None
        vkey = signed.get(name).describe()["verifier_key"]
        assert checked(signed.get(name).proofs.checkpoint(), vkey)[:2] == (name, size)
        assert VerifierKey.parse(vkey).name == name


# --- when


def until(met: Callable[[], bool], seconds: float) -> float:
    began = time.monotonic()
    while not met():
        assert time.monotonic() - began < seconds
        time.sleep(0.01)
    return time.monotonic() - began


def test_a_checkpoint_follows_an_append_within_a_second_or_1024_events(signed: Ledgers, keeper: Keeper) -> None:
    ledger, sealer = signed.get("main"), sealer_of(signed)
    sealer.start()

    def sealed_to(size: int) -> Callable[[], bool]:
        def met() -> bool:
            held = keeper.held("main")
            return held is not None and held.checkpoint.size == size

        return met

    until(sealed_to(0), 5)
    fill(ledger, 1)
    # The promise is one second; a machine that does other things besides is given another.
    assert until(sealed_to(1), 2) > 0.5
    fill(ledger, 1_024)
    assert until(sealed_to(1_025), 1) < 0.75
    signed.create("made")
    until(lambda: keeper.held("made") is not None, 2)
    fill(ledger, 1)
    sealer.close()  # seals what is waiting
    assert sealed_to(1_026)()


def test_a_failure_is_tried_again(signed: Ledgers, keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("factledger.sealing.AGAIN", 0.05)
    sealer = sealer_of(signed)
    fill(signed.get("main"), 2)
    key = keeper.key_file.read_bytes()
    keeper.key_file.write_text("no key")
    sealer.start()
    time.sleep(0.3)
    assert not keeper.held_file("main").exists()
    keeper.key_file.write_bytes(key)
    until(keeper.held_file("main").exists, 5)


def test_appends_and_checkpoints_at_the_same_time(signed: Ledgers, keeper: Keeper) -> None:
    ledger, sealer, done = signed.get("main"), sealer_of(signed), threading.Event()
    roots: dict[int, bytes] = {}

    def seal() -> None:
        while not done.is_set():
            sealed = sealer.seal("main")
            assert sealed is not None
            roots[sealed.checkpoint.size] = sealed.checkpoint.root

    thread = threading.Thread(target=seal)
    thread.start()
    for _ in range(40):
        fill(ledger, 17)
    done.set()
    thread.join()
    sealer.seal("main")
    leaves = envelopes(signed)
    assert len(roots) > 3
    assert all(root == naive_root(leaves[:size]) for size, root in roots.items())


# --- never against what was signed


def refused(act: Callable[[], object], code: str) -> LedgerError:
    with pytest.raises(LedgerError) as raised:
        act()
    assert raised.value.code == code
    return raised.value


def test_a_restored_old_backup_is_neither_signed_nor_appended_to(
    signed: Ledgers, database_url: str, clock: Clock, keeper: Keeper
) -> None:
    """The database is what it was at size 5; the held checkpoint says 9."""
    ledger, sealer = signed.get("main"), sealer_of(signed)
    fill(ledger, 9)
    newest = sealer.seal("main")
    assert newest is not None
    tampered(signed, "DELETE FROM events WHERE position >= 5")
    restored = frontier_of(envelopes(signed))
    tampered(signed, "UPDATE ledgers SET size = 5, projected_size = 5, frontier = :f", f=restored)
    for table in ("assertions", "slots", "names", "subtrees", "checkpoints"):
        with signed.database.writing() as connection:
            connection.execute(text(f"DELETE FROM {table}"))
    again = open_test_ledgers(database_url, clock, keeper)
    refusal = refused(lambda: again.get("main").append([request(event(77))]), "checkpoint-contradicted")
    assert "5 events" in refusal.detail
    assert "over 9" in refusal.detail
    refused(lambda: sealer_of(again).seal("main"), "checkpoint-contradicted")
    assert again.get("main").size() == 5
    assert keeper.held_file("main").read_bytes() == newest.note
    # The process that was running when it happened notices with its next checkpoint.
    refused(lambda: sealer.seal("main"), "checkpoint-contradicted")
    refused(lambda: ledger.append([request(event(78))]), "checkpoint-contradicted")
    # Other ledgers go on.
    again.create("second")
    fill(again.get("second"), 1)
    # Lost for good: a new key, and the old checkpoint stays as it was, under another name.
    keeper.rotate(lambda: os.urandom(32), abandon=True)
    fill(again.get("main"), 6)
    begun = sealer_of(again).seal("main")
    assert begun is not None
    assert begun.checkpoint.size == 11
    assert (keeper.checkpoints / "main.abandoned-9").read_bytes() == newest.note
    described = again.get("main").describe()
    assert checked(begun.note, described["verifier_key"])[1] == 11
    assert len(described["former_verifier_keys"]) == 1
    again.close()


def frontier_of(leaves: list[bytes]) -> bytes:
    """The roots of the full subtrees over these leaves, as the head row keeps them."""
    found, begin = b"", 0
    while begin < len(leaves):
        width = 1 << (len(leaves) - begin).bit_length() - 1
        found += naive_root(leaves[begin : begin + width])
        begin += width
    return found


def test_a_log_that_grew_from_an_old_backup_is_found_out(
    signed: Ledgers, database_url: str, clock: Clock, keeper: Keeper
) -> None:
    """Longer than what is held, and other events below."""
    ledger = signed.get("main")
    fill(ledger, 9)
    sealer_of(signed).seal("main")
    held = keeper.held_file("main").read_bytes()
    changed = envelopes(signed)[4].replace(b"anonymous", b"somebody")
    tampered(signed, "UPDATE events SET envelope = :e WHERE position = 4", e=changed)
    fill(ledger, 3)
    tampered(signed, "UPDATE ledgers SET frontier = :f", f=frontier_of(envelopes(signed)))
    again = open_test_ledgers(database_url, clock, keeper)
    refusal = refused(lambda: again.get("main").append([request(event(77))]), "checkpoint-contradicted")
    assert "below 9" in refusal.detail
    refused(lambda: sealer_of(again).seal("main"), "checkpoint-contradicted")
    assert keeper.held_file("main").read_bytes() == held
    again.close()


def test_what_is_signed_is_worked_out_from_committed_rows(signed: Ledgers, keeper: Keeper) -> None:
    ledger, sealer = signed.get("main"), sealer_of(signed)
    fill(ledger, 3)
    sealer.seal("main")
    fill(ledger, 3)
    changed = envelopes(signed)[4].replace(b"anonymous", b"somebody")
    tampered(signed, "UPDATE events SET envelope = :e WHERE position = 4", e=changed)
    refused(lambda: sealer.seal("main"), "log-corrupt")
    tampered(signed, "DELETE FROM events WHERE position = 4")
    assert "missing" in refused(lambda: sealer.seal("main"), "log-corrupt").detail
    held = keeper.held("main")
    assert held is not None
    assert held.checkpoint.size == 3


def test_other_settings_than_are_held_are_not_signed(
    signed: Ledgers, database_url: str, clock: Clock, keeper: Keeper
) -> None:
    sealer_of(signed).seal("main")
    tampered(signed, "UPDATE ledgers SET strict = NOT strict")
    again = open_test_ledgers(database_url, clock, keeper)
    refused(lambda: again.get("main").append([request(event(1))]), "checkpoint-contradicted")
    again.close()


def test_a_held_checkpoint_that_was_changed_is_not_gone_on_from(signed: Ledgers, keeper: Keeper) -> None:
    fill(signed.get("main"), 2)
    sealer_of(signed).seal("main")
    path = keeper.held_file("main")
    path.write_bytes(path.read_bytes().replace(b"\n2\n", b"\n1\n"))
    refused(lambda: sealer_of(signed).seal("main"), "held-checkpoint-unusable")


# --- the key


def test_the_key_is_for_its_owner_alone_and_nowhere_in_the_database(signed: Ledgers, keeper: Keeper) -> None:
    fill(signed.get("main"), 1)
    sealer_of(signed).seal("main")
    assert stat.S_IMODE(keeper.key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(keeper.checkpoints.stat().st_mode) == 0o700
    assert not keeper.make_key(lambda: bytes(32))
    secret = base64.b64decode(keeper.key_file.read_text().splitlines()[1])[-32:]
    with signed.database.reading() as connection:
        for table in ("ledgers", "events", "subtrees", "checkpoints"):
            for row in connection.execute(text(f"SELECT * FROM {table}")):
                for value in row:
                    stored = bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()
                    assert secret not in stored
                    assert base64.b64encode(secret)[:40] not in stored


def test_after_a_rotation_old_and_new_key_vouch_for_the_same_checkpoint(signed: Ledgers, keeper: Keeper) -> None:
    ledger, sealer = signed.get("main"), sealer_of(signed)
    fill(ledger, 2)
    sealer.seal("main")
    old = ledger.describe()["verifier_key"]
    keeper.rotate(lambda: os.urandom(32))
    sealer.seal("main")  # the running service need not be told
    described = ledger.describe()
    assert described["former_verifier_keys"] == [old] != [described["verifier_key"]]
    both = ledger.proofs.checkpoint()
    for vkey in (old, described["verifier_key"]):
        assert checked(both, vkey)[1] == 2
    fill(ledger, 1)
    sealer.seal("main")
    assert checked(ledger.proofs.checkpoint(), described["verifier_key"])[1] == 3
    with pytest.raises(ValueError, match="no known key"):
        Checkpoint.open(ledger.proofs.checkpoint(), [VerifierKey.parse(old)], "main")
    keeper.rotate(lambda: os.urandom(32))
    sealer.seal("main")
    assert ledger.describe()["former_verifier_keys"] == [described["verifier_key"], old]


def test_a_database_that_a_lost_key_has_signed_gets_no_other_by_itself(
    signed: Ledgers, database_url: str, clock: Clock, keeper: Keeper
) -> None:
    sealer = sealer_of(signed)
    fill(signed.get("main"), 1)
    sealer.seal("main")
    vkey = signed.get("main").describe()["verifier_key"]
    keeper.key_file.unlink()
    assert sealer.make_key(lambda: os.urandom(32)) is False
    assert sealer.seal("main") is None
    fill(signed.get("main"), 1)  # appends go on
    assert signed.get("main").describe()["verifier_key"] == vkey
    refused(lambda: keeper.rotate(lambda: os.urandom(32)), "signing-key-unusable")
    keeper.rotate(lambda: os.urandom(32), abandon=True)
    sealed = sealer.seal("main")
    assert sealed is not None
    assert sealed.checkpoint.size == 2


@pytest.mark.parametrize("content", ["", "no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_file_that_holds_no_key_is_not_used(keeper: Keeper, content: str) -> None:
    keeper.key_file.write_text(content)
    refused(lambda: keeper.verifier_keys("main"), "signing-key-unusable")


def test_where_key_and_checkpoints_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    file = Database(f"sqlite:///{tmp_path}/desk.db")
    kept = keeper_of(file)
    assert (kept.key_file, kept.checkpoints) == (tmp_path / "desk.db.key", tmp_path / "desk.db.checkpoints")
    settings = Settings(signing_key=tmp_path / "k" / "sign.pem")
    kept = keeper_of(file, settings)
    assert (kept.key_file, kept.checkpoints) == (tmp_path / "k" / "sign.pem", tmp_path / "k" / "sign.checkpoints")
    kept = keeper_of(file, Settings(checkpoints=tmp_path / "c"))
    assert (kept.key_file, kept.checkpoints) == (tmp_path / "desk.db.key", tmp_path / "c")
    server = Database("postgresql://me@db.example:6543/facts")
    assert keeper_of(server).key_file == tmp_path / "data" / "factledger" / "db.example-6543-facts.key"
    for database in (file, server):
        database.close()


def test_without_a_key_nothing_is_signed_and_no_file_is_made(sqlite_url: str, tmp_path: Path) -> None:
    before = {path.name for path in tmp_path.iterdir()}
    ledgers = open_ledgers(sqlite_url)
    sealer = sealer_of(ledgers)
    sealer.start()
    fill(ledgers.get("main"), 1)
    sealer.close()
    refused(ledgers.get("main").proofs.checkpoint, "checkpoint-not-found")
    assert ledgers.get("main").describe()["verifier_key"] is None
    ledgers.close()
    assert {path.name for path in tmp_path.iterdir()} - before <= {"ledger.db-wal", "ledger.db-shm"}
