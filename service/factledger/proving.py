"""Proving: what lets others check a ledger without trusting it, each from one snapshot of the database."""

from __future__ import annotations

import struct
from typing import Any

from factledger.answers import base64_text
from factledger.core import merkle
from factledger.core.errors import Category, Fault, LedgerError
from factledger.store import log, tree
from factledger.store.engines import Database
from factledger.store.tree import Tree


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
            raise LedgerError(
                Category.NOT_FOUND,
                "checkpoint-not-found",
                "No checkpoint of this ledger has been signed: whoever serves it has no key; `factledger init` makes "
                "one.",
            )
        return published.note

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
