"""FollowTheMoney statements: values, who is who, and what a data set says no longer."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from docs.importers import ftm
from factledger.client import Ledger
from tests.importers.conftest import SAMPLES, Run

MARCH, APRIL = SAMPLES / "statements-march.csv", SAMPLES / "statements-april.csv"
LISTED, REGISTERED = "ftm:aa-17", "ftm:bb-9"

Export = Callable[..., Path]


def statement(**cells: str) -> dict[str, str]:
    """A row of an export."""
    blank = dict.fromkeys(("origin", "lang", "original_value"), "")
    usual = {"canonical_id": "x-1", "entity_id": "x-1", "prop": "name", "prop_type": "name", "schema": "Person"}
    usual |= {"value": "X", "dataset": "xx", "external": "f", "first_seen": "2023-01-01T06:00:00", "id": "s1"}
    return blank | usual | {"last_seen": "2023-03-01T06:00:00"} | cells


@pytest.fixture
def export(tmp_path: Path) -> Export:
    """Write rows as an export."""

    def write(name: str, *rows: dict[str, str]) -> Path:
        file = tmp_path / name
        with file.open("w", encoding="utf-8", newline="") as lines:
            writer = csv.DictWriter(lines, list(rows[0]), dialect=csv.unix_dialect)
            writer.writeheader()
            writer.writerows(rows)
        return file

    return write


def values(remote: Ledger, entity: str, predicate: str, **at: Any) -> list[Any]:
    """What is believed, if anything."""
    fact = remote.believed(entity, **at).get(predicate)
    return [one.value for one in fact.values] if fact else []


def test_canonical_ids_merge_what_the_data_sets_say(run: Run, remote: Ledger) -> None:
    run(ftm, MARCH)
    state = remote.believed(REGISTERED)
    assert state.canonical == "ftm:NK-made-up"
    assert list(state.members) == ["ftm:NK-made-up", LISTED, REGISTERED]
    assert {one["date"] for one in values(remote, LISTED, "birth_date")} == {"1961-05", "1962"}
    (owner,) = values(remote, "ftm:bb-own-1", "owner")
    assert owner in ({"entity": REGISTERED}, {"entity": "ftm:NK-made-up"})


def test_a_canonical_id_that_changes_parts_them_again(run: Run, remote: Ledger) -> None:
    run(ftm, MARCH)
    size = remote.size()
    run(ftm, APRIL, previous=MARCH)
    assert remote.believed(REGISTERED).canonical == REGISTERED
    assert values(remote, LISTED, "birth_date") == [{"date": "1961-05"}]
    assert remote.believed(REGISTERED, at_size=size).canonical == "ftm:NK-made-up"


def test_what_was_not_seen_in_the_last_run_has_ended(run: Run, remote: Ledger) -> None:
    run(ftm, MARCH)
    assert values(remote, LISTED, "topics", valid_at="2023-03-15") == ["sanction"]
    run(ftm, APRIL, previous=MARCH)
    assert values(remote, LISTED, "topics", valid_at="2023-03-01T12:00:00Z") == ["sanction"]
    assert values(remote, LISTED, "topics", valid_at="2023-03-15") == []
    explained = remote.why(LISTED, "topics", valid_at="2023-03-15")
    assert len(explained.outdated) == 1


def test_what_is_not_in_the_file_any_more_has_ended(run: Run, remote: Ledger) -> None:
    run(ftm, MARCH)
    assert values(remote, "ftm:bb-own-1", "start_date", valid_at="2023-03-15") == [{"date": "2010"}]
    run(ftm, APRIL, previous=MARCH)
    assert values(remote, "ftm:bb-own-1", "start_date", valid_at="2023-02-15") == [{"date": "2010"}]
    assert values(remote, "ftm:bb-own-1", "start_date", valid_at="2023-03-15") == []


def test_what_comes_back_holds_again(run: Run, remote: Ledger, export: Export) -> None:
    other = statement(id="s2", value="Y")
    first = export("1.csv", statement(), other)
    second = export("2.csv", statement(), other | {"last_seen": "2023-04-01T06:00:00"})
    back = {"first_seen": "2023-05-01T06:00:00", "last_seen": "2023-05-01T06:00:00"}
    third = export("3.csv", statement(**back), other | {"last_seen": "2023-05-01T06:00:00"})
    run(ftm, first)
    run(ftm, second, previous=first)
    run(ftm, third, previous=second)
    days = ("2023-02-15", "2023-04-15", "2023-05-15")
    assert [sorted(values(remote, "ftm:x-1", "name", valid_at=day)) for day in days] == [["X", "Y"], ["Y"], ["X", "Y"]]


@pytest.mark.parametrize(
    ("kind", "cell", "expected"),
    [
        ("name", "X", "X"),
        ("date", "1961", {"date": "1961"}),
        ("date", "1961-05-07", {"date": "1961-05-07"}),
        ("date", "2011-02-03T10:00:00", {"date": "2011-02-03T10:00:00Z"}),
        ("date", "2011-02-03T10:00", {"date": "2011-02-03T10:00:00Z"}),
        ("entity", "y-2", {"entity": "ftm:y-2"}),
        ("number", "12", 12),
        ("number", "12.5", 12.5),
        ("number", "some 12", "some 12"),
        ("country", "fr", "fr"),
    ],
)
def test_values(kind: str, cell: str, expected: Any) -> None:
    assert ftm.value(statement(prop_type=kind, value=cell)) == expected


def test_times_without_an_offset_are_utc(run: Run, remote: Ledger, export: Export) -> None:
    run(ftm, export("1.csv", statement(lang="rus", original_value="Х.", origin="crawler")))
    (event,) = remote.events(subject="ftm:x-1")
    data = event["data"]
    assert data["asserted_at"] == "2023-01-01T06:00:00Z"
    assert data["value"] == {"text": "X", "lang": "rus"}
    assert (data["provenance"]["outlet"], data["provenance"]["evidence"]) == ("dataset:xx", {"quote": "Х."})
    assert data["provenance"]["method"] == {"kind": "crawler"}
