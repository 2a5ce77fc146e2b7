"""The command line: exit codes, JSON for programs, tables for people, in a database and behind a server."""

from __future__ import annotations

import gzip
import io
import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from factledger.cli import commands, posting, reach, tables, terminal
from factledger.core.errors import Category, LedgerError
from factledger.verifier import VerifierKey
from tests.running import Command, Event, assertion, lines, written

NOBODY = "http://127.0.0.1:1"  # where no server can be


# --- exit codes and errors


def test_every_category_has_an_exit_code() -> None:
    assert terminal.EXIT_CODES.keys() == set(Category)
    assert set(terminal.EXIT_CODES.values()) == {2, 3, 4, 5, 6, 7}


def test_help_is_there_and_no_command_is_a_misuse(run: Command) -> None:
    asked = run("--help")
    assert asked.code == 0
    for name in ("serve", "demo", "init", "post", "show", "why", "timeline", "history", "replay", "rebuild"):
        assert name in asked.out
    assert run().code == 2
    assert run("show", "--help").code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("show",),
        ("show", "e:1", "--no-such-option"),
        ("no-such-command",),
        ("show", "e:1", "--at-size", "many"),
        ("show", "e:1", "--method", "guess"),
    ],
)
def test_misuse_is_2_with_a_sentence_or_a_problem(run: Command, arguments: Sequence[str]) -> None:
    plain = run(*arguments)
    assert plain.code == 2
    assert plain.out == ""
    assert plain.err.startswith("Error: ")
    assert plain.err.count("\n") == 1
    for_programs = run(*arguments, "--json")
    assert for_programs.code == 2
    assert for_programs.out == ""
    assert for_programs.problems[0]["code"] == "invalid-usage"


