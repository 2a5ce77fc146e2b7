"""What is kept outside of a database, in files: the key that signs its ledgers, and the last checkpoint of each.

The key file holds one PKCS #8 private key and, after rotations, the former public keys, the latest first; all in PEM.
A log must never sign what contradicts what it has signed before, whatever happens to its database: that is what the
held checkpoints are for. One signer at a time, by a lock on a file.
Sources: C2SP signed-note; C2SP tlog-checkpoint, section "Signatures".
"""

from __future__ import annotations

import base64
import fcntl
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from factledger.core.errors import Category, LedgerError
from factledger.verifier import Checkpoint, VerifierKey

_PEM = re.compile(rb"-----BEGIN ([A-Z ]+)-----\n.*?-----END \1-----\n?", re.DOTALL)
_CHECKPOINT, _SETTINGS = ".checkpoint", ".settings"


@dataclass(frozen=True, slots=True)
class _Keys:
    signing: Ed25519PrivateKey
    former: tuple[Ed25519PublicKey, ...]

    def verifiers(self, name: str) -> list[VerifierKey]:
        public = (self.signing.public_key(), *self.former)
        return [VerifierKey(name, key.public_bytes_raw()) for key in public]

    def line(self, name: str, text: str) -> bytes:
        """Return the signature line under a note's text."""
        key = VerifierKey(name, self.signing.public_key().public_bytes_raw())
        signature = base64.b64encode(key.id + self.signing.sign(text.encode())).decode()
        return f"— {name} {signature}\n".encode()


@dataclass(frozen=True, slots=True)
class Held:
    """The last checkpoint of a ledger, and the note that it was signed in."""

    checkpoint: Checkpoint
    note: bytes


