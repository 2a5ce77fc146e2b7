"""Signed notes and checkpoints: against what others published, and everything that is not quite one."""

from __future__ import annotations

import ast
import base64
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from factledger import verifier
from factledger.verifier import Checkpoint, VerifierKey, open_note

# The example in the documentation of Go's golang.org/x/mod/sumdb/note, made by that implementation.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
SAID = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
SIGNED = (
    f"{SAID}\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)

ROOT = base64.b64encode(bytes(range(32))).decode()


class Signer:
    """A key under a name, and notes signed with it, made from the specification's own words."""

    def __init__(self, name: str) -> None:
        self.private = Ed25519PrivateKey.generate()
        self.key = VerifierKey(name, self.private.public_key().public_bytes_raw())

    def line(self, text: str) -> str:
        signature = self.key.id + self.private.sign(text.encode())
        return f"— {self.key.name} {base64.b64encode(signature).decode()}\n"

    def note(self, text: str) -> bytes:
        return f"{text}\n{self.line(text)}".encode()


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer("main")


def test_a_note_that_another_implementation_signed_opens() -> None:
    key = VerifierKey.parse(PETER)
    assert (key.name, key.id.hex(), str(key)) == ("PeterNeumann", "c74f20a3", PETER)
    assert open_note(SIGNED.encode(), [key]) == SAID


def test_every_flipped_bit_of_a_note_is_refused() -> None:
    note, keys = SIGNED.encode(), [VerifierKey.parse(PETER)]
    opened = 0
    for bit in range(8 * len(note)):
        changed = bytearray(note)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            opened += open_note(bytes(changed), keys) != ""
        except ValueError:
            continue
    assert opened == 0


def test_unknown_signatures_are_passed_over_and_known_ones_must_fit(signer: Signer) -> None:
    other, text = Signer("main"), "text\n"
    both = f"{text}\n{other.line(text)}{signer.line(text)}".encode()
    assert open_note(both, [signer.key]) == open_note(both, [other.key]) == text
    assert open_note(both, [signer.key, other.key]) == text
    with pytest.raises(ValueError, match="no known key"):
        open_note(other.note(text), [signer.key])
    wrong = f"{text}\n{signer.line('another text')}{other.line(text)}".encode()
    with pytest.raises(ValueError, match="not as main signed it"):
        open_note(wrong, [signer.key, other.key])
    assert open_note(wrong, [other.key]) == text
    many = text + "\n" + "".join(Signer(f"witness{n}").line(text) for n in range(16)) + signer.line(text)
    assert open_note(many.encode(), [signer.key]) == text


def test_the_last_empty_line_parts_text_and_signatures(signer: Signer) -> None:
    text = "a\n\nb\n\n\nc\n"
    assert open_note(signer.note(text), [signer.key]) == text


@pytest.mark.parametrize(
    "broken",
    [
        lambda text, line: text + line,  # no blank line
        lambda text, line: f"{text}\n",
        lambda text, line: f"{text}\n{line[:-1]}",
        lambda text, line: f"{text}\n{line}\n",
        lambda text, line: f"{text}\n{line}{line[2:]}",
        lambda text, line: f"{text}\n-{line[1:]}",
        lambda text, line: f"{text}\n{line.replace(' ', '  ', 1)}",
        lambda text, line: f"{text}\n{line[:-1]} \n",
        lambda text, line: f"{text}\n{line}— + AAAAAAA=\n",
        lambda text, line: f"{text}\n{line}— x AAAA\n",
        lambda text, line: f"{text}\n{line}— x AAAAAAB=\n",  # not the one form of these bytes
        lambda text, line: f"{text}\n{line}— x AAAA AAA=\n",
        lambda text, line: f"{text}\n{line}— a\u00a0b AAAAAAA=\n",
        lambda text, line: f"{text}\n{line}".replace("\n", "\r\n"),
        lambda text, line: f"{text}\n{line}\0",
        lambda text, line: "x" * verifier.MAX_NOTE_BYTES + f"{text}\n{line}",
    ],
)  # fmt: skip
def test_what_is_no_note_is_refused(signer: Signer, broken: object) -> None:
    assert callable(broken)
    note = broken("text\n", signer.line("text\n")).encode()
    with pytest.raises(ValueError, match=r"note|base64"):
        open_note(note, [signer.key])
    with pytest.raises(ValueError, match="utf-8"):
        open_note(signer.note("text\n").replace(b"t", b"\xff"), [signer.key])


def test_verifier_keys_read_as_they_were_written(signer: Signer) -> None:
    assert VerifierKey.parse(str(signer.key)) == signer.key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PeterNeumann",
        PETER[:-1],
        PETER.replace("c74f20a3", "c74f20a4"),
        PETER.replace("+AR", "+AB"),
        f"{PETER} ",
        PETER.replace("PeterNeumann", "Peter Neumann"),
        PETER.replace("PeterNeumann", ""),
        PETER.replace("c7", "C7"),
    ],
)
def test_what_is_no_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"key|base64|padding"):
        VerifierKey.parse(text)


def test_a_checkpoint_reads_as_it_was_written(signer: Signer) -> None:
    # The example of C2SP tlog-checkpoint; its key is not published.
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    stated = Checkpoint.parse(text)
    assert (stated.origin, stated.size, str(stated)) == ("example.com/behind-the-sofa", 20852163, text)
    assert Checkpoint.parse(text + "an extension\nanother\n") == stated
    assert Checkpoint.parse(f"main\n0\n{ROOT}\n").size == 0
    made = Checkpoint("main", 7, bytes(range(32)))
    assert Checkpoint.open(signer.note(str(made)), [signer.key], "main") == made
    with pytest.raises(ValueError, match="another log's"):
        Checkpoint.open(signer.note(str(made)), [signer.key], "other")


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["main"],
        ["main", "7"],
        ["", "7", ROOT],
        ["main", "", ROOT],
        ["main", "07", ROOT],
        ["main", "-7", ROOT],
        ["main", "+7", ROOT],
        ["main", "7.0", ROOT],
        ["main", "٧", ROOT],
        ["main", "9" * 20, ROOT],
        ["main", "7", ""],
        ["main", "7", ROOT[:-1]],
        ["main", "7", "AAAA"],
        ["main", "7", ROOT, ""],
        ["main", "7", ROOT, "", "x"],
    ],
)
def test_what_is_no_checkpoint_is_refused(lines: Sequence[str]) -> None:
    with pytest.raises(ValueError, match=r"checkpoint|base64|padding|hash"):
        Checkpoint.parse("".join(f"{line}\n" for line in lines))
    with pytest.raises(ValueError, match="checkpoint"):
        Checkpoint.parse(f"main\n7\n{ROOT}")


def test_the_verifier_stands_alone() -> None:
    source = Path(verifier.__file__).read_text(encoding="utf-8")
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).partition(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"cryptography"}