@pytest.mark.parametrize(
    "options",
    [
        ("--valid-at", "yesterday"),
        ("--known-at", "2021-13-01"),
        ("--asserted-before", "soon"),
        ("--known-at", "2021-09-01", "--at-size", "3"),
        ("--server", "nowhere"),
        ("--database", "mysql://x/y"),
        ("--database", "sqlite:///x.db", "--server", NOBODY),
    ],
)
def test_an_unfit_option_is_2(
    run: Command, sqlite_url: str, options: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    where = () if {"--server", "--database"} & {*options} else ("--database", sqlite_url)
    told = run("show", "e:1", *where, *options, "--json")
    assert (told.code, told.out) == (2, "")
    assert told.problems[0]["exit_code"] == 2


def test_an_unknown_setting_is_2(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTLEDGER_COLOUR", "blue")
    told = run("show", "e:1")
    assert told.code == 2
    assert "FACTLEDGER_COLOUR" in told.err


def test_what_is_not_there_is_3(run: Command, at: tuple[str, str]) -> None:
    assert run("show", "e:nobody", *at).code == 3
    assert run("show", "e:nobody", *at, "--ledger", "nope").code == 3
    told = run("why", "e:nobody", "location", *at, "--json")
    assert told.out == ""
    assert [problem["code"] for problem in told.problems] == ["entity-not-found"]


def test_reading_makes_no_database(run: Command, tmp_path: Path) -> None:
    for command in (("show", "e:1"), ("rebuild",), ("replay", "--to", "2021-09-01")):
        assert run(*command, "--database", f"sqlite:///{tmp_path}/none.db").code == 3
    assert not (tmp_path / "none.db").exists()


def test_forbidden_is_5(run: Command, sqlite_url: str) -> None:
    told = run("serve", "--database", sqlite_url, "--host", "0.0.0.0", "--port", "0", "--json")
    assert told.code == 5
    assert told.problems[0]["code"] == "open-address"


def test_a_server_that_is_not_there_is_6(run: Command, tmp_path: Path) -> None:
    told = run("show", "e:1", "--server", NOBODY)
    assert told.code == 6
    assert NOBODY in told.err
    events = written(tmp_path / "events.jsonl", lines(assertion(1)))
    assert run("post", events, "--server", NOBODY).code == 6


def test_projections_that_differ_from_the_log_are_7(run: Command, sqlite_url: str) -> None:
    run("post", "-", "--database", sqlite_url, stdin=lines(assertion(1), assertion(2)))
    sound = run("rebuild", "--database", sqlite_url, "--json")
    assert sound.code == 0
    assert sound.json["equal"] is True
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE assertions SET outlet = 'outlet:other' WHERE position = 1")
    connection.close()
    damaged = run("rebuild", "--database", sqlite_url)
    assert damaged.code == 7
    assert sound.json["digest"] in damaged.out
    assert run("rebuild", "--database", sqlite_url).code == 0


def test_the_unexpected_is_1_and_short(run: Command, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of cheese")

    monkeypatch.setattr(tables, "believed", fail)
    run("post", "-", "--database", sqlite_url, stdin=lines(assertion(1)))
    told = run("show", "person:a", "--database", sqlite_url)
    assert told.code == 1
    assert "out of cheese" in told.err
    assert "Traceback" not in told.err
    assert "Traceback" in run("show", "person:a", "--database", sqlite_url, "--debug").err


def test_an_interrupt_is_130(run: Command, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "_known_at", interrupt)
    assert run("replay", "--to", "2021-09-01", "--database", sqlite_url).code == 130


# --- init


def test_init_makes_the_database_and_says_where(run: Command, tmp_path: Path) -> None:
    path = tmp_path / "new" / "ledger.db"
    told = run("init", "--database", f"sqlite:///{path}")
    assert told.code == 0
    assert path.exists()
    assert str(path) in told.out
    again = run("init", "--database", f"sqlite:///{path}", "--ledger", "news", "--json")
    assert again.code == 0
    assert again.json["ledger"] == "news"
    assert again.json["size"] == 0


def test_the_default_database_is_in_the_users_data_directory(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("FACTLEDGER_DATABASE_URL", raising=False)
    assert run("init").code == 0
    assert (tmp_path / "factledger" / "ledger.db").exists()


def test_a_password_is_not_shown(run: Command, postgresql_url: str) -> None:
    scheme, _, rest = postgresql_url.partition("://")
    user, _, host = rest.rpartition("@")
    url = f"{scheme}://{user.partition(':')[0]}:secret@{host}"
    told = run("init", "--database", url, "--json")
    assert told.code == 0
    assert "secret" not in told.out


# --- post


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("one.json", json.dumps(assertion(1)).encode()),
        ("pretty.json", json.dumps(assertion(1), indent=2).encode()),
        ("array.json", json.dumps([assertion(1), assertion(2)], indent=1).encode()),
        ("lines.jsonl", lines(assertion(1), "", assertion(2))),
        ("lines.ndjson", lines(assertion(1)).rstrip()),
        ("lines.jsonl.gz", gzip.compress(lines(assertion(1), assertion(2)))),
        ("array.json.gz", gzip.compress(json.dumps([assertion(1)]).encode())),
        ("by-its-first-line", json.dumps([assertion(1), assertion(2)]).encode()),
        ("pretty-by-its-first-line", json.dumps(assertion(1), indent=2).encode()),
        ("compressed-in-secret.jsonl", gzip.compress(lines(assertion(1)))),
    ],
)
def test_files_of_every_kind(run: Command, sqlite_url: str, tmp_path: Path, name: str, body: bytes) -> None:
    file = written(tmp_path / name, body)
    count = 2 if body.count(b"a2") or b"a2" in (gzip.decompress(body) if body[:2] == b"\x1f\x8b" else b"") else 1
    told = run("post", file, "--database", sqlite_url, "--json")
    assert told.code == 0
    assert told.json == {"recorded": count, "duplicate": 0, "rejected": 0, "size": count}
    piped = run("post", "-", "--database", sqlite_url, "--json", stdin=body)
    assert piped.json == {"recorded": 0, "duplicate": count, "rejected": 0, "size": count}


def test_posting_again_changes_nothing(run: Command, at: tuple[str, str], tmp_path: Path) -> None:
    first = written(tmp_path / "first.jsonl", lines(assertion(1), assertion(2)))
    second = written(tmp_path / "second.jsonl", lines(assertion(2), assertion(3)))
    told = run("post", first, second, *at, "--json")
    assert told.json == {"recorded": 3, "duplicate": 1, "rejected": 0, "size": 3}
    again = run("post", first, second, *at)
    assert again.code == 0
    assert again.out == "0 recorded, 4 there already, 0 rejected; the ledger main is at size 3.\n"


def test_good_lines_are_kept_and_bad_ones_named(run: Command, at: tuple[str, str], tmp_path: Path) -> None:
    unfit = assertion(2)
    unfit["data"]["confidence"] = 7
    reused = assertion(1, polarity="denies")
    file = written(
        tmp_path / "mixed.jsonl", lines(assertion(1), unfit, "{not json", "", reused, assertion(3, corrects=[99]))
    )
    told = run("post", file, *at)
    assert told.code == 2
    named = told.err.splitlines()
    assert named[0].startswith(f"{file}:2: /data/confidence must be")
    assert named[1].startswith(f"{file}:3: ")
    assert named[2].startswith(f"{file}:5: /id ")
    assert named[3].startswith(f"{file}:6: /data/corrects/0 ")
    assert len(named) == 4
    assert told.out == "1 recorded, 0 there already, 4 rejected; the ledger main is at size 1.\n"
    for_programs = run("post", file, *at, "--json")
    assert for_programs.json == {"recorded": 0, "duplicate": 1, "rejected": 4, "size": 1}
    assert [problem["at"] for problem in for_programs.problems] == [f"{file}:{line}" for line in (2, 3, 5, 6)]
    codes = [problem["code"] for problem in for_programs.problems]
    assert codes == ["invalid-event", "malformed-json", "id-reused", "invalid-event"]


def test_an_array_names_its_bad_events_by_pointer(run: Command, sqlite_url: str, tmp_path: Path) -> None:
    file = written(tmp_path / "batch.json", json.dumps([assertion(1), {"id": 7}]).encode())
    told = run("post", file, "--database", sqlite_url)
    assert told.code == 2
    assert all(line.startswith(f"{file}:/1: /") for line in told.err.splitlines())
    assert told.out.startswith("1 recorded")


def test_only_conflicts_is_4(run: Command, at: tuple[str, str]) -> None:
    run("post", "-", *at, stdin=lines(assertion(1)))
    told = run("post", "-", *at, stdin=lines(assertion(1, polarity="denies"), assertion(2)))
    assert told.code == 4
    assert told.out.startswith("1 recorded")


def test_what_is_no_file_is_named_before_anything_is_recorded(run: Command, sqlite_url: str, tmp_path: Path) -> None:
    good = written(tmp_path / "good.jsonl", lines(assertion(1)))
    assert run("post", good, tmp_path / "missing.jsonl", "--database", sqlite_url).code == 3
    assert run("post", good, tmp_path, "--database", sqlite_url).code == 2
    assert run("post", good, "--database", sqlite_url, "--json").json["recorded"] == 1


def test_a_file_that_breaks_off_keeps_what_came_before(run: Command, sqlite_url: str, tmp_path: Path) -> None:
    whole = gzip.compress(lines(*(assertion(number, valid_text=str(hash(number))) for number in range(5_000))))
    file = written(tmp_path / "cut.jsonl.gz", whole[: len(whole) // 2])
    told = run("post", file, "--database", sqlite_url, "--json")
    assert told.code == 2
    assert told.json["rejected"] == 1
    assert told.json["recorded"] > 100
    assert told.problems[0]["at"] == f"{file}:{told.json['recorded'] + 1}"
    assert told.problems[0]["code"] == "file-unreadable"


def test_a_line_without_end_is_refused_in_bounded_memory(
    run: Command, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posting, "MAX_LINE_BYTES", 1_000)
    endless = "x" * 10_000
    told = run("post", "-", "--database", sqlite_url, "--json", stdin=lines(endless, assertion(1), endless))
    assert told.json == {"recorded": 1, "duplicate": 0, "rejected": 2, "size": 1}
    assert [problem["at"] for problem in told.problems] == ["-:1", "-:3"]
    monkeypatch.setattr(posting, "MAX_DOCUMENT_BYTES", 1_000)
    array = written(tmp_path / "long.json", json.dumps([assertion(n) for n in range(10)]).encode())
    assert run("post", array, "--database", sqlite_url, "--json").problems[0]["code"] == "input-too-long"


def test_an_event_that_many_escapes_make_long_is_recorded(run: Command, at: tuple[str, str]) -> None:
    event = assertion(1, value="é" * 60_000)
    assert len(lines(event)) > 300_000
    assert run("post", "-", *at, stdin=lines(event)).code == 0


def test_many_batches(run: Command, at: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "BATCH", 7)
    events = [assertion(number) for number in range(20)]
    told = run("post", "-", *at, "--json", stdin=lines(*events, "nothing", *events))
    assert told.json == {"recorded": 20, "duplicate": 20, "rejected": 1, "size": 20}
    assert told.problems[0]["at"] == "-:21"


# --- previews


def rating(grade: str) -> Event:
    data = {"agent": "outlet:1", "reliability": grade}
    return {**assertion(0), "type": "factledger.agent.v1", "id": f"rate-{grade}", "data": data}


def test_a_preview_records_nothing_and_says_what_would_change(run: Command, at: tuple[str, str]) -> None:
    run("post", "-", *at, stdin=lines(assertion(1), assertion(2)))
    bad = assertion(3, predicate="Location")
    dangling = assertion(4, corrects=[9])
    tried = run("post", "-", "--preview", *at, "--json", stdin=lines(assertion(1), rating("A"), bad, dangling))
    assert tried.code == terminal.INVALID
    assert sorted((found["at"], found["code"]) for found in tried.problems) == [
        ("-:3", "invalid-event"),
        ("-:4", "invalid-event"),
    ]
    said = tried.json
    assert (said["recorded"], said["duplicate"], said["rejected"], said["size"]) == (1, 1, 2, 3)
    (change,) = said["changes"]
    assert (change["entity"], change["cause"]["id"], change["position"]) == ("person:a", "rate-A", 2)
    shown = run("post", "-", "--preview", *at, stdin=lines(rating("A")))
    assert shown.code == 0
    assert "Nothing is recorded. Posted now: 1 new, 0 there already, 0 rejected." in shown.out
    assert "rate-A" in shown.out
    assert run("post", "-", *at, stdin=lines(rating("A"))).out.startswith("1 recorded, 0 there already")


def test_a_preview_goes_on_until_its_limit(run: Command, at: tuple[str, str]) -> None:
    run("post", "-", *at, stdin=lines(*(assertion(1, subject=f"person:{n}") | {"id": f"b{n}"} for n in range(5))))
    some = run("post", "-", "--preview", "--limit", "2", *at, stdin=lines(rating("A")))
    assert "There is more" in some.out
    some = run("post", "-", "--preview", "--limit", "4", *at, "--json", stdin=lines(rating("A")))
    assert [change["entity"] for change in some.json["changes"]] == [f"person:{n}" for n in range(4)]
    assert some.json["next"] is not None
    every = run("post", "-", "--preview", *at, "--json", stdin=lines(rating("A")))
    assert len(every.json["changes"]) == 5
    assert every.json["next"] is None


def test_a_difference_names_what_changed_and_why(run: Command, at: tuple[str, str]) -> None:
    run("post", "-", *at, stdin=lines(assertion(1), assertion(2, subject="person:b"), rating("A")))
    shown = run("diff", "--from-size", 1, *at)
    assert shown.code == 0
    assert shown.out.startswith("From size 1 (")
    assert "rate-A" in shown.out
    found = run("diff", "--from-size", 1, "--to-size", 2, *at, "--json").json
    assert [change["entity"] for change in found["changes"]] == ["person:b"]
    some = run("diff", "--from-size", 0, "--limit", 1, *at)
    assert "There is more" in some.out
    same = run("diff", "--from-size", 3, "--to-known-at", "2999-01-01", *at)
    assert "Belief is the same." in same.out


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--from-size", 0, "--from-known-at", "2021-01-01"),
        ("--from-size", 0, "--to-size", 0, "--to-known-at", "2021-01-01"),
        ("--from-known-at", "yesterday"),
        ("--from-size", 7),
    ],
)
def test_a_difference_of_nothing_in_particular_is_2(run: Command, at: tuple[str, str], options: Any) -> None:
    assert run("diff", *options, *at).code == terminal.INVALID


def test_a_preview_that_changes_nothing_says_so(run: Command, at: tuple[str, str]) -> None:
    run("post", "-", *at, stdin=lines(assertion(1)))
    assert "Belief would not change." in run("post", "-", "--preview", *at, stdin=lines(assertion(1))).out


def test_a_preview_tells_what_survives(run: Command, at: tuple[str, str]) -> None:
    same = {"value": {"entity": "place:x"}}
    run("post", "-", *at, stdin=lines(*(assertion(n, **same) for n in range(3))))
    gone = {**rating("A"), "type": "factledger.retraction.v1", "data": {"targets": [0], "reason": "other"}}
    shown = run("post", "-", "--preview", *at, stdin=lines(gone)).out
    assert "Loses support, and keeps its status" in shown
    assert "2 assertions" in shown


def test_a_preview_of_too_much_is_refused(run: Command, at: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "MAX_PREVIEW", 2)
    refused = run("post", "-", "--preview", *at, "--json", stdin=lines(*map(assertion, range(3))))
    assert (refused.code, refused.problems[0]["code"]) == (terminal.INVALID, "preview-too-large")


def test_nothing_to_post_says_where_the_ledger_stands(run: Command, at: tuple[str, str]) -> None:
    assert run("post", "-", *at, "--json").json == {"recorded": 0, "duplicate": 0, "rejected": 0, "size": 0}


def test_a_failure_halfway_says_how_far_it_came(run: Command, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "BATCH", 1)
    append: Any = reach.InDatabase.append

    def fail_second(ledger: Any, sent: Iterator[bytes]) -> Any:
        yield from append(ledger, iter([next(sent)]))
        raise LedgerError(Category.UNAVAILABLE, "database-unavailable", "It is gone.")

    monkeypatch.setattr(reach.InDatabase, "append", fail_second)
    told = run("post", "-", "--database", sqlite_url, stdin=lines(assertion(1), assertion(2)))
    assert told.code == 6
    assert "Until then: 1 recorded" in told.err
    assert "It is gone." in told.err


# --- reading


@pytest.fixture
def told_twice(run: Command, sqlite_url: str) -> None:
    """Two claims about one man, and another spelling of him."""
    first = assertion(1, asserted_at="2021-09-01", valid="2021-09-01/..", value={"entity": "place:panjshir"})
    second = assertion(2, asserted_at="2021-09-05", valid="2021-09-05/..", value={"entity": "place:tajikistan"})
    same = {
        "specversion": "1.0",
        "type": "factledger.identity.v1",
        "source": "human:editor",
        "id": "i1",
        "data": {"entities": ["person:a", "person:b"], "judgement": "same"},
    }
    one = {
        "specversion": "1.0",
        "type": "factledger.predicate.v1",
        "source": "human:editor",
        "id": "p1",
        "data": {"predicate": "location", "cardinality": "one"},
    }
    other = assertion(3, subject="place:panjshir", predicate="name", value="\x1b[31mPanjshir\u200d\r\x9b")
    assert run("post", "-", "--database", sqlite_url, stdin=lines(one, first, second, same, other)).code == 0


@pytest.mark.usefixtures("told_twice")
@pytest.mark.parametrize(
    "command",
    [
        ("show", "person:a", "--valid-at", "2021-09-06"),
        ("show", "person:b", "--valid-at", "2021-09", "--at-size", "4"),
        ("why", "person:a", "location", "--valid-at", "2021-09-06"),
        ("why", "person:a", "location", "--valid-at", "2021-09-06", "--method", "latest"),
        ("why", "person:a", "location", "--valid-at", "2021-09-06", "--when", "definite"),
        ("timeline", "person:a", "location", "--valid-at", "2021-09-06"),
        ("timeline", "person:a", "--valid-at", "2021-09-06", "--asserted-before", "2021-09-05"),
        ("history", "person:a"),
        ("history", "person:a", "location", "--limit", "1"),
        ("history", "person:a", "--from-size", "2", "--identity-at-size", "2"),
        ("replay", "--to", "2999-01-01"),
        ("replay", "--to", "2999-01-01T12:00:00+02:00", "--valid-at", "2021-09-02"),
        ("replay", "--to", "1999-01-01"),
    ],
)
def test_a_database_and_a_server_give_the_same_bytes(
    run: Command, sqlite_url: str, server: str, command: Sequence[str]
) -> None:
    direct = run(*command, "--database", sqlite_url, "--json")
    through = run(*command, "--server", server, "--json")
    assert (direct.code, through.code) == (0, 0)
    assert direct.err == through.err == ""
    assert direct.out == through.out
    assert run(*command, "--server", server).code == 0


@pytest.mark.usefixtures("told_twice")
def test_json_is_the_answer_of_the_ledger_and_nothing_else(run: Command, sqlite_url: str) -> None:
    told = run("show", "person:a", "--valid-at", "2021-09-06", "--database", sqlite_url, "--json")
    assert told.json["facts"]["location"]["values"][0]["value"] == {"entity": "place:tajikistan"}
    assert told.json["coordinates"]["at_size"] == 5
    assert told.err == ""
    earlier = run("show", "person:a", "--valid-at", "2021-09-06", "--at-size", "2", "--database", sqlite_url, "--json")
    assert earlier.json["facts"]["location"]["values"][0]["value"] == {"entity": "place:panjshir"}
    known = run("show", "person:a", "--known-at", "1999-01-01", "--database", sqlite_url, "--json")
    assert known.code == 3
    assert known.problems[0]["code"] == "entity-not-found"


@pytest.mark.usefixtures("told_twice")
def test_people_get_tables(run: Command, sqlite_url: str) -> None:
    at = ("--valid-at", "2021-09-06", "--database", sqlite_url)
    shown = run("show", "person:b", *at).out
    assert "person:b  is person:a" in shown
    assert "location" in shown
    assert "place:tajikistan" in shown
    assert "0.600" in shown
    assert "\x1b" not in shown
    assert all(line == line.rstrip() for line in shown.splitlines())
    why = run("why", "person:a", "location", *at).out
    assert "place:tajikistan is reported (P 0.600)" in why
    assert "Outdated" in why
    assert "outlet:1" in why
    timeline = run("timeline", "person:a", "location", *at).out
    assert "2021-09-01" in timeline
    assert "unknown" in timeline
    history = run("history", "person:a", "--database", sqlite_url).out
    assert "assertion" in history
    assert "place:panjshir 0.600" in history
    assert "There is more: --from-size 2" in run("history", "person:a", "--limit", "1", "--database", sqlite_url).out


@pytest.mark.usefixtures("told_twice")
def test_a_value_has_no_power_over_the_terminal(run: Command, sqlite_url: str) -> None:
    out = run("show", "place:panjshir", "--database", sqlite_url).out
    assert "\x1b" not in out
    assert "\x9b" not in out
    assert "\\x1b[31mPanjshir\u200d\\r\\x9b" in out


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("MBA", "“MBA”"),
        (12, "12"),
        (0.5, "0.5"),
        (True, "true"),
        ({"entity": "place:a"}, "place:a"),
        ({"date": "2021-08"}, "2021-08"),
        ({"text": "ja", "lang": "de"}, "“ja” (de)"),
        ({"quantity": {"amount": 9000, "low": 8500, "high": 9500, "unit": "person"}}, "9000 (8500–9500) person"),
        ({"quantity": {"amount": 3}}, "3"),
    ],
)
def test_values_as_people_write_them(value: Any, shown: str) -> None:
    assert tables.value(value) == shown


