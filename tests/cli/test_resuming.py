"""What a posting leaves behind: rejected lines, and a mark. Killed at any line and run again, it loses nothing."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from factledger.cli import reach, resuming
from factledger.client import Ledger as Remote
from factledger.core.errors import Category, LedgerError
from factledger.http.app import create_app
from factledger.ledger import Ledgers
from factledger.settings import Settings
from factledger.wiring import open_ledgers
from tests.client.flaky import flaky
from tests.running import Command, assertion, lines, written
from tests.serving import serving

SERVICE = Path(__file__).resolve().parents[2] / "service"
PROGRAM = """
import sys
from factledger.cli import main, resuming
resuming.SAVE_SECONDS = 0.02
sys.exit(main())
"""


def events_and_faults(count: int) -> list[bytes]:
    """Lines, every seventh of which is refused: no JSON, an unknown field, an id that is used twice."""
    made = []
    for n in range(count):
        kinds = [b'{"broken"  \n', lines(assertion(n, mood="bad")), lines(assertion(0, valid_text="other"))]
        made.append(kinds[n % 3] if n % 7 == 6 else lines(assertion(n)))
    return made


def good(made: list[bytes]) -> list[str]:
    return [f"a{n}" for n in range(len(made)) if n % 7 != 6]


def bad(made: list[bytes]) -> list[bytes]:
    return [line for n, line in enumerate(made) if n % 7 == 6]


# --- killed at a random line


@pytest.fixture(params=["sqlite", "postgresql", "server"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[tuple[str, str], Ledgers]]:
    """The options that lead to a ledger, and the ledgers to look into meanwhile."""
    kind = "sqlite" if request.param == "server" else request.param
    url: str = request.getfixturevalue(f"{kind}_url")
    ledgers = open_ledgers(url)
    if request.param == "server":
        with serving(_app(ledgers)) as there:
            yield ("--server", there), ledgers
    else:
        yield ("--database", url), ledgers
        ledgers.close()


def _app(ledgers: Ledgers) -> Any:
    return create_app(ledgers, Settings(log_level="error"))


def start(log: Path, *arguments: object) -> subprocess.Popen[bytes]:
    with log.open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(SERVICE)},
            stdout=subprocess.PIPE,
            stderr=errors,
        )


def until(reached: Any, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not reached() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_killed_at_a_random_line_and_run_again(target: tuple[tuple[str, str], Ledgers], tmp_path: Path) -> None:
    at, ledgers = target
    ledger = ledgers.get("main")
    made = events_and_faults(9_000)
    whole = made[:4_000], made[4_000:]
    first = written(tmp_path / "first.jsonl", b"".join(whole[0]))
    second = written(tmp_path / "second.jsonl.gz", gzip.compress(b"".join(whole[1])))
    mark, rejects = tmp_path / "mark.json", tmp_path / "rejects.jsonl"
    command = ("post", first, second, *at, "--json", "--resume", mark, "--rejects", rejects)
    generator = random.Random(os.urandom(8))
    killed = 0
    for limit in sorted(generator.sample(range(1, 7_000), 4)):
        process = start(tmp_path / "log", *command)
        until(lambda limit=limit: ledger.size() >= limit, process)
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= 2, "it was never interrupted"
    marked = json.loads(mark.read_bytes())
    assert not marked["complete"]
    process = start(tmp_path / "log", *command)
    out, err = process.communicate(timeout=120)[0], (tmp_path / "log").read_bytes()
    assert process.returncode == 2, err
    told = json.loads(out)
    assert told["rejected"] == len(bad(made))
    assert told["recorded"] + told["duplicate"] == len(good(made))
    assert told["size"] == ledger.size() == len(good(made))
    # Killed before the first batch was answered as a whole, it has nothing to go on after.
    assert (b"Going on after" in err) == bool(marked["files"])
    # One service over a database: two would each want to seal its log.
    with nullcontext(at[1]) if at[0] == "--server" else serving(_app(ledgers)) as url, Remote(url) as remote:
        assert [event["id"] for event in remote.events()] == good(made)
    assert rejects.read_bytes() == b"".join(bad(made))
    reasons = [json.loads(line) for line in resuming.reasons_beside(rejects).read_bytes().splitlines()]
    assert [reason["line"] for reason in reasons] == list(range(1, len(bad(made)) + 1))
    numbers = [n + 1 for n in range(9_000) if n % 7 == 6]
    places = [f"{first}:{n}" if n <= 4_000 else f"{second}:{n - 4_000}" for n in numbers]
    assert [reason["at"] for reason in reasons] == places


def test_an_interrupt_says_what_is_recorded(target: tuple[tuple[str, str], Ledgers], tmp_path: Path) -> None:
    at, ledgers = target
    ledger = ledgers.get("main")
    made = [lines(assertion(n)) for n in range(12_000)]
    file, mark = written(tmp_path / "events.jsonl", b"".join(made)), tmp_path / "mark.json"
    process = start(tmp_path / "log", "post", file, *at, "--json", "--resume", mark)
    until(lambda: mark.exists() and b'"line"' in mark.read_bytes(), process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)[0], (tmp_path / "log").read_bytes()
    assert process.returncode == 130, err
    told = json.loads(out)
    assert told["recorded"] <= ledger.size() < 12_000
    assert told["recorded"] - 1 <= json.loads(mark.read_bytes())["files"][str(file)]["line"] <= told["recorded"]
    process = start(tmp_path / "log", "post", file, *at, "--resume", mark)
    out, err = process.communicate(timeout=60)[0], (tmp_path / "log").read_bytes()
    assert process.returncode == 0, err
    assert ledger.size() == 12_000
    assert out.endswith(b"the ledger main is at size 12,000.\n")
    recorded, duplicate = (int(out.split()[n].replace(b",", b"")) for n in (0, 2))
    assert recorded + duplicate == 12_000
    # What was answered for is not sent again: only what was under way can be there already.
    assert duplicate <= 5_000


# --- connections that break


@pytest.mark.parametrize("seed", range(2))
def test_a_server_that_is_away_for_moments_is_waited_for(
    run: Command, server: str, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from factledger.client import posting, service

    monkeypatch.setattr(service, "_backoff", lambda _: 0.001)
    monkeypatch.setattr(posting, "BATCH_EVENTS", 50)
    made = events_and_faults(500)
    file, rejects = written(tmp_path / "events.jsonl", b"".join(made)), tmp_path / "rejects.jsonl"
    with flaky(server, seed, breaks=8, upto=3_000) as way, Remote(server) as remote:
        way.left, breaks = 0, way.left
        monkeypatch.setattr(reach.BehindServer, "append", _breaking(way, breaks))
        told = run("post", file, "--server", way.url, "--json", "--rejects", rejects)
        assert (way.left, told.code) == (0, 2)
        assert [event["id"] for event in remote.events()] == good(made)
    assert told.json["recorded"] + told.json["duplicate"] == len(good(made))
    assert rejects.read_bytes() == b"".join(bad(made))


def _breaking(way: Any, breaks: int) -> Any:
    """Break connections only from the first append on: what comes before it is to fail at once."""
    append = reach.BehindServer.append

    def breaking(ledger: Any, sent: Iterator[bytes]) -> Any:
        way.left = breaks
        return append(ledger, sent)

    return breaking


def test_patience_is_an_option(run: Command, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "events.jsonl", lines(assertion(1)))
    with flaky(server, 1, breaks=0, upto=10) as way:
        monkeypatch.setattr(reach.BehindServer, "append", _breaking(way, 10_000))
        began = time.monotonic()
        assert run("post", file, "--server", way.url, "--patience", 0.3).code == 6
        assert time.monotonic() - began < 10
    assert run("post", file, "--server", server, "--patience", "-1").code == 2


# --- rejected lines


def test_rejected_lines_can_be_mended_and_posted(run: Command, at: tuple[str, str], tmp_path: Path) -> None:
    made = events_and_faults(15)
    unended = b"[1]"  # a last line without an end, and no event
    file, rejects = written(tmp_path / "events.jsonl", b"\n" + b"".join(made) + unended), tmp_path / "r.jsonl"
    told = run("post", file, *at, "--json", "--rejects", rejects)
    assert told.code == 2
    assert rejects.read_bytes() == b"".join(bad(made)) + unended + b"\n"
    reasons = [json.loads(line) for line in resuming.reasons_beside(rejects).read_bytes().splitlines()]
    assert [(reason["line"], reason["at"], reason["code"]) for reason in reasons] == [
        (1, f"{file}:8", "malformed-json" if 6 % 3 == 0 else ""),
        (2, f"{file}:15", "invalid-event"),
        (3, f"{file}:17", "invalid-event"),
    ]
    assert reasons[1]["errors"][0]["pointer"] == "/data/mood"
    again = run("post", rejects, *at, "--json")
    assert again.json["rejected"] == 3
    mended = written(tmp_path / "mended.jsonl", rejects.read_bytes().splitlines()[1].replace(b'"mood": "bad", ', b""))
    mended.write_bytes(lines(assertion(13)))
    assert run("post", mended, *at).code == 0


def test_nothing_rejected_leaves_empty_files(run: Command, at: tuple[str, str], tmp_path: Path) -> None:
    rejects = written(tmp_path / "r.jsonl", b"old\n")
    assert run("post", "-", *at, "--rejects", rejects, stdin=lines(assertion(1))).code == 0
    assert rejects.read_bytes() == resuming.reasons_beside(rejects).read_bytes() == b""


def test_items_of_an_array_are_rejected_as_lines(run: Command, at: tuple[str, str], tmp_path: Path) -> None:
    unfit = {"b": 1, "a": 2}
    file = written(tmp_path / "array.json", json.dumps([assertion(1), unfit], indent=1).encode())
    rejects = tmp_path / "r.jsonl"
    assert run("post", file, *at, "--rejects", rejects).code == 2
    assert json.loads(rejects.read_bytes()) == unfit


def test_a_line_too_long_to_be_held_leaves_its_reason(
    run: Command, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from factledger.cli import posting

    monkeypatch.setattr(posting, "MAX_LINE_BYTES", 1_000)
    rejects = tmp_path / "r.jsonl"
    body = lines("x" * 2_000, assertion(1), "{")
    run("post", "-", "--database", sqlite_url, "--rejects", rejects, stdin=body)
    assert rejects.read_bytes() == b"{\n"
    reasons = [json.loads(line) for line in resuming.reasons_beside(rejects).read_bytes().splitlines()]
    assert [(reason["line"], reason["at"]) for reason in reasons] == [(None, "-:1"), (1, "-:3")]


@pytest.mark.parametrize("clash", ["events.jsonl", "rejects.jsonl", "rejects.jsonl.reasons.jsonl"])
def test_what_is_posted_is_never_written_over(run: Command, sqlite_url: str, tmp_path: Path, clash: str) -> None:
    file = written(tmp_path / "events.jsonl", lines(assertion(1)))
    rejects = tmp_path / ("events.jsonl" if clash == "events.jsonl" else "rejects.jsonl")
    told = run("post", file, "--database", sqlite_url, "--rejects", rejects, "--resume", tmp_path / clash, "--json")
    assert told.code == 2
    assert told.problems[0]["code"] == "invalid-option"
    assert file.read_bytes() == lines(assertion(1))
    assert run("post", "-", "--database", sqlite_url, "--resume", tmp_path / "m").code == 2
    assert run("post", "-", "--database", sqlite_url, "--preview", "--rejects", tmp_path / "r").code == 2
    assert not (tmp_path / "r").exists()


def test_what_cannot_be_written_is_said_before_anything_is_recorded(
    run: Command, sqlite_url: str, tmp_path: Path
) -> None:
    file = written(tmp_path / "events.jsonl", lines(assertion(1)))
    nowhere = tmp_path / "nowhere" / "file"
    for option in ("--rejects", "--resume"):
        told = run("post", file, "--database", sqlite_url, option, nowhere, "--json")
        assert (told.code, told.problems[0]["code"]) == (2, "file-unwritable")
    assert run("post", file, "--database", sqlite_url, "--json").json["recorded"] == 1


# --- the mark


@pytest.fixture
def half(run: Command, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of ten events, three of which were posted when the database went away."""
    append: Any = reach.InDatabase.append

    def failing(ledger: Any, sent: Iterator[bytes]) -> Any:
        yield from append(ledger, iter([next(sent) for _ in range(3)]))
        raise LedgerError(Category.UNAVAILABLE, "database-unavailable", "It is gone.")

    file = written(tmp_path / "events.jsonl", b"".join(lines(assertion(n)) for n in range(10)))
    with monkeypatch.context() as patched:
        patched.setattr(reach.InDatabase, "append", failing)
        told = run("post", file, "--database", sqlite_url, "--resume", tmp_path / "mark", "--json")
    assert told.code == 6
    assert told.json["recorded"] == 3
    return file


