"""The RFC 6962 Merkle tree over the log: its frontier for appending, proofs, and the tiles that its hashes come in.

A node is named by (height, index): the root of the full subtree over leaves index * 2**height and the 2**height - 1
that follow. Whatever a proof needs is put together from such nodes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

EMPTY_ROOT = hashlib.sha256(b"").digest()

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT

Node = Callable[[int, int], bytes]  # (height, index) to the hash there
Range = tuple[int, int]  # leaves from the first up to, not including, the second


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


# --- roots and proofs


def full_subtrees(begin: int, end: int) -> Iterator[Range]:
    """Yield (height, index) of the full subtrees that leaves begin .. end - 1 fall into, from left to right.

    `begin` is a multiple of the largest power of two that is not larger than the number of leaves.
    """
    while begin < end:
        height = (end - begin).bit_length() - 1
        yield height, begin >> height
        begin += 1 << height


def range_root(node: Node, begin: int, end: int) -> bytes:
    """Return MTH(D[begin:end]) for a range that a proof may name."""
    hashes = [node(height, index) for height, index in full_subtrees(begin, end)]
    return Frontier(end - begin, tuple(hashes)).root()


def inclusion_proof(node: Node, position: int, size: int) -> list[bytes]:
    """Return PATH(position, D[size]), from the leaf up.

    Raises:
        ValueError: the position is not below the size. Source: RFC 6962, section 2.1.1.
    """
    if not 0 <= position < size:
        raise ValueError("the position is not below the size")
    begin, end, path = 0, size, list[Range]()
    while end - begin > 1:
        middle = begin + _left_width(end - begin)
        if position < middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((begin, middle))
            begin = middle
    return [range_root(node, *sibling) for sibling in reversed(path)]


def consistency_proof(node: Node, from_size: int, to_size: int) -> list[bytes]:
    """Return PROOF(from_size, D[to_size]), from the leaves up; it is empty from an empty tree, and from the same.

    Raises:
        ValueError: the sizes do not rise. Source: RFC 6962, section 2.1.2.
    """
    if not 0 <= from_size <= to_size:
        raise ValueError("the sizes do not rise")
    if from_size in (0, to_size):
        return []
    begin, end, path = 0, to_size, list[Range]()
    while end != from_size:
        middle = begin + _left_width(end - begin)
        if from_size <= middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((begin, middle))
            begin = middle
    if begin:  # else the smaller tree is a node of the larger one, whose hash is known
        path.append((begin, end))
    return [range_root(node, *sibling) for sibling in reversed(path)]


def _left_width(width: int) -> int:
    """Return the largest power of two below a width of at least 2."""
    return 1 << (width - 1).bit_length() - 1


# --- tiles


@dataclass(frozen=True, slots=True)
class Tile:
    """The coordinates of a tile: `width` consecutive nodes of height 8 * level, the first at index * 256.

    Source: C2SP tlog-tiles.
    """

    level: int
    index: int
    width: int = TILE_WIDTH

    @property
    def size(self) -> int:
        """The size of the smallest tree that has this tile."""
        return (self.index * TILE_WIDTH + self.width) << (TILE_HEIGHT * self.level)

    @property
    def path(self) -> str:
        """Where it is served, below `tile/`."""
        return f"{self.level}/{index_path(self.index, self.width)}"


def index_path(index: int, width: int = TILE_WIDTH) -> str:
    """Return the path of an index: groups of three digits, all but the last with an x, and the width if partial."""
    groups = [f"{index % 1000:03d}"]
    while index := index // 1000:
        groups.insert(0, f"x{index % 1000:03d}")
    return "/".join(groups) + ("" if width == TILE_WIDTH else f".p/{width}")


_INDEX_PATH = re.compile(r"((?:x[0-9]{3}/){0,6})([0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


def parse_index_path(path: str) -> tuple[int, int]:
    """Return the index and width that a path names.

    Raises:
        ValueError: it is not in the one form that `index_path` writes.
    """
    match = _INDEX_PATH.fullmatch(path)
    if match is not None:
        index = int(match[1].replace("x", "").replace("/", "") + match[2])
        width = int(match[3] or TILE_WIDTH)
        if index_path(index, width) == path and width <= TILE_WIDTH:
            return index, width
    raise ValueError("must be an index such as 067 or x001/x234/067, with .p/1 to .p/255 if partial")


def parse_tile_path(path: str) -> Tile:
    """Return the tile that a path below `tile/` names.

    Raises:
        ValueError: it is in no form that `Tile.path` writes.
    """
    level, _, rest = path.partition("/")
    if not re.fullmatch(r"[0-9]|[1-5][0-9]|6[0-3]", level):
        raise ValueError("must begin with a level from 0 to 63")
    return Tile(int(level), *parse_index_path(rest))


def subtree_root(hashes: Sequence[bytes]) -> bytes:
    """Return the root of a full subtree, given a power of two of nodes of one height."""
    sha256 = hashlib.sha256  # node_hash without the call: a checkpoint hashes as many nodes as there are new events
    while len(hashes) > 1:
        pairs = iter(hashes)
        hashes = [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
    return hashes[0]


class Edge:
    """The partial tiles at the right edge of a tree: all that growing it needs, and its root."""

    def __init__(self, size: int = 0, partial: Iterable[Sequence[bytes]] = ()) -> None:
        """Take the size, and the partial tile of each level from 0 on; those above may be left out if empty."""
        self.size = size
        self._levels = [list(hashes) for hashes in partial]

    def extend(self, leaves: Iterable[bytes]) -> list[tuple[int, int, bytes]]:
        """Take in the leaf hashes that follow; return (level, index, hash) of each node that completes a tile below."""
        grown: list[tuple[int, int, bytes]] = []
        following = iter(leaves)
        while True:
            partial = self._level(0)
            added = list(islice(following, TILE_WIDTH - len(partial)))
            if not added:
                return grown
            partial += added
            self.size += len(added)
            level = 0
            while len(partial) == TILE_WIDTH:
                above, level = subtree_root(partial), level + 1
                grown.append((level, (self.size >> (TILE_HEIGHT * level)) - 1, above))
                partial.clear()
                partial = self._level(level)
                partial.append(above)

    def frontier(self) -> Frontier:
        """Return the frontier of the whole tree."""
        node = nodes_of_tiles(lambda level, _index: self._levels[level])
        return Frontier(self.size, tuple(node(height, index) for height, index in full_subtrees(0, self.size)))

    def _level(self, level: int) -> list[bytes]:
        if level == len(self._levels):
            self._levels.append([])
        return self._levels[level]

    def root(self) -> bytes:
        """Return the root of the whole tree."""
        return self.frontier().root()


def nodes_of_tiles(tile: Callable[[int, int], Sequence[bytes]]) -> Node:
    """Return the nodes that tiles hold; `tile(level, index)` returns all hashes of a tile that there are."""

    def node(height: int, index: int) -> bytes:
        level, within = divmod(height, TILE_HEIGHT)
        number, begin = divmod(index << within, TILE_WIDTH)
        return subtree_root(tile(level, number)[begin : begin + (1 << within)])

    return node