@pytest.mark.parametrize(("share", "shown"), [(0, "····"), (0.5, "██··"), (0.53, "██▏·"), (1, "████"), (7, "████")])
def test_bars(share: float, shown: str) -> None:
    assert tables.bar(share, 4, "").plain == shown


@pytest.mark.usefixtures("told_twice")
def test_on_a_wide_terminal_there_are_bars_and_colours(run: Command, sqlite_url: str) -> None:
    answer = run("show", "person:a", "--valid-at", "2021-09-06", "--database", sqlite_url, "--json").json
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system="standard")
    with console.capture() as captured:
        console.print(tables.believed(answer, console))
    assert "██████····" in "".join(part for part in captured.get().split("\x1b[90m")).replace("\x1b[0m", "").replace(
        "\x1b[36m", ""
    )
    assert "\x1b[36m" in captured.get()


def test_what_is_said_while_a_bar_moves_stands_on_lines_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setenv("TERM", "xterm-256color")
    refusal = LedgerError(Category.INVALID, "invalid-event", "Bad.")
    with terminal.progress("posting", "events") as update:
        update(1, 2, 1)
        terminal.report(refusal, json=False, place="file:2")
        terminal.notice("A notice.", json=False)
    for said in ("file:2", "A notice."):
        before = shown.getvalue().split(said)[0]
        assert Text.from_ansi(re.split(r"\r\x1b\[2K|\n", before)[-1]).plain == ""
    with terminal.progress("posting", "events"):
        terminal.notice("long " * 100, json=True)
    assert f'{{"notice":"{"long " * 100}"}}\n' in shown.getvalue()
    terminal.notice("Afterwards.", json=False)
    assert shown.getvalue().endswith("\nAfterwards.\n") or shown.getvalue().endswith("\x1b[2KAfterwards.\n")


