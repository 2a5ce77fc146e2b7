"""The demonstration: what its ledger holds, the story's figures, and the command that tells and serves it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from factledger.cli import main
from factledger.core import times
from factledger.core.errors import LedgerError
from factledger.demo import database, story
from factledger.demo.story import Chapter, Story
from factledger.ledger import Ledger
from factledger.reading import Question
from factledger.wiring import open_ledgers

ENTRY = (sys.executable, "-c", "import sys; from factledger.cli import main; sys.exit(main())")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """The demonstration's ledger, opened as any other."""
    with database.fresh(tmp_path_factory.mktemp("demo") / "demo.db") as path:
        ledgers = open_ledgers(f"sqlite:///{path}")
        yield ledgers.get("main")
        ledgers.close()


@pytest.fixture(scope="module")
def told(ledger: Ledger) -> Story:
    """The story."""
    return story.tell(ledger)


def chapter(told: Story, about: str) -> Chapter:
    (found,) = (chapter for chapter in told.chapters if about in chapter.question)
    return found


Figures = list[tuple[str, str, float | None]]


def figures(chapter: Chapter) -> dict[str, Figures]:
    """By moment, each value's status and probability to three decimals."""
    return {
        moment.label: [
            (row.value, row.status, None if row.probability is None else round(row.probability, 3))
            for row in moment.rows
        ]
        for moment in chapter.moments
    }


# --- the ledger


def test_every_event_is_recorded_at_its_own_moment(ledger: Ledger) -> None:
    batches = database.batches()
    assert ledger.size() == sum(len(batch.events) for batch in batches) == 166
    recorded, _, _ = ledger.events(Question(), from_position=0, limit=1_000, criteria={})
    position = 0
    for batch in batches:
        for number, event in enumerate(batch.events):
            found = recorded[position]
            assert (found["source"], found["id"]) == (event["source"], event["id"])
            late = times.parse_instant(found["recordedat"]) - batch.recorded_at
            assert number <= late <= number + 1, "strictly rising, a microsecond an event"
            position += 1


# --- the story


def test_who_controls_panjshir(told: Story) -> None:
    assert figures(chapter(told, "controls Panjshir")) == {
        "24 Aug, noon": [("National Resistance Front", "accepted", 0.91), ("Taliban", "denied", 0.005)],
        "end of 6 Sep": [("National Resistance Front", "contested", 0.373), ("Taliban", "contested", 0.261)],
        "8 Sep, noon": [("Taliban", "accepted", 0.854), ("National Resistance Front", "outweighed", 0.089)],
    }


def test_where_saleh_is(told: Story) -> None:
    assert figures(chapter(told, "Saleh")) == {
        "24 Aug, noon": [("Panjshir", "reported", 0.575)],
        "end of 6 Sep": [("Panjshir", "accepted", 0.907)],
        "8 Sep, noon": [("Tajikistan", "reported", 0.446)],
    }


def test_who_held_bano(told: Story) -> None:
    assert figures(chapter(told, "Bano")) == {
        "on 20 Aug": [("Baghlan Militias", "accepted", 0.942)],
        "on 24 Aug": [("Taliban", "reported", 0.585)],
    }


def test_the_advertising_goes_with_one_retraction(told: Story) -> None:
    found = chapter(told, "advertising")
    before, after = figures(found).values()
    assert [(status, p) for _, status, p in before] == [("reported", 0.5)] * 3
    assert [(status, p) for _, status, p in after] == [("withdrawn", None)] * 3
    assert "College of Charleston located in Panjshir" in [value for value, _, _ in before]
    assert found.moments[0].why.startswith("12 claims came from extractor:newsre@1.3.0")
    assert found.moments[1].why == (
        "One retraction took back all 12. 8 are gone; 4 stand, since another reader had made them too."
    )


def test_the_captions_year(told: Story) -> None:
    found = chapter(told, "photograph")
    assert list(figures(found).values()) == [
        [("2022-08-22", "reported", 0.503)],
        [("2021-08-22", "accepted", 0.835)],
    ]
    assert "The caption's 2022-08-22 was corrected" in found.moments[1].why


def test_who_massoud_is(told: Story) -> None:
    found = chapter(told, "Ahmad Massoud")
    assert list(figures(found).values()) == [
        [("alive: yes", "accepted", 0.737), ("alive: no", "outweighed", 0.263)],
        [("alive: yes", "accepted", 0.806)],
    ]
    assert found.moments[0].why == "Taken for one man: Ahmad Massoud and Ahmad Shah Massoud."
    assert found.moments[1].why == "Taken for one man: Ahmad Masoud, Ahmad Massoud and Ahmed Masood."


