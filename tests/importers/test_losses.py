"""A log of changes: revisions correct, removals withdraw, hedges lower certainty, and a list stands until the next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from docs.importers import losses
from factledger.client import Ledger
from tests.importers.conftest import SAMPLES, Run

FORCE = losses.FORCE
MODEL = "model:Tanks|T-1|Nowhere"
TANKS = "losses_tank"


def row(commit: int, value: Any, old: Any = None, column: str = "tank", key: str = "2022-03-05") -> dict[str, Any]:
    """A line of the log, of one commit a day."""
    kind = "removed" if value is None else "new" if old is None else "changed"
    at = f"2022-04-{commit:02d}T12:00:00+03:00"
    return {"commit": f"c{commit}", "asserted_at": at, "key": key, "predicate": column, "value": value, "old": old} | {
        "kind": kind
    }


def at_noon(remote: Ledger, entity: str, predicate: str, day: str, **at: Any) -> tuple[str, list[Any]]:
    """The status of a predicate at noon of a day, and its values, the best first."""
    fact = remote.believed(entity, valid_at=f"{day}T12:00:00Z", **at)[predicate]
    return fact.status, [one.value for one in fact.values]


def test_the_sample(run: Run, remote: Ledger) -> None:
    run(losses, SAMPLES / "mod_equipment_events.jsonl", SAMPLES / "mod_personnel_events.jsonl")
    assert at_noon(remote, FORCE, TANKS, "2022-03-06") == ("reported", [260])
    assert at_noon(remote, FORCE, TANKS, "2022-03-07") == ("reported", [288])  # revised twice
    assert at_noon(remote, FORCE, TANKS, "2022-03-10") == ("withdrawn", [])
    assert at_noon(remote, FORCE, TANKS, "2022-03-11") == ("unknown", [])  # a count is of its day


def test_a_revised_figure_counts_at_no_time_but_is_remembered(
    run: Run, remote: Ledger, written: Callable[..., Path]
) -> None:
    log = [row(1, 29), row(2, 290, 29), row(3, 288, 290)]
    sizes = []
    for length in (1, 2, 3):
        run(losses, written("mod_equipment_events.jsonl", *log[:length]))
        sizes.append(remote.size())
    believed = [at_noon(remote, FORCE, TANKS, "2022-03-05", at_size=size) for size in sizes]
    assert believed == [("reported", [29]), ("reported", [290]), ("reported", [288])]
    explained = remote.why(FORCE, TANKS, valid_at="2022-03-05T12:00:00Z")
    assert not explained.superseded and not explained.outdated
    assert len(explained.not_in_force) == 2
    # by what had been said before the last revision, the first one stood
    assert at_noon(remote, FORCE, TANKS, "2022-03-05", asserted_before="2022-04-03")[1] == [290]


@pytest.mark.parametrize("revisions", [0, 1, 2])
def test_a_removal_withdraws_the_figure_and_all_that_it_had_replaced(
    run: Run, remote: Ledger, written: Callable[..., Path], revisions: int
) -> None:
    log = [row(1, 100), *(row(2 + n, 101 + n, 100 + n) for n in range(revisions)), row(9, None, 100 + revisions)]
    run(losses, written("mod_equipment_events.jsonl", *log))
    assert at_noon(remote, FORCE, TANKS, "2022-03-05") == ("withdrawn", [])
    run(losses, written("mod_equipment_events.jsonl", *log, row(10, 100)))
    assert at_noon(remote, FORCE, TANKS, "2022-03-05") == ("reported", [100])


def people(remote: Ledger, day: str) -> tuple[float, str | None]:
    """How probable the only figure for people is, and how certain it was said to be."""
    (one,) = remote.why(FORCE, "losses_personnel", valid_at=f"{day}T12:00:00Z").values
    (evidence,) = one.for_
    return round(one.probability, 3), evidence.quote


def test_hedges_lower_the_certainty(run: Run, remote: Ledger) -> None:
    run(losses, SAMPLES / "mod_personnel_events.jsonl")
    assert people(remote, "2022-03-05") == (0.473, "more than 10000")
    assert people(remote, "2022-03-06") == (0.473, "about 11000")  # hedged later: a correction
    assert people(remote, "2022-03-08") == (0.6, None)


def test_a_hedge_that_goes_makes_the_figure_certain(run: Run, remote: Ledger, written: Callable[..., Path]) -> None:
    log = [row(1, 100, column="personnel"), row(1, "about", column="*personnel")]
    log += [row(2, None, "about", column="*personnel")]
    run(losses, written("mod_personnel_events.jsonl", *log))
    assert people(remote, "2022-03-05") == (0.6, None)


def test_a_broken_line_does_not_part_a_figure_from_its_hedge(
    run: Run, remote: Ledger, written: Callable[..., Path]
) -> None:
    log = [row(1, 100, column="personnel"), "{", row(1, "about", column="personnel*")]
    code, _, complaints = run(losses, written("mod_personnel_events.jsonl", *log))
    assert (code, len(complaints.splitlines())) == (2, 1)
    assert people(remote, "2022-03-05") == (0.473, "about 100")


def test_an_unknown_hedge_is_left_out(run: Run, remote: Ledger, written: Callable[..., Path]) -> None:
    log = [row(1, 100, column="personnel"), row(1, "nearly", column="personnel*")]
    code, _, complaints = run(losses, written("mod_personnel_events.jsonl", *log))
    assert code == 2
    assert ":2: left out: hedges with 'nearly'" in complaints
    assert people(remote, "2022-03-05") == (0.6, None)


def test_a_list_stands_until_the_next_and_what_it_drops_is_withdrawn(
    run: Run, remote: Ledger, written: Callable[..., Path]
) -> None:
    run(losses, SAMPLES / "oryx_events.jsonl")
    assert at_noon(remote, MODEL, "counted_losses_total", "2022-03-08") == ("reported", [5])
    assert at_noon(remote, MODEL, "counted_losses_total", "2024-01-01") == ("reported", [9])
    # listed without its category for a day
    assert at_noon(remote, "model:None|T-1|Nowhere", "counted_losses_total", "2022-03-08") == ("withdrawn", [])


def test_what_a_list_drops_is_withdrawn_with_all_its_counts(
    run: Run, remote: Ledger, written: Callable[..., Path]
) -> None:
    log = [row(n, 5 + n, 4 + n if n > 1 else None, "losses_total", "Tanks|T-1|Nowhere") for n in (1, 2, 3)]
    run(losses, written("oryx_events.jsonl", *log))
    assert [at_noon(remote, MODEL, "counted_losses_total", f"2022-04-0{n}")[1] for n in (1, 2, 3, 4)] == [
        [6],
        [7],
        [8],
        [8],
    ]
    run(losses, written("oryx_events.jsonl", *log, row(4, None, 8, "losses_total", "Tanks|T-1|Nowhere")))
    assert {at_noon(remote, MODEL, "counted_losses_total", f"2022-04-0{n}")[0] for n in (1, 2, 3, 4)} == {"withdrawn"}


def test_predicates_are_declared_with_their_units(run: Run, remote: Ledger) -> None:
    run(losses, SAMPLES / "mod_equipment_events.jsonl", SAMPLES / "mod_personnel_events.jsonl")
    declared = {
        event["data"]["predicate"]: (event["data"]["cardinality"], event["data"]["value_type"], event["data"]["unit"])
        for event in remote.events(type="factledger.predicate.v1")
    }
    assert declared == {TANKS: ("one", "number", "piece"), "losses_personnel": ("one", "number", "person")}