def test_a_line_to_paste_is_one_line_however_narrow_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=20)
    monkeypatch.setattr(terminal, "out", lambda: console)
    with console.capture() as captured:
        terminal.say(Text("curl -s " + "'http://127.0.0.1/a b' " * 5), wrap=False)
    assert captured.get().count("\n") == 1


def test_a_standard_input_that_is_closed_is_said(run: Command, sqlite_url: str) -> None:
    told = run("post", "-", "--database", sqlite_url, stdin=None)
    assert (told.code, told.err) == (2, "Error: There is no standard input to read: it is closed.\n")


# --- replay


@pytest.mark.usefixtures("told_twice")
def test_replay_gives_every_entity_in_order_and_a_total(run: Command, sqlite_url: str) -> None:
    told = run("replay", "--to", "2999-01-01", "--database", sqlite_url, "--json")
    *states, last = (json.loads(line) for line in told.out.splitlines())
    assert [state["entity"] for state in states] == ["person:a", "place:panjshir"]
    moment = "2999-01-01T00:00:00.000000Z"
    assert last == {"summary": {"entities": 2, "facts": 2, "size": 5, "known_at": moment, "valid_at": moment}}
    pinned = ("--at-size", "5", "--valid-at", "2999-01-01", "--database", sqlite_url, "--json")
    assert [f"{line}\n" for line in told.out.splitlines()[:-1]] == [
        run("show", entity, *pinned).out for entity in ("person:a", "place:panjshir")
    ]
    table = run("replay", "--to", "2999-01-01", "--database", sqlite_url).out
    assert "place:tajikistan" in table
    assert table.endswith("2 facts about 2 entities, as known on 2999-01-01 UTC, at size 5.\n")
    before = run("replay", "--to", "1999-01-01", "--database", sqlite_url)
    assert before.out == "0 facts about 0 entities, as known on 1999-01-01 UTC, at size 0.\n"


