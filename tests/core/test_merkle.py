"""The Merkle tree against its definition, and against another implementation."""

from __future__ import annotations

import hashlib
from functools import reduce

import pymerkle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factledger.core.merkle import EMPTY_ROOT, Frontier, leaf_hash, node_hash
from tests.checking import naive_root

LEAVES = [f"leaf {n}".encode() * (n % 4) for n in range(300)]  # some of them empty, some of them equal


def grown(leaves: list[bytes]) -> Frontier:
    return reduce(Frontier.append, map(leaf_hash, leaves), Frontier())


def test_hashes_are_told_apart_by_their_first_byte() -> None:
    assert hashlib.sha256(b"").digest() == EMPTY_ROOT
    assert leaf_hash(b"a") == hashlib.sha256(b"\x00a").digest()
    assert node_hash(b"a" * 32, b"b" * 32) == hashlib.sha256(b"\x01" + b"a" * 32 + b"b" * 32).digest()
    pair = leaf_hash(b"a") + leaf_hash(b"b")
    assert leaf_hash(pair) != node_hash(pair[:32], pair[32:])


def test_the_frontier_has_the_root_of_the_definition_at_every_size() -> None:
    frontier = Frontier()
    for size, leaf in enumerate([*LEAVES, b""]):
        assert frontier.size == size
        assert len(frontier.hashes) == size.bit_count()
        assert frontier.root() == naive_root(LEAVES[:size])
        frontier = frontier.append(leaf_hash(leaf))


def test_the_frontier_has_the_root_of_another_implementation() -> None:
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    frontier = Frontier()
    for leaf in LEAVES:
        tree.append_entry(leaf)
        frontier = frontier.append(leaf_hash(leaf))
        assert frontier.root() == tree.get_root()
    assert [tree.get_root(size) for size in (1, 2, 3, 64, 255)] == [
        grown(LEAVES[:size]).root() for size in (1, 2, 3, 64, 255)
    ]


@given(st.lists(st.binary(max_size=40), max_size=40), st.lists(st.binary(max_size=40), max_size=10))
def test_a_frontier_goes_on_from_where_it_was_stored(before: list[bytes], after: list[bytes]) -> None:
    stored = grown(before).to_bytes()
    assert len(stored) == 32 * len(before).bit_count()
    read_back = Frontier.from_bytes(len(before), stored)
    assert read_back == grown(before)
    assert reduce(Frontier.append, map(leaf_hash, after), read_back).root() == naive_root([*before, *after])


@pytest.mark.parametrize(
    ("size", "length"), [(0, 32), (1, 0), (1, 31), (1, 64), (3, 32), (4, 64), (7, 64), (2**40, 0), (2**40, 33)]
)
def test_a_stored_frontier_of_another_size_is_refused(size: int, length: int) -> None:
    with pytest.raises(ValueError, match="does not belong"):
        Frontier.from_bytes(size, bytes(length))


def test_appending_leaves_the_earlier_frontier_as_it_is() -> None:
    three = grown([b"a", b"b", b"c"])
    root = three.root()
    assert three.append(leaf_hash(b"d")) == grown([b"a", b"b", b"c", b"d"])
    assert (three.size, three.root()) == (3, root)


def test_order_and_content_of_leaves_decide() -> None:
    roots = {grown(leaves).root() for leaves in ([], [b""], [b"", b""], [b"a", b"b"], [b"b", b"a"], [b"ab"])}
    assert len(roots) == 6
