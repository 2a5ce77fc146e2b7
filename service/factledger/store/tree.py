"""The Merkle tree over a log, read from its rows, and the last checkpoint that was signed.

Leaves are hashed from the stored envelopes whenever they are asked for. Above them, the root of every full subtree
of 256, 65,536, … events is kept in a row of its own, so that a proof reads a few hundred rows however long the log
is. A root that is not kept yet is worked out from what is below it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from factledger.core import merkle
from factledger.core.errors import Category, LedgerError
from factledger.core.merkle import TILE_HEIGHT, TILE_WIDTH
from factledger.store import schema
from factledger.store.driver import insert_new_rows

_LEAVES = 4096  # read in one go

_ENVELOPES = (
    select(schema.events.c.envelope)
    .where(
        schema.events.c.ledger_id == bindparam("ledger_id"),
        schema.events.c.position >= bindparam("begin"),
        schema.events.c.position < bindparam("end"),
    )
    .order_by(schema.events.c.position)
)
_SUBTREES = (
    select(schema.subtrees.c.number, schema.subtrees.c.hash)
    .where(
        schema.subtrees.c.ledger_id == bindparam("ledger_id"),
        schema.subtrees.c.level == bindparam("level"),
        schema.subtrees.c.number >= bindparam("begin"),
        schema.subtrees.c.number < bindparam("end"),
    )
    .order_by(schema.subtrees.c.number)
)
_KEPT = select(func.max(schema.subtrees.c.number)).where(
    schema.subtrees.c.ledger_id == bindparam("ledger_id"), schema.subtrees.c.level == 1
)
_CHECKPOINT = select(schema.checkpoints.c.note, schema.checkpoints.c.verifier_keys).where(
    schema.checkpoints.c.ledger_id == bindparam("ledger_id")
)
_ANY_CHECKPOINT = select(schema.checkpoints.c.ledger_id).limit(1)
_FORGET_CHECKPOINT = delete(schema.checkpoints).where(schema.checkpoints.c.ledger_id == bindparam("of"))


@dataclass(frozen=True, slots=True)
class Published:
    """The last checkpoint as it was signed, and the verifier keys that it may be signed with, the current one first."""

    note: bytes
    verifier_keys: tuple[str, ...]


class Tree:
    """The tree over the first `size` events of a ledger, as one snapshot of the database has them."""

    def __init__(self, connection: Connection, ledger_id: str, size: int) -> None:
        """Name the ledger; `size` is one that it has reached."""
        self._connection, self._ledger_id, self.size = connection, ledger_id, size
        self._tiles: dict[tuple[int, int], Sequence[bytes]] = {}
        self.node = merkle.nodes_of_tiles(self.tile)

    def root(self, size: int) -> bytes:
        """Return the root over the first events, up to the tree's own size."""
        return merkle.range_root(self.node, 0, size)

    def tile(self, level: int, index: int) -> Sequence[bytes]:
        """Return the hashes of a tile, as many as the tree has of them.

        Raises:
            LedgerError: `log-corrupt` if events are missing.
        """
        known = self._tiles.get((level, index))
        if known is None:
            begin = index * TILE_WIDTH
            end = max(begin, min(begin + TILE_WIDTH, self.size >> (TILE_HEIGHT * level)))
            known = self._tiles[level, index] = (
                list(self.leaves(begin, end)) if level == 0 else self._subtrees(level, begin, end)
            )
        return known

    def envelopes(self, begin: int, end: int) -> Iterator[bytes]:
        """Yield what the leaves begin .. end - 1 are hashed from, in bounded memory.

        Raises:
            LedgerError: `log-corrupt` if events are missing.
        """
        for first in range(begin, end, _LEAVES):
            last = min(first + _LEAVES, end)
            own = {"ledger_id": self._ledger_id, "begin": first, "end": last}
            found = self._connection.execute(_ENVELOPES, own).scalars().all()
            if len(found) != last - first:
                raise LedgerError(
                    Category.CORRUPT,
                    "log-corrupt",
                    f"Of the events {first} to {last - 1}, {last - first - len(found)} are missing; "
                    "`factledger verify` says more.",
                )
            yield from found

    def leaves(self, begin: int, end: int) -> Iterator[bytes]:
        """Yield the leaf hashes begin .. end - 1, worked out from the stored events."""
        sha256 = hashlib.sha256  # merkle.leaf_hash without the call
        return (sha256(b"\0" + envelope).digest() for envelope in self.envelopes(begin, end))

    def _subtrees(self, level: int, begin: int, end: int) -> list[bytes]:
        own = {"ledger_id": self._ledger_id, "level": level, "begin": begin, "end": end}
        kept = {row.number: row.hash for row in self._connection.execute(_SUBTREES, own)}
        return [
            kept[number] if number in kept else merkle.subtree_root(self.tile(level - 1, number))
            for number in range(begin, end)
        ]

    def edge(self) -> merkle.Edge:
        """Return the right edge of the part of the tree whose subtrees are kept: where keeping goes on."""
        last = self._connection.execute(_KEPT, {"ledger_id": self._ledger_id}).scalar()
        size = 0 if last is None else min((last + 1) * TILE_WIDTH, self.size // TILE_WIDTH * TILE_WIDTH)
        kept = Tree(self._connection, self._ledger_id, size)
        partial, level = [], 0
        while size >> (TILE_HEIGHT * level):
            partial.append(kept.tile(level, size >> (TILE_HEIGHT * (level + 1))))
            level += 1
        return merkle.Edge(size, partial)


def keep(connection: Connection, ledger_id: str, grown: Sequence[tuple[int, int, bytes]]) -> None:
    """Keep the roots of full subtrees, given as (level, number, hash); those that are kept already stay."""
    insert_new_rows(connection, schema.subtrees, [(ledger_id, *subtree) for subtree in grown])


def publish(connection: Connection, ledger_id: str, published: Published) -> None:
    """Put a checkpoint in place of the last one."""
    connection.execute(_FORGET_CHECKPOINT, {"of": ledger_id})
    keys = "".join(f"{key}\n" for key in published.verifier_keys).encode()
    row = {"ledger_id": ledger_id, "note": published.note, "verifier_keys": keys}
    connection.execute(insert(schema.checkpoints), [row])


def is_signed(connection: Connection) -> bool:
    """Tell whether any ledger of the database has a checkpoint."""
    return connection.execute(_ANY_CHECKPOINT).first() is not None


def published(connection: Connection, ledger_id: str) -> Published | None:
    """Return the last checkpoint that was published, or None."""
    row = connection.execute(_CHECKPOINT, {"ledger_id": ledger_id}).one_or_none()
    if row is None:
        return None
    keys = bytes(row.verifier_keys).decode().removesuffix("\n").split("\n")
    return Published(bytes(row.note), tuple(keys))
