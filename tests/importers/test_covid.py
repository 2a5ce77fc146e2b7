"""Published figures: who is a witness, what an edit does, and what a later version of the collection does."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from docs.importers import covid
from factledger.client import Ledger
from tests.importers.conftest import SAMPLES, Run

BRITTANY = "insee:REG-53"
ROWS = [json.loads(line) for line in (SAMPLES / "covid.jsonl").read_text("utf-8").splitlines()]


def cases(remote: Ledger, place: str, day: str, **at: Any) -> tuple[str, list[tuple[Any, int]]]:
    """The status of the confirmed cases of a day, and for each number how many origins give it."""
    fact = remote.believed(place, valid_at=f"{day}T12:00:00Z", **at)["cas_confirmes"]
    return fact.status, [(one.value, one.support.origins) for one in fact.values]


def test_who_passes_figures_on_is_no_witness(run: Run, remote: Ledger) -> None:
    run(covid, SAMPLES / "covid.jsonl")
    # the agency, and a prefecture with the same number
    assert cases(remote, BRITTANY, "2020-03-27") == ("reported", [(797, 1)])
    # the agency and the national one, each on its own
    assert cases(remote, BRITTANY, "2020-03-21") == ("accepted", [(359, 2)])
    assert cases(remote, BRITTANY, "2020-03-22") == ("contested", [(397, 1), (446, 1)])


def test_a_figure_is_of_its_day_alone(run: Run, remote: Ledger) -> None:
    run(covid, SAMPLES / "covid.jsonl")
    assert cases(remote, BRITTANY, "2020-03-23") == ("unknown", [])


def test_a_prefecture_that_names_the_agency_gives_the_agency_s_word(run: Run, remote: Ledger) -> None:
    run(covid, SAMPLES / "covid.jsonl")
    # 11 on the prefecture's site, then 10 on its own: the agency's later word
    assert cases(remote, "insee:DEP-50", "2020-03-12") == ("reported", [(10, 1)])
    explained = remote.why("insee:DEP-50", "cas_confirmes", valid_at="2020-03-12T12:00:00Z")
    assert [one.outlet for one in explained.superseded] == ["publisher:prefecture-de-la-manche"]


def test_an_edit_corrects_what_was_published_first(run: Run, remote: Ledger) -> None:
    run(covid, SAMPLES / "covid.jsonl")
    (edited,) = [row for row in ROWS if row["date"] == "2020-03-22" and row["value"] == 446]
    first, last = edited["asserted_at"], edited["last_edit"]
    assert first < last
    between = remote.why(BRITTANY, "cas_confirmes", valid_at="2020-03-22T12:00:00Z", asserted_before=last)
    after = remote.why(BRITTANY, "cas_confirmes", valid_at="2020-03-22T12:00:00Z")
    assert [one.q for value in between.values if value.value == 446 for one in value.for_] == [covid.UNSEEN]
    assert [one.q for value in after.values if value.value == 446 for one in value.for_] == [1]
    assert [one.because.type for one in after.not_in_force if one.id.startswith(covid.edition(edited))] == [
        "factledger.assertion.v1"
    ]


def test_a_version_of_a_report_without_a_date_is_dated_by_the_archive(run: Run, remote: Ledger) -> None:
    run(covid, SAMPLES / "covid.jsonl")
    explained = remote.why(BRITTANY, "cas_confirmes", valid_at="2020-03-29T12:00:00Z")
    assert "2020-03-29T17:48:27.000000Z" in [one.asserted_at for value in explained.values for one in value.for_]


def test_an_undated_line_without_an_archive_is_left_out(run: Run, written: Callable[..., Path]) -> None:
    (row,) = [row for row in ROWS if row["asserted_at"] is None]
    code, _, complaints = run(covid, written("c.jsonl", {**row, "archive": None}))
    assert (code, complaints) == (2, "c.jsonl:1: left out: says nowhere when it was published\n")


@pytest.mark.parametrize("times", [1, 2])
def test_a_later_version_corrects_the_earlier(
    run: Run, remote: Ledger, written: Callable[..., Path], times: int
) -> None:
    versions = [SAMPLES / "covid.jsonl"]
    for number in range(times):
        changed = {"value": 500 + number, "last_edit": f"2020-06-0{number + 1}T10:00:00+02:00"}
        versions.append(
            written(f"later-{number}.jsonl", *(row | changed if row["value"] in (446, 500) else row for row in ROWS))
        )
    run(covid, versions[0])
    size = remote.size()
    for before, now in pairwise(versions):
        assert run(covid, now, previous=before)[0] == 0
    assert cases(remote, BRITTANY, "2020-03-22") == ("contested", [(397, 1), (499 + times, 1)])
    assert cases(remote, BRITTANY, "2020-03-22", at_size=size) == ("contested", [(397, 1), (446, 1)])
    corrections = [event for event in remote.events(from_position=size) if "corrects" in event["data"]]
    assert [event["data"]["value"] for event in corrections] == [500, 501][:times]


def test_the_world_is_a_place(run: Run, remote: Ledger) -> None:
    run(covid, SAMPLES / "covid.jsonl")
    assert cases(remote, "place:world", "2020-03-04") == ("contested", [(93076, 1), (94250, 1)])


def test_an_agency_on_a_prefecture_s_site_is_whose_word_it_is() -> None:
    (row,) = [row for row in ROWS if row["subject"] == "DEP-36"]
    assert covid.published(row) == ("www.indre.gouv.fr", "ARS Centre-Val de Loire")