def sent_by(run: Command, monkeypatch: pytest.MonkeyPatch, *command: object) -> tuple[Any, int]:
    """What a command says, and how many events it sent."""
    append: Any = reach.InDatabase.append
    counted = 0

    def counting(ledger: Any, sent: Iterator[bytes]) -> Any:
        def passed() -> Iterator[bytes]:
            nonlocal counted
            for line in sent:
                counted += 1
                yield line

        return append(ledger, passed())

    with monkeypatch.context() as patched:
        patched.setattr(reach.InDatabase, "append", counting)
        told = run(*command)
    return told, counted


def test_only_the_rest_is_sent(
    run: Command, sqlite_url: str, half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("post", half, "--database", sqlite_url, "--resume", tmp_path / "mark", "--json")
    told, sent = sent_by(run, monkeypatch, *command)
    assert (told.code, sent) == (0, 7)
    assert told.json == {"recorded": 10, "duplicate": 0, "rejected": 0, "size": 10}
    # Done: another run sends what was added since, and counts that alone.
    with half.open("ab") as file:
        file.write(lines(assertion(10), assertion(11)))
    told, sent = sent_by(run, monkeypatch, *command)
    assert sent == 2
    assert told.json == {"recorded": 2, "duplicate": 0, "rejected": 0, "size": 12}
    told, sent = sent_by(run, monkeypatch, *command)
    assert (sent, told.json) == (0, {"recorded": 0, "duplicate": 0, "rejected": 0, "size": 12})


def test_a_last_line_that_is_still_being_written_is_read_again(
    run: Command, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = lines(assertion(2))
    file = written(tmp_path / "events.jsonl", lines(assertion(1)) + line[:40])
    command = ("post", file, "--database", sqlite_url, "--resume", tmp_path / "mark", "--json")
    assert run(*command).json["rejected"] == 1
    with file.open("ab") as growing:
        growing.write(line[40:])
    told, sent = sent_by(run, monkeypatch, *command)
    assert (sent, told.json["recorded"]) == (1, 1)


@pytest.mark.parametrize("how", ["altered", "shorter", "replaced", "compressed"])
def test_a_file_that_is_not_what_it_was_is_sent_whole(
    run: Command, sqlite_url: str, half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    body = half.read_bytes()
    first = lines(assertion(99))
    bodies = {
        "altered": first[: len(first) - 1] + body[len(lines(assertion(0))) - 1 :],
        "shorter": body[:50],
        "replaced": b"".join(lines(assertion(n)) for n in range(20, 30)),
        "compressed": gzip.compress(body)[:30],
    }
    half.write_bytes(bodies[how])
    told, sent = sent_by(run, monkeypatch, "post", half, "--database", sqlite_url, "--resume", tmp_path / "mark")
    assert "is not what it was" in told.err
    assert sent == {"altered": 10, "shorter": 1, "replaced": 10, "compressed": 0}[how]


def test_what_is_compressed_later_is_still_the_same(
    run: Command, sqlite_url: str, half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half.write_bytes(gzip.compress(half.read_bytes()))
    _, sent = sent_by(run, monkeypatch, "post", half, "--database", sqlite_url, "--resume", tmp_path / "mark")
    assert sent == 7


def test_another_ledger_is_sent_everything(
    run: Command, half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = f"sqlite:///{tmp_path}/other.db"
    run("post", "-", "--database", other, stdin=lines(*(assertion(n) for n in range(50, 60))))  # no smaller
    told, sent = sent_by(run, monkeypatch, "post", half, "--database", other, "--resume", tmp_path / "mark")
    assert sent == 10
    assert "is of another ledger" in told.err


def test_a_ledger_that_was_restored_from_before_is_sent_everything(
    run: Command, sqlite_url: str, half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    state = json.loads(mark.read_bytes())
    state["summary"]["size"] = 5
    mark.write_text(json.dumps(state))
    _, sent = sent_by(run, monkeypatch, "post", half, "--database", sqlite_url, "--resume", mark)
    assert sent == 10


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"version": 99}', b"\xff"])
def test_a_mark_that_cannot_be_read_is_no_mark(
    run: Command, sqlite_url: str, half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    mark = written(tmp_path / "mark", body)
    told, sent = sent_by(run, monkeypatch, "post", half, "--database", sqlite_url, "--resume", mark, "--json")
    assert (told.code, sent) == (0, 10)
    assert "no mark that can be read" in json.loads(told.err.splitlines()[0])["notice"]


def test_rejected_lines_that_are_gone_are_found_again(
    run: Command, sqlite_url: str, half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rejects = tmp_path / "r.jsonl"
    command = ("post", half, "--database", sqlite_url, "--resume", tmp_path / "mark", "--rejects", rejects)
    told, sent = sent_by(run, monkeypatch, *command)
    assert sent == 10, "it was begun without --rejects"
    assert "does not fit" in told.err


def test_a_document_is_read_as_a_whole(
    run: Command, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path / "array.json", json.dumps([assertion(1), assertion(2)], indent=1).encode())
    command = ("post", file, "--database", sqlite_url, "--resume", tmp_path / "mark", "--json")
    assert run(*command).json["recorded"] == 2
    assert sent_by(run, monkeypatch, *command)[1] == 0
    file.write_bytes(json.dumps([assertion(1), assertion(2), assertion(3)], indent=1).encode())
    assert sent_by(run, monkeypatch, *command)[1] == 3
    with file.open("ab") as grown:
        grown.write(b"\n")
    assert sent_by(run, monkeypatch, *command)[1] == 3
