"""Proofs made and proofs verified: against published vectors, another implementation, and every flipped bit."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache, reduce
from pathlib import Path
from typing import Any

import pymerkle
import pytest

from factledger import verifier
from factledger.core import merkle
from factledger.core.merkle import Frontier, Tile, consistency_proof, inclusion_proof, leaf_hash

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "merkle.json").read_text(encoding="utf-8"))
MOST = 256
LEAVES = [leaf_hash(f"leaf {number}".encode()) for number in range(1_000)]


def nodes(height: int, index: int) -> bytes:
    """The nodes of the tree over LEAVES, by definition."""
    return merkle.subtree_root(LEAVES[index << height : (index + 1) << height])


def root(size: int) -> bytes:
    return reduce(Frontier.append, LEAVES[:size], Frontier()).root()


@pytest.fixture(scope="module")
def oracle() -> pymerkle.InmemoryTree:
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    tree.append_entries(f"leaf {number}".encode() for number in range(MOST))
    return tree


# --- published vectors


def hashes(texts: Sequence[str] | None) -> list[bytes]:
    return [base64.b64decode(text) for text in texts or ()]


def proven(verify: Callable[..., None], *given: Any) -> bool:
    try:
        verify(*given)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", VECTORS["inclusion"])
def test_published_vectors_of_inclusion(name: str) -> None:
    vector = VECTORS["inclusion"][name]
    leaf, stated = hashes([vector["leafHash"], vector["root"]])
    given = (leaf, vector["leafIdx"], vector["treeSize"], stated, hashes(vector["proof"]))
    assert proven(verifier.verify_inclusion, *given) is not vector["wantErr"], vector["desc"]


@pytest.mark.parametrize("name", VECTORS["consistency"])
def test_published_vectors_of_consistency(name: str) -> None:
    vector = VECTORS["consistency"][name]
    before, after = hashes([vector["root1"], vector["root2"]])
    given = (vector["size1"], before, vector["size2"], after, hashes(vector["proof"]))
    assert proven(verifier.verify_consistency, *given) is not vector["wantErr"], vector["desc"]


def test_published_vectors_are_all_there() -> None:
    assert (len(VECTORS["inclusion"]), len(VECTORS["consistency"])) == (66, 71)
    for kind in ("inclusion", "consistency"):
        assert {vector["wantErr"] for vector in VECTORS[kind].values()} == {True, False}


def test_published_roots() -> None:
    frontier = Frontier()
    for size, expected in enumerate(VECTORS["roots_by_size"]):
        assert frontier.root().hex() == expected
        if size < len(VECTORS["leaves_hex"]):
            frontier = frontier.append(leaf_hash(bytes.fromhex(VECTORS["leaves_hex"][size])))


# --- all proofs up to a size, against another implementation


def test_all_proofs_of_inclusion(oracle: pymerkle.InmemoryTree) -> None:
    for size in range(1, MOST + 1):
        stated = root(size)
        assert stated == oracle.get_root(size)
        for position in range(size):
            proof = inclusion_proof(nodes, position, size)
            assert oracle.prove_inclusion(position + 1, size).path == [LEAVES[position], *proof]
            verifier.verify_inclusion(LEAVES[position], position, size, stated, proof)


def by_definition(m: int, begin: int, end: int, *, known: bool) -> list[bytes]:
    """SUBPROOF(m, D[begin:end], known), word for word. Source: RFC 6962, section 2.1.2."""
    n = end - begin
    if m == n:
        return [] if known else [mth(begin, end)]
    k = 1 << (n - 1).bit_length() - 1
    if m <= k:
        return [*by_definition(m, begin, begin + k, known=known), mth(begin + k, end)]
    return [*by_definition(m - k, begin + k, end, known=False), mth(begin, begin + k)]


@cache
def mth(begin: int, end: int) -> bytes:
    """MTH(D[begin:end]). Source: RFC 6962, section 2.1."""
    if end - begin == 1:
        return LEAVES[begin]
    k = 1 << (end - begin - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + mth(begin, begin + k) + mth(begin + k, end)).digest()


def test_all_proofs_of_consistency(oracle: pymerkle.InmemoryTree) -> None:
    roots = [root(size) for size in range(MOST + 1)]
    for to_size in range(MOST + 1):
        for from_size in range(to_size + 1):
            proof = consistency_proof(nodes, from_size, to_size)
            if from_size:
                assert proof == by_definition(from_size, 0, to_size, known=True)
                # Theirs is cut into other subtrees; it must speak of the same two trees.
                pymerkle.verify_consistency(
                    roots[from_size], roots[to_size], oracle.prove_consistency(from_size, to_size)
                )
            verifier.verify_consistency(from_size, roots[from_size], to_size, roots[to_size], proof)


def test_what_has_no_proof_is_refused() -> None:
    for position, size in ((0, 0), (1, 1), (-1, 1), (5, 3)):
        with pytest.raises(ValueError, match="position"):
            inclusion_proof(nodes, position, size)
        with pytest.raises(ValueError, match="position"):
            verifier.verify_inclusion(LEAVES[0], position, size, LEAVES[0], [])
    for from_size, to_size in ((2, 1), (-1, 1)):
        with pytest.raises(ValueError, match="rise"):
            consistency_proof(nodes, from_size, to_size)
        with pytest.raises(ValueError, match="rise"):
            verifier.verify_consistency(from_size, LEAVES[0], to_size, LEAVES[0], [])


# --- every other proof is refused


def flips(given: bytes) -> Iterator[bytes]:
    for bit in range(8 * len(given)):
        changed = bytearray(given)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


SIZES = (1, 2, 3, 4, 5, 7, 8, 11, 13, 16)


@pytest.mark.parametrize("size", SIZES)
def test_every_flipped_bit_of_an_inclusion_is_refused(size: int) -> None:
    stated, tried = root(size), 0
    for position in range(size):
        proof = inclusion_proof(nodes, position, size)
        forged = [
            (LEAVES[position], stated, [*proof[:i], f, *proof[i + 1 :]])
            for i in range(len(proof))
            for f in flips(proof[i])
        ]
        forged += [(flipped, stated, proof) for flipped in flips(LEAVES[position])]
        forged += [(LEAVES[position], flipped, proof) for flipped in flips(stated)]
        for leaf, to, path in forged:
            assert not proven(verifier.verify_inclusion, leaf, position, size, to, path)
        tried += len(forged)
        for path in ([*proof, stated], [stated, *proof], proof[:-1], proof[1:], [*proof, b""]):
            assert path == proof or not proven(
                verifier.verify_inclusion, LEAVES[position], position, size, stated, path
            )
        for other in range(size + 2):
            if other != position:
                assert not proven(verifier.verify_inclusion, LEAVES[position], other, size, stated, proof)
    assert tried >= 512 * size


@pytest.mark.parametrize("size", SIZES)
def test_every_flipped_bit_of_a_consistency_is_refused(size: int) -> None:
    after = root(size)
    for from_size in range(1, size + 1):
        before, proof = root(from_size), consistency_proof(nodes, from_size, size)
        forged = [(before, after, [*proof[:i], f, *proof[i + 1 :]]) for i in range(len(proof)) for f in flips(proof[i])]
        forged += [(flipped, after, proof) for flipped in flips(before)]
        forged += [(before, flipped, proof) for flipped in flips(after)]
        for was, now, path in forged:
            assert not proven(verifier.verify_consistency, from_size, was, size, now, path)
        assert len(forged) == 256 * (len(proof) + 2)
        for path in ([*proof, after], [after, *proof], proof[:-1], proof[1:]):
            assert path == proof or not proven(verifier.verify_consistency, from_size, before, size, after, path)


# --- tiles


# From the text of C2SP tlog-tiles, and its neighbourhood.
PATHS = {
    Tile(0, 0): "0/000",
    Tile(0, 999): "0/999",
    Tile(0, 1000): "0/x001/000",
    Tile(3, 1234067): "3/x001/x234/067",
    Tile(63, 67, 1): "63/067.p/1",
    Tile(0, 273, 112): "0/273.p/112",
    Tile(1, 0, 255): "1/000.p/255",
}


@pytest.mark.parametrize(("tile", "path"), PATHS.items(), ids=lambda value: str(value))
def test_tiles_have_the_paths_of_the_specification(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert merkle.parse_tile_path(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "0",
        "0/",
        "0/0",
        "0/00",
        "0/0000",
        "64/000",
        "00/000",
        "-1/000",
        "x/000",
        "0/x000/001",
        "0/001/002",
        "0/x001",
        "0/X001/000",
        "0/000.p/0",
        "0/000.p/256",
        "0/000.p/01",
        "0/000.p/",
        "0/000.p",
        "0/000/p/1",
        "0//000",
        "0/000 ",
        "0/٠٠٠",
        "0/000.p/1/2",
        "0/x001/x002/x003",
        "1/" + "x999/" * 7 + "999",
    ],
)
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="must"):
        merkle.parse_tile_path(path)


def test_a_tile_is_there_once_its_last_node_is() -> None:
    # The example of the specification: a tree of 70,000.
    there = [Tile(0, 272), Tile(0, 273, 112), Tile(1, 0), Tile(1, 1, 17), Tile(2, 0, 1)]
    beyond = [Tile(0, 273, 113), Tile(0, 273), Tile(1, 1, 18), Tile(2, 0, 2), Tile(3, 0, 1)]
    assert [tile.size <= 70_000 for tile in (*there, *beyond)] == [True] * 5 + [False] * 5
    assert Tile(0, 0).size == Tile(1, 0, 1).size == 256


def test_proofs_come_out_of_tiles() -> None:
    def tile(level: int, index: int) -> list[bytes]:
        width = min(256, (len(LEAVES) >> 8 * level) - 256 * index)
        return [nodes(8 * level, 256 * index + i) for i in range(width)]

    read = merkle.nodes_of_tiles(tile)
    assert inclusion_proof(read, 700, 1_000) == inclusion_proof(nodes, 700, 1_000)
    for size in (1, 255, 256, 257, 511, 512, 768, 999, 1_000):
        assert merkle.range_root(read, 0, size) == root(size)
        assert consistency_proof(read, size, 1_000) == consistency_proof(nodes, size, 1_000)
    assert merkle.range_root(read, 0, 0) == merkle.EMPTY_ROOT
