"""Check a ledger's proofs and checkpoints without trusting whoever keeps it.

It imports nothing of this package and needs nothing but the standard library and an Ed25519 implementation, so that
an auditor can read it in one sitting, copy it out, and run it alone. `ValueError` means: not proven.

Sources: RFC 9162, sections 2.1.3.2 and 2.1.4.2 (the tree is that of RFC 6962); C2SP signed-note; C2SP tlog-checkpoint.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_NOTE_BYTES = 1_000_000
EMPTY_ROOT = hashlib.sha256(b"").digest()
_ED25519 = b"\x01"


# --- the tree


def leaf_hash(leaf: bytes) -> bytes:
    """Return SHA-256(0x00 || leaf)."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def verify_inclusion(leaf: bytes, position: int, size: int, root: bytes, hashes: Sequence[bytes]) -> None:
    """Prove that the leaf of this hash is at a position of the tree of `size` leaves with this root.

    Raises:
        ValueError: it is not proven. Source: RFC 9162, section 2.1.3.2.
    """
    _demand_hashes(leaf, *hashes)
    if not 0 <= position < size:
        raise ValueError("the position is not below the size")
    fn, sn, r = position, size - 1, leaf
    for p in hashes:
        if sn == 0:
            raise ValueError("the proof has too many hashes")
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node_hash(r, p)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise ValueError("the proof has too few hashes")
    if r != root:
        raise ValueError("the proof leads to another root")


def verify_consistency(from_size: int, from_root: bytes, to_size: int, to_root: bytes, hashes: Sequence[bytes]) -> None:
    """Prove that the tree of `to_size` leaves only adds to that of `from_size`.

    Raises:
        ValueError: it is not proven. Source: RFC 9162, section 2.1.4.2; of an empty tree, RFC 6962 has no proof.
    """
    if not 0 <= from_size <= to_size:
        raise ValueError("the sizes do not rise")
    if from_size in (0, to_size):
        if hashes:
            raise ValueError("the proof has too many hashes")
        if (from_size == to_size and from_root != to_root) or (from_size == 0 and from_root != EMPTY_ROOT):
            raise ValueError("the roots differ")
        return
    path = list(hashes)
    if from_size & (from_size - 1) == 0:  # a power of two: its root is a node of the larger tree
        path.insert(0, from_root)
    if not path:
        raise ValueError("the proof has too few hashes")
    _demand_hashes(*path)
    fn, sn = from_size - 1, to_size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            raise ValueError("the proof has too many hashes")
        if fn & 1 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, c)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise ValueError("the proof has too few hashes")
    if (fr, sr) != (from_root, to_root):
        raise ValueError("the proof leads to other roots")


def _demand_hashes(*hashes: bytes) -> None:
    if any(len(given) != 32 for given in hashes):
        raise ValueError("a hash has 32 bytes")


# --- signed notes


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """An Ed25519 public key under a name, as `vkey` text writes it: NAME+ID in hexadecimal+base64 of 0x01 || key."""

    name: str
    public: bytes

    def __post_init__(self) -> None:
        """Refuse what no note could name."""
        if not _is_key_name(self.name) or len(self.public) != 32:
            raise ValueError("a verifier key has a name without blanks or +, and 32 bytes")

    @property
    def id(self) -> bytes:
        """SHA-256(name || 0x0A || 0x01 || public key)[:4]."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    def __str__(self) -> str:
        """Return the vkey text."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(_ED25519 + self.public).decode()}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Return the key of a vkey text.

        Raises:
            ValueError: it is none, or of another algorithm.
        """
        name, *rest = text.split("+", 2)
        if len(rest) != 2:
            raise ValueError("a verifier key has the form NAME+ID+KEY")
        encoded = _base64(rest[1])
        if encoded[:1] != _ED25519:
            raise ValueError("the verifier key is not of Ed25519")
        key = cls(name, encoded[1:])
        if key.id.hex() != rest[0]:
            raise ValueError("the verifier key's id is not that of its name and key")
        return key


def open_note(note: bytes, keys: Iterable[VerifierKey]) -> str:
    """Return the text of a signed note, once one of these keys has signed it and none of them has failed to.

    Raises:
        ValueError: it is no signed note; no known key signed it; or a known key's signature does not fit.
    """
    if len(note) > MAX_NOTE_BYTES:
        raise ValueError("the note is too long")
    whole = note.decode("utf-8")
    if any(character < " " and character != "\n" for character in whole):
        raise ValueError("the note has control characters")
    text, blank, signatures = whole.rpartition("\n\n")
    text += "\n"
    if not blank or not signatures.endswith("\n"):
        raise ValueError("the note has no signatures")
    known = {(key.name, key.id): key for key in keys}
    signed = False
    for line in signatures[:-1].split("\n"):
        dash, name, encoded = [*line.split(" "), "", ""][:3]
        if line != f"— {name} {encoded}" or dash != "—" or not _is_key_name(name):
            raise ValueError("the note has a malformed signature line")
        signature = _base64(encoded)
        if len(signature) < 5:
            raise ValueError("the note has a malformed signature line")
        key = known.get((name, signature[:4]))
        if key is None:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(key.public).verify(signature[4:], text.encode())
        except InvalidSignature:
            raise ValueError(f"the note is not as {name} signed it") from None
        signed = True
    if not signed:
        raise ValueError("the note is signed by no known key")
    return text


def _is_key_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(c.isspace() or c < " " for c in name)


def _base64(text: str) -> bytes:
    decoded = base64.b64decode(text, validate=True)
    if base64.b64encode(decoded).decode() != text:
        raise ValueError("the base64 is not in its one form")
    return decoded


# --- checkpoints


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log states of itself: its first `size` leaves have this root."""

    origin: str
    size: int
    root: bytes

    def __str__(self) -> str:
        """Return the text of the note."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Return the checkpoint that a note's text states; lines after the third are passed over.

        Raises:
            ValueError: it states none.
        """
        origin, size, root, *extensions = [*text.removesuffix("\n").split("\n"), "", ""]
        if not text.endswith("\n") or not origin or "" in extensions[:-2]:
            raise ValueError("a checkpoint has three lines, and none that is empty")
        if not re.fullmatch(r"0|[1-9][0-9]{0,18}", size):
            raise ValueError("a checkpoint's size is a decimal number")
        digest = _base64(root)
        _demand_hashes(digest)
        return cls(origin, int(size), digest)

    @classmethod
    def open(cls, note: bytes, keys: Iterable[VerifierKey], origin: str) -> Checkpoint:
        """Return the checkpoint of a signed note, once its signature and its origin are proven.

        Raises:
            ValueError: those of `open_note` and `parse`; or it is another log's.
        """
        stated = cls.parse(open_note(note, keys))
        if stated.origin != origin:
            raise ValueError("the checkpoint is another log's")
        return stated
