"""Proving: what lets others check a ledger without trusting it, each from one snapshot of the database."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any

from factledger import answers, history, receipts
from factledger.answers import base64_text
from factledger.core import merkle
from factledger.core.errors import Category, Fault, LedgerError
from factledger.reading import Snapshot
from factledger.store import log, tree
from factledger.store.engines import Database
from factledger.store.tree import Tree
from factledger.verifier import Checkpoint, VerifierKey


class Proofs:
    """Checkpoint, proofs and tiles of one ledger."""

    def __init__(self, database: Database, name: str) -> None:
        """Take an existing ledger of a database."""
        self._database, self._name = database, name

    def checkpoint(self) -> bytes:
        """Return the last checkpoint that was signed: a C2SP signed note.

        Raises:
            LedgerError: `checkpoint-not-found` if none was signed yet.
        """
        with self._database.reading() as connection:
            published = tree.published(connection, self._name)
        if published is None:
            raise no_checkpoint()
        return published.note

    def signed_size(self) -> int | None:
        """Return how many events the last checkpoint covers; None if none was signed yet.

        Raises:
            LedgerError: `log-corrupt` if it is not as it was signed.
        """
        with self._database.reading() as connection:
            published = tree.published(connection, self._name)
        return None if published is None else self._opened(published)[1].size

    def receipt(self, snapshot: Snapshot, entity: str, predicate: str) -> dict[str, Any]:
        """Return a receipt of the belief in one slot, which a checkpoint covers: what `receipts.verify` takes.

        Raises:
            LedgerError: `entity-not-found`; `checkpoint-not-found`; `log-corrupt` if the log is not what was signed.
        """
        connection, name, at = snapshot.connection, self._name, snapshot.coordinates
        published = tree.published(connection, name)
        if published is None:
            raise no_checkpoint()
        key, checkpoint = self._opened(published)
        canonical, members, found = snapshot.believe(entity, predicate)
        wanted = history.bearing(snapshot, members, predicate)
        last = {at.size - 1} if at.size else set()
        recorded = log.at_positions(connection, name, wanted | last)
        belief = answers.explanation(entity, canonical, at, found, recorded, snapshot.context.policy)
        read = Tree(connection, name, checkpoint.size)
        if read.root(checkpoint.size) != checkpoint.root:
            raise _not_as_signed(name)
        return {
            "type": receipts.TYPE,
            "ledger": name,
            "verifier_key": str(key),
            "checkpoint": published.note.decode(),
            "belief": belief,
            "events": [
                {
                    # The last event may be there for its time alone, and then its content is nobody's business.
                    "event": answers.sealed_event(recorded[position], content=position in wanted),
                    "hashes": [base64_text(h) for h in merkle.inclusion_proof(read.node, position, checkpoint.size)],
                }
                for position in sorted(recorded)
            ],
        }

    def _opened(self, published: tree.Published) -> tuple[VerifierKey, Checkpoint]:
        """Return a checkpoint, and the newest key that has signed it."""
        for text in published.verifier_keys:
            with suppress(ValueError):
                key = VerifierKey.parse(text)
                return key, Checkpoint.open(published.note, [key], self._name)
        raise _not_as_signed(self._name)

    def inclusion(self, position: int, size: int | None = None) -> dict[str, Any]:
        """Return the proof that an event is in the log of that size, by default the present one.

        Raises:
            LedgerError: `size-out-of-range`; `event-not-found` if the position is not below the size.
        """
        with self._database.reading() as connection:
            read = self._tree(log.head(connection, self._name), connection, "size", size)
            if position >= read.size:
                raise LedgerError(Category.NOT_FOUND, "event-not-found", "No event is recorded at this position.")
            return {
                "position": position,
                "size": read.size,
                "leaf_hash": base64_text(read.node(0, position)),
                "root": base64_text(read.root(read.size)),
                "hashes": [base64_text(h) for h in merkle.inclusion_proof(read.node, position, read.size)],
            }

    def consistency(self, from_size: int, to_size: int | None = None) -> dict[str, Any]:
        """Return the proof that the log of one size only adds to that of a smaller one.

        Raises:
            LedgerError: `size-out-of-range`.
        """
        with self._database.reading() as connection:
            read = self._tree(log.head(connection, self._name), connection, "to", to_size)
            if from_size > read.size:
                raise _out_of_range("from", read.size)
            return {
                "from": from_size,
                "to": read.size,
                "from_root": base64_text(read.root(from_size)),
                "to_root": base64_text(read.root(read.size)),
                "hashes": [base64_text(h) for h in merkle.consistency_proof(read.node, from_size, read.size)],
            }

    def tile(self, path: str) -> bytes:
        """Return a tile by its path below `tile/`: hashes, or with `entries/` what the leaves are hashed from.

        Raises:
            LedgerError: `tile-not-found` if the path names none, or the log has not reached it.
            Source: C2SP tlog-tiles.
        """
        entries = path.startswith("entries/")
        try:
            wanted = merkle.parse_tile_path("0" + path.removeprefix("entries") if entries else path)
        except ValueError:
            raise _no_tile() from None
        with self._database.reading() as connection:
            head = log.head(connection, self._name)
            if wanted.size > head.size:
                raise _no_tile()
            read = Tree(connection, self._name, head.size)
            if not entries:
                return b"".join(read.tile(wanted.level, wanted.index)[: wanted.width])
            begin = wanted.index * merkle.TILE_WIDTH
            bundle = read.envelopes(begin, begin + wanted.width)
            return b"".join(struct.pack(">H", len(entry)) + entry for entry in bundle)

    def _tree(self, head: log.Head, connection: Any, name: str, size: int | None) -> Tree:
        if size is not None and size > head.size:
            raise _out_of_range(name, head.size)
        return Tree(connection, self._name, head.size if size is None else size)


def no_checkpoint() -> LedgerError:
    """Return the refusal of what needs a checkpoint where none was signed."""
    return LedgerError(
        Category.NOT_FOUND,
        "checkpoint-not-found",
        "No checkpoint of this ledger has been signed: whoever serves it has no key; `factledger init` makes one.",
    )


def _not_as_signed(name: str) -> LedgerError:
    return LedgerError(
        Category.CORRUPT,
        "log-corrupt",
        f"The events of {name} are not those that its checkpoint was signed for; `factledger verify` says more.",
    )


def _out_of_range(name: str, size: int) -> LedgerError:
    return LedgerError(
        Category.INVALID,
        "size-out-of-range",
        f"`{name}` must be a size that the ledger has reached: 0 to {size}.",
        errors=[Fault(f"/{name}", f"must be an integer from 0 to {size}")],
    )


def _no_tile() -> LedgerError:
    return LedgerError(
        Category.NOT_FOUND, "tile-not-found", "The path names no tile, or one that the log has not reached."
    )
