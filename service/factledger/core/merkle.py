"""The RFC 6962 Merkle tree over the log, as far as appending needs it: leaves, and the frontier of full subtrees."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(leaf: bytes) -> bytes:
    """Return SHA-256(0x00 || leaf). Source: RFC 6962, section 2.1."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 || left || right). Source: RFC 6962, section 2.1."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """The roots of the full subtrees of a tree of `size` leaves, largest first: one for each 1 bit of the size."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def append(self, leaf: bytes) -> Frontier:
        """Return the frontier after one more leaf hash."""
        return self.extended((leaf,))

    def extended(self, leaves: Iterable[bytes]) -> Frontier:
        """Return the frontier after more leaf hashes; log2(size) work at most for each, constant on average."""
        hashes, size = [*self.hashes], self.size
        for leaf in leaves:
            hashes.append(leaf)
            complete = size
            while complete & 1:
                right = hashes.pop()
                hashes[-1] = node_hash(hashes[-1], right)
                complete >>= 1
            size += 1
        return Frontier(size, tuple(hashes))

    def root(self) -> bytes:
        """Return the root of the whole tree."""
        if not self.hashes:
            return EMPTY_ROOT
        root = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            root = node_hash(left, root)
        return root

    def to_bytes(self) -> bytes:
        """Return the hashes back to back, 32 bytes each; the size says how many there are."""
        return b"".join(self.hashes)

    @classmethod
    def from_bytes(cls, size: int, stored: bytes) -> Frontier:
        """Return the frontier that `to_bytes` wrote for a tree of `size` leaves.

        Raises:
            ValueError: the number of hashes does not belong to that size.
        """
        if len(stored) != 32 * size.bit_count():
            raise ValueError("the stored frontier does not belong to the stored size")
        return cls(size, tuple(stored[i : i + 32] for i in range(0, len(stored), 32)))