class Keeper:
    """The files of one database's ledgers; safe to use from many threads and processes."""

    def __init__(self, key_file: Path, checkpoints: Path) -> None:
        """Name the key's file, and the directory of the held checkpoints; neither has to be there."""
        self.key_file, self.checkpoints = key_file, checkpoints

    @property
    def has_key(self) -> bool:
        """Tell whether there is a key to sign with."""
        return self.key_file.exists()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other signer out, in any process of this machine, until the block ends."""
        self.checkpoints.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.checkpoints / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # --- the key

    def make_key(self, seed: Callable[[], bytes]) -> bool:
        """Make a key from 32 random bytes unless there is one; tell whether it is new."""
        with self.alone():
            if self.has_key:
                return False
            self._write_keys(Ed25519PrivateKey.from_private_bytes(seed()), ())
            return True

    def rotate(self, seed: Callable[[], bytes], *, abandon: bool = False) -> None:
        """Put a new key in place of the key, which becomes a former one and is not kept.

        Every held checkpoint gets the new key's signature beside that of the old one. With `abandon` the held
        checkpoints are laid aside instead, under their size, and nothing that is signed from then on has to agree
        with them; then the old key need not be there either.

        Raises:
            LedgerError: `signing-key-unusable`, `held-checkpoint-unusable`.
        """
        with self.alone():
            old = None if abandon and not self.has_key else self._keys()
            former = () if old is None else (old.signing.public_key(), *old.former)
            new = _Keys(Ed25519PrivateKey.from_private_bytes(seed()), former)
            held = [path.name.removesuffix(_CHECKPOINT) for path in sorted(self.checkpoints.glob(f"*{_CHECKPOINT}"))]
            if old is None or abandon:
                for name in held:
                    self._lay_aside(name)
            else:
                signed = {name: last for name in held if (last := self._held(name, old)) is not None}
                # Before the key: with the old key's signature they stay good, whichever key is found.
                for name, last in signed.items():
                    self._write(self._path(name, _CHECKPOINT), last.note + new.line(name, str(last.checkpoint)), 0o644)
            self._write_keys(new.signing, new.former)

    def verifier_keys(self, name: str) -> list[VerifierKey]:
        """Return the keys that a ledger's notes may be signed with, the current one first; none without a key.

        Raises:
            LedgerError: `signing-key-unusable`.
        """
        return self._keys().verifiers(name) if self.has_key else []

    def _keys(self) -> _Keys:
        try:
            blocks = [match.group() for match in _PEM.finditer(self.key_file.read_bytes())]
            signing = load_pem_private_key(blocks[0], None)
            former = [load_pem_public_key(block) for block in blocks[1:]]
        except (OSError, ValueError, TypeError, IndexError, UnsupportedAlgorithm):
            signing, former = None, []
        if not isinstance(signing, Ed25519PrivateKey) or not all(isinstance(key, Ed25519PublicKey) for key in former):
            raise LedgerError(
                Category.UNAVAILABLE,
                "signing-key-unusable",
                f"{self.key_file} cannot be read, or holds no Ed25519 key in PEM; put back a copy of it.",
            )
        return _Keys(signing, tuple(key for key in former if isinstance(key, Ed25519PublicKey)))

    def _write_keys(self, signing: Ed25519PrivateKey, former: Sequence[Ed25519PublicKey]) -> None:
        blocks = [signing.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())]
        blocks += [key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for key in former]
        self.key_file.parent.mkdir(parents=True, exist_ok=True)
        self._write(self.key_file, b"".join(blocks), 0o600)

    # --- the held checkpoints; whoever signs is `alone`

    def held(self, name: str) -> Held | None:
        """Return the last checkpoint of a ledger, its signature verified if there is a key; None if there is none.

        Raises:
            LedgerError: `held-checkpoint-unusable` if the file is not as it was signed; `signing-key-unusable`.
        """
        return self._held(name, self._keys() if self.has_key else None)

    def _held(self, name: str, keys: _Keys | None) -> Held | None:
        path = self._path(name, _CHECKPOINT)
        try:
            note = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            checkpoint = _stated(note) if keys is None else Checkpoint.open(note, keys.verifiers(name), name)
        except ValueError as problem:
            raise LedgerError(
                Category.UNAVAILABLE,
                "held-checkpoint-unusable",
                f"{path} is not a checkpoint that this key has signed ({problem}); put back a copy of it.",
            ) from None
        return Held(checkpoint, note)

    def held_file(self, name: str) -> Path:
        """Return where the last checkpoint of a ledger is held."""
        return self._path(name, _CHECKPOINT)

    def sign(self, checkpoint: Checkpoint) -> Held:
        """Sign a checkpoint and hold it; it is on disk when this returns.

        Raises:
            LedgerError: `signing-key-unusable`.
        """
        text, name = str(checkpoint), checkpoint.origin
        note = f"{text}\n".encode() + self._keys().line(name, text)
        self._write(self._path(name, _CHECKPOINT), note, 0o644)
        return Held(checkpoint, note)

    def settings(self, name: str) -> str | None:
        """Return what is held of a ledger's settings, or None."""
        try:
            return self._path(name, _SETTINGS).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def hold_settings(self, name: str, settings: str) -> None:
        """Hold what was decided when a ledger was made, which no event says."""
        self._write(self._path(name, _SETTINGS), settings.encode(), 0o644)

    def _lay_aside(self, name: str) -> None:
        path = self._path(name, _CHECKPOINT)
        try:
            size = str(_stated(path.read_bytes()).size)
        except ValueError:
            size = "unreadable"
        path.rename(self._path(name, f".abandoned-{size}"))
        self._path(name, _SETTINGS).unlink(missing_ok=True)
        _flush_directory(self.checkpoints)

    def _path(self, name: str, suffix: str) -> Path:
        return self.checkpoints / (name + suffix)

    @staticmethod
    def _write(path: Path, content: bytes, mode: int) -> None:
        """Put a file in place in one step: after a power cut there is the old one or the new one."""
        part = path.with_name(path.name + ".part")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _flush_directory(path.parent)


def _stated(note: bytes) -> Checkpoint:
    """Return what a note states, whoever signed it."""
    return Checkpoint.parse(note.decode().rpartition("\n\n")[0] + "\n")


def _flush_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