@pytest.mark.usefixtures("told_twice")
def test_replay_exports_the_same_lines(run: Command, sqlite_url: str, tmp_path: Path) -> None:
    told = run("replay", "--to", "2999-01-01", "--database", sqlite_url, "--json").out.splitlines(keepends=True)
    for name in ("states.jsonl", "states.jsonl.gz"):
        file = tmp_path / name
        exported = run("replay", "--to", "2999-01-01", "--database", sqlite_url, "--export", file)
        assert exported.code == 0
        assert exported.out.count("\n") == 1
        body = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        assert body.decode() == "".join(told[:-1])
    assert sorted(path.name for path in tmp_path.glob("states*")) == ["states.jsonl", "states.jsonl.gz"]
    summary = run("replay", "--to", "2999-01-01", "--database", sqlite_url, "--json", "--export", tmp_path / "s.jsonl")
    assert summary.out == told[-1]


@pytest.mark.usefixtures("told_twice")
def test_an_export_that_fails_leaves_nothing(run: Command, sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    told = run("replay", "--to", "2999-01-01", "--database", sqlite_url, "--export", tmp_path / "there")
    assert told.code == 2
    assert "cannot be written" in told.err
    assert list(tmp_path.glob("*.part")) == []


def test_replay_wants_a_date(run: Command, sqlite_url: str) -> None:
    assert run("replay", "--database", sqlite_url).code == 2
    told = run("replay", "--to", "September", "--database", sqlite_url, "--json")
    assert told.code == 2
    assert told.problems[0]["errors"][0]["pointer"] == "--to"


def test_a_long_replay_is_printed_in_parts(run: Command, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "ROWS", 3)
    run("post", "-", "--database", sqlite_url, stdin=lines(*(assertion(n, subject=f"e:{n}") for n in range(7))))
    out = run("replay", "--to", "2999-01-01", "--database", sqlite_url).out
    assert out.count("best value") == 3
    assert out.count("place:") == 7


# --- verify


def test_verify_says_what_is_right_and_what_is_wrong(run: Command, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/desk.db"
    made = run("init", "--database", url, "--json").json
    file = written(tmp_path / "some.jsonl", lines(*(assertion(number) for number in range(5))))
    assert run("post", file, "--database", url).code == 0
    held = tmp_path / "desk.db.checkpoints" / "main.checkpoint"
    kept = written(tmp_path / "kept", held.read_bytes())
    options = ("--database", url, "--checkpoint", kept, "--key", made["verifier_key"])
    good = run("verify", *options, "--json")
    assert (good.code, good.json["verified"], good.json["size"]) == (0, True, 5)
    assert {"from": str(kept), "size": 5} in good.json["checkpoints"]
    assert "Everything that is stored is what the log says." in run("verify", *options).out

    with sqlite3.connect(tmp_path / "desk.db") as connection:
        connection.execute("DROP TRIGGER events_no_update")
        connection.execute("UPDATE events SET id = 'other' WHERE position = 3")
    connection.close()
    bad = run("verify", *options, "--json")
    assert (bad.code, bad.json["verified"], bad.json["first_bad_position"]) == (7, False, 3)
    told = run("verify", *options)
    assert told.code == 7
    assert "position 3: the column for id is not what the envelope says" in told.out
    assert "The first bad position is 3." in told.out

    assert run("verify", "--database", url, "--key", "no key").code == 2
    assert run("verify", "--database", url, "--checkpoint", tmp_path / "none").code == 2
    assert run("verify", "--database", f"sqlite:///{tmp_path}/none.db").code == 3
    assert run("verify", "--database", url, "--ledger", "none").code == 3
    nonsense = written(tmp_path / "nonsense", b"nonsense\n")
    assert run("verify", "--database", url, "--checkpoint", nonsense).code == 7


def test_a_receipt_is_verified_without_the_ledger(
    run: Command, at: tuple[str, str], sqlite_url: str, tmp_path: Path
) -> None:
    key = run("init", "--database", sqlite_url, "--json").json  # makes the key
    file = written(tmp_path / "some.jsonl", lines(*(assertion(number) for number in range(5))))
    assert run("post", file, "--database", sqlite_url).code == 0
    vkey = run("signing-key", "--database", sqlite_url, "--json").json["verifier_key"]
    told = run("receipt", "person:a", "location", "--valid-at", "2021-09-10", *at)
    assert told.code == 0
    kept = written(tmp_path / "receipt.json", told.out.encode())
    Path(key["signing_key"]).unlink()
    (tmp_path / "ledger.db").rename(tmp_path / "gone.db")
    good = run("verify", "--receipt", kept, "--key", vkey, "--json")
    assert (good.code, good.json["verified"], good.json["event_count"], good.json["size"]) == (0, True, 5, 5)
    assert good.json["belief"] == told.json["belief"]
    shown = run("verify", "--receipt", kept, "--key", vkey).out
    assert "The belief is what these events say.\n" in shown
    assert "give the one that you trust with --key" in run("verify", "--receipt", kept).out

    forged = written(tmp_path / "forged.json", told.out.replace('"a3"', '"a9"').encode())
    bad = run("verify", "--receipt", forged, "--key", vkey, "--json")
    assert (bad.code, bad.out, bad.problems[0]["code"]) == (7, "", "receipt-unproven")
    assert bad.problems[0]["errors"][0]["pointer"] == "/events/3"
    assert "/events/3 is not proven" in run("verify", "--receipt", forged).err
    assert run("verify", "--receipt", kept, "--key", VerifierKey("main", bytes(32))).code == 7
    assert run("verify", "--receipt", written(tmp_path / "none", b"")).code == 7
    assert run("verify", "--receipt", tmp_path / "nowhere").code == 2
    assert run("verify", "--receipt", kept, "--key", "no key").code == 2
    assert run("verify", "--receipt", kept, *at).code == 2
    assert run("verify", "--receipt", kept, "--checkpoint", kept).code == 2


def test_verify_changes_nothing(run: Command, tmp_path: Path) -> None:
    empty = tmp_path / "empty.db"
    sqlite3.connect(empty).close()
    empty.touch()
    refused = run("verify", "--database", f"sqlite:///{empty}", "--json")
    assert (refused.code, refused.problems[0]["code"]) == (6, "schema-older")


def test_verify_through_a_server(run: Command, server: str, sqlite_url: str, tmp_path: Path) -> None:
    file = written(tmp_path / "some.jsonl", lines(*(assertion(number) for number in range(5))))
    assert run("post", file, "--server", server).code == 0
    unsigned = run("verify", "--server", server)
    assert unsigned.code == 0
    assert "nothing was signed" in unsigned.out
    assert run("init", "--database", sqlite_url).code == 0  # makes the key, and signs
    good = run("verify", "--server", server, "--json")
    assert (good.code, good.json["size"]) == (0, 5)
    assert good.json["checkpoints"] == [{"from": "the server's checkpoint", "size": 5}]
    assert "The log is what was signed." in run("verify", "--server", server).out

    path = sqlite_url.removeprefix("sqlite:///")
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TRIGGER events_no_update")
        connection.execute("UPDATE events SET data = replace(data, 'place:2', 'place:9') WHERE position = 2")
    connection.close()
    bad = run("verify", "--server", server, "--json")
    assert (bad.code, bad.json["first_bad_position"]) == (7, 2)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE events SET envelope = replace(envelope, 'anonymous', 'somebody') WHERE position = 4")
    connection.close()
    assert {finding["where"] for finding in run("verify", "--server", server, "--json").json["findings"]} == {
        "events",
        "checkpoint",
        "ledgers",
    }


def test_signing_key_is_shown_and_rotated(run: Command, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/desk.db"
    first = run("init", "--database", url, "--json").json
    assert first["signing_key"] == str(tmp_path / "desk.db.key")
    shown = run("signing-key", "--database", url, "--json").json
    assert shown["verifier_key"] == first["verifier_key"]
    rotated = run("signing-key", "--rotate", "--database", url, "--json").json
    assert rotated["former_verifier_keys"] == [first["verifier_key"]]
    assert run("signing-key", "--abandon", "--database", url).code == 2
    assert run("verify", "--database", url).code == 0
    Path(shown["signing_key"]).unlink()
    assert run("signing-key", "--rotate", "--database", url).code == 6
    assert "not here" in run("init", "--database", url).out
    assert run("signing-key", "--rotate", "--abandon", "--database", url).code == 0
    assert run("verify", "--database", url).code == 0