def test_it_says_who_says_what(told: Story) -> None:
    decided = chapter(told, "controls Panjshir").moments[2]
    assert decided.why == (
        "Taliban: said by itself and Ahmad Massoud (3 reports), denied by National Resistance Front (2 reports). "
        "National Resistance Front: said by itself (2 reports). 3 earlier reports are out of date. "
        "1 earlier report was replaced by its own source."
    )
    assert (decided.rows[0].sources, decided.rows[0].reports, decided.rows[0].denials) == (2, 3, 1)
    assert chapter(told, "Saleh").moments[2].why == ("Said as probable by Atalayar. 2 earlier reports are out of date.")


# --- the file


def test_what_is_no_demonstration_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.db"
    assert main(["init", "--database", f"sqlite:///{path}"]) == 0
    before = path.read_bytes()
    assert main(["demo", "--no-serve", "--database", f"sqlite:///{path}"]) == 4
    assert path.read_bytes() == before
    # A mark beside it does not make it one, once something else is in it.
    with database.fresh(tmp_path / "demo.db") as demo:
        pass
    event = database.batches()[0].events[0]
    (tmp_path / "event.json").write_text(json.dumps(event))
    assert main(["post", str(tmp_path / "event.json"), "--database", f"sqlite:///{path}"]) == 0
    path.replace(demo)
    with pytest.raises(LedgerError) as refused, database.fresh(demo):
        pass
    assert refused.value.code == "demo-not-empty"
    assert demo.exists()


def test_a_demonstration_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "demo.db"
    url = f"sqlite:///{path}"
    for _ in range(2):
        with database.fresh(path):
            extra = {**database.batches()[0].events[0], "id": "extra"}
            (tmp_path / "extra.json").write_text(json.dumps(extra))
            assert main(["post", str(tmp_path / "extra.json"), "--database", url]) == 0
    with database.fresh(path):
        ledgers = open_ledgers(url)
        assert ledgers.get("main").size() == 166
        ledgers.close()


def test_two_demonstrations_at_once_keep_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with database.fresh() as first, database.fresh() as second:
        assert first == tmp_path / "factledger" / "demo.db"
        assert second == tmp_path / "factledger" / "demo-2.db"
        with pytest.raises(LedgerError) as refused, database.fresh(first):
            pass
        assert refused.value.code == "demo-in-use"
    with database.fresh() as again:
        assert again == first


# --- the command


def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FACTLEDGER_")}
    return {**kept, "XDG_DATA_HOME": str(tmp_path), "COLUMNS": "100"}


def test_it_tells_the_story_and_ends_by_itself(tmp_path: Path, told: Story) -> None:
    for _ in range(2):
        ran = subprocess.run(
            [*ENTRY, "demo", "--no-serve"],
            env=environment(tmp_path),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        assert "\x1b" not in ran.stdout
        assert max(len(line) for line in ran.stdout.splitlines()) <= 100
        for part in told.chapters:
            assert part.question in ran.stdout
        assert "0.854" in ran.stdout
        assert "166 events" in ran.stdout
    assert (tmp_path / "factledger" / "demo.db").exists()


def test_for_programs_the_story_is_json(tmp_path: Path, told: Story, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--no-serve", "--json", "--database", f"sqlite:///{tmp_path}/demo.db"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["events"] == told.events
    assert [part["question"] for part in printed["chapters"]] == [part.question for part in told.chapters]


def test_only_a_file_can_be_a_demonstration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--no-serve", "--database", "postgresql://nobody@127.0.0.1/x"]) == 2
    assert "sqlite:///FILE" in capsys.readouterr().err


def test_it_serves_and_every_line_to_paste_works(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*ENTRY, "demo"], env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            announced = process.stderr.readline()
            assert announced.startswith("factledger listens on http://127.0.0.1:")
            address = announced.split()[-1]
            pasted: list[str] = []
            while len(pasted) < 8:
                line = process.stdout.readline()
                assert line, "it ended early"
                if line.startswith("curl "):
                    pasted.append(line)
            answers = [paste(line, address) for line in pasted]
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    valley, then, why, timeline, history, faulty, recorded, saleh = answers
    best = valley["facts"]["control"]["values"][0]
    assert (best["value"], best["status"]) == ({"entity": "org:taliban"}, "accepted")
    assert then["facts"]["control"]["values"][0]["value"] == {"entity": "org:nrf"}
    assert why["status"] == "accepted"
    assert len(timeline["segments"]) == 5
    assert len(history["changes"]) == 9
    assert [event["inforce"] for event in faulty["events"]] == [False] * 12
    assert (recorded["recorded"], recorded["size"]) == (1, 167)
    assert saleh["facts"]["location"]["values"][0]["support"]["origins"] == 2


def paste(line: str, address: str) -> Any:
    """Do what a curl line says, understanding of curl what these lines use."""
    words = shlex.split(line)
    assert words[:2] == ["curl", "-s"]
    url = words[-1]
    assert url.startswith(f"{address}/v1/")
    if "-d" not in words:
        response = httpx2.get(url)
    else:
        name, _, value = words[words.index("-H") + 1].partition(": ")
        response = httpx2.post(url, content=words[words.index("-d") + 1].encode(), headers={name: value})
    assert response.is_success
    return response.json()
