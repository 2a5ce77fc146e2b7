"""What every importer does: the same again records nothing, and no line is left out silently."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from docs.importers import covid, ftm, importing, losses, wikidata
from docs.importers.importing import LeftOut, slug
from factledger.client import Ledger, agent
from tests.importers.conftest import SAMPLES, Run

COVID = (SAMPLES / "covid.jsonl").read_text("utf-8").splitlines()
FTM = (SAMPLES / "statements-march.csv").read_text("utf-8").splitlines()
WIKIDATA = (SAMPLES / "entities-january.json").read_text("utf-8").splitlines()
EQUIPMENT = (SAMPLES / "mod_equipment_events.jsonl").read_text("utf-8").splitlines()

IMPORTS = [
    (covid, ["covid.jsonl"], None),
    (losses, ["mod_personnel_events.jsonl", "mod_equipment_events.jsonl", "oryx_events.jsonl"], None),
    (ftm, ["statements-march.csv"], None),
    (ftm, ["statements-april.csv"], "statements-march.csv"),
    (wikidata, ["entities-january.json"], None),
    (wikidata, ["entities-march.json"], "entities-january.json"),
]


def counts(printed: str) -> list[tuple[int, int, int, int]]:
    """What became of the events and lines of each file: recorded, there already, rejected, left out."""
    numbers = [re.findall(r"(\d+) (?:recorded|there|rejected|lines)", line) for line in printed.splitlines()]
    return [(int(a), int(b), int(c), int(d)) for a, b, c, d in numbers]


@pytest.mark.parametrize(("module", "names", "previous"), IMPORTS, ids=[f"{m.__name__}-{n[0]}" for m, n, _ in IMPORTS])
def test_the_same_again_records_nothing(
    run: Run, remote: Ledger, module: ModuleType, names: list[str], previous: str | None
) -> None:
    files = [SAMPLES / name for name in names]
    before = SAMPLES / previous if previous else None
    if before:
        run(module, before)
    _, first, _ = run(module, *files, previous=before)
    assert all(recorded > 0 and rejected == 0 for recorded, _, rejected, _ in counts(first))
    size, believed = remote.size(), [event["inforce"] for event in remote.events()]
    _, again, _ = run(module, *files, previous=before)
    assert [(recorded, there) for recorded, there, _, _ in counts(again)] == [
        (0, recorded + there) for recorded, there, _, _ in counts(first)
    ]
    assert remote.size() == size
    assert [event["inforce"] for event in remote.events()] == believed


def test_every_line_is_in_the_ledger(run: Run) -> None:
    assert run(covid, SAMPLES / "covid.jsonl")[0] == 0


BROKEN = [
    (covid, "c.jsonl", [COVID[0], "{", COVID[1]], "c.jsonl:2: left out: is no JSON"),
    (covid, "c.jsonl", ["[]", COVID[1]], "c.jsonl:1: left out: is no object"),
    (covid, "c.jsonl", [COVID[0].replace('"path"', '"file"'), COVID[1]], "c.jsonl:1: left out: has no 'path'"),
    (covid, "c.jsonl", [re.sub(r'(?<="value": )\d+', '"many"', COVID[0]), COVID[1]], "the figure is 'many'"),
    (
        covid,
        "c.jsonl",
        [COVID[1], re.sub(r'(?<="date": )"[^"]+"', '"2020-03-32"', COVID[0])],
        "c.jsonl:2: rejected: /data/valid",
    ),
    (covid, "c.jsonl", [re.sub(r"T\d\d:(?=.*last)", "T99:", COVID[0]), COVID[1]], "rejected: /data/asserted_at"),
    (losses, "mod_equipment_events.jsonl", [*EQUIPMENT[:2], "nothing"], "mod_equipment_events.jsonl:3: left out:"),
    (losses, "mod_equipment_events.jsonl", [EQUIPMENT[0], EQUIPMENT[3]], ":2: left out: replaces 29 where None stands"),
    (
        losses,
        "mod_equipment_events.jsonl",
        [EQUIPMENT[0], EQUIPMENT[1].replace("260", "2.5")],
        ":2: left out: the figure",
    ),
    (
        losses,
        "mod_equipment_events.jsonl",
        [EQUIPMENT[0], EQUIPMENT[1].replace("key", "day")],
        ":2: left out: has no 'key'",
    ),
    (losses, "other.jsonl", EQUIPMENT, "other.jsonl:0: left out: the file is none of mod_equipment_events,"),
    (ftm, "s.csv", [FTM[0].replace("first_seen", "seen"), *FTM[1:]], "s.csv:1: left out: the header lacks first_seen"),
    (ftm, "s.csv", [*FTM[:3], FTM[3] + ",more", FTM[4]], "s.csv:4: left out: has more or fewer cells"),
    (
        ftm,
        "s.csv",
        [*FTM[:3], FTM[3].replace("2023-01-10T06:00:00", "then"), FTM[4]],
        "s.csv:4: left out: 'then' is no",
    ),
    (ftm, "s.csv", [*FTM[:3], FTM[3].replace("1961-05", "1961-13"), FTM[4]], "s.csv:4: rejected: /data/value/date"),
    (wikidata, "e.json", ["[", WIKIDATA[1], "{},", "]"], "e.json:3: left out: lacks id, lastrevid, modified"),
    (wikidata, "e.json", ["[", WIKIDATA[1], "{", "]"], "e.json:3: left out: is no entity"),
]


@pytest.mark.parametrize(("module", "name", "lines", "told"), BROKEN, ids=[told for *_, told in BROKEN])
def test_a_bad_line_is_named_and_the_others_are_imported(
    run: Run,
    remote: Ledger,
    written: Callable[..., Path],
    module: ModuleType,
    name: str,
    lines: list[str],
    told: str,
) -> None:
    code, printed, complaints = run(module, written(name, *lines))
    assert code == 2
    assert told in complaints
    ((recorded, _, rejected, left_out),) = counts(printed)
    assert rejected + left_out == len(complaints.splitlines()) > 0
    lost_all = "header" in told or "the file is none" in told
    assert remote.size() == recorded
    assert (recorded == 0) is lost_all


def test_a_file_that_is_not_there_is_told(run: Run, remote: Ledger, tmp_path: Path) -> None:
    code, _, complaints = run(covid, tmp_path / "nowhere.jsonl")
    assert code == 2
    assert "nowhere.jsonl" in complaints
    assert remote.size() == 0


def test_files_may_be_compressed(run: Run, remote: Ledger, tmp_path: Path) -> None:
    file = tmp_path / "covid.jsonl.gz"
    file.write_bytes(gzip.compress((SAMPLES / "covid.jsonl").read_bytes()))
    assert run(covid, file)[0] == 0
    assert remote.size() > 0


@pytest.mark.parametrize(
    ("name", "joint", "expected"),
    [
        ("Préfecture d'Ille-et-Vilaine", "-", "prefecture-d-ille-et-vilaine"),
        ("casConfirmesEhpad", "_", "cas_confirmes_ehpad"),
        ("field artillery", "_", "field_artillery"),
    ],
)
def test_slugs(name: str, joint: str, expected: str) -> None:
    assert slug(name, joint) == expected


def events_of(module: ModuleType, file: Path, previous: Path | None = None) -> list[dict[str, Any]]:
    """What an importer makes of a file, without a service."""
    return [event for _, event in module.importer(file, previous) if not isinstance(event, LeftOut)]


def test_what_is_no_assertion_is_said_once_and_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [(n, agent(f"a:{n % 3}", label="x", id=f"a:{n % 3}")) for n in range(9)]
    assert [number for number, _ in importing.once(labels)] == [0, 1, 2]
    monkeypatch.setattr(importing, "REMEMBERED", 2)
    assert [number for number, _ in importing.once(labels)] == list(range(9))


def test_ids_are_unique_within_a_file() -> None:
    for module, names, previous in IMPORTS:
        for name in names:
            made = events_of(module, SAMPLES / name, SAMPLES / previous if previous else None)
            ids = [event["id"] for event in made]
            assert len(ids) == len(set(ids)), name
