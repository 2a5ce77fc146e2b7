"""The demonstration's data alone: well formed, in order, and with every hard case of the news in it."""

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from factledger.core import facts, times
from factledger.core.events import read_event

DATA = Path(__file__).parents[1] / "service" / "factledger" / "demo" / "panjshir.jsonl"
EXTRACTOR, FAULTY_EXTRACTOR = "extractor:newsre@1.4.2", "extractor:newsre@1.3.0"

Event = dict[str, Any]


def batches() -> list[dict[str, Any]]:
    return [json.loads(line) for line in DATA.read_text(encoding="ascii").splitlines()]


def events(kind: str = "") -> list[Event]:
    """Every event of a kind, in the order of recording."""
    every: list[Event] = [event for batch in batches() for event in batch["events"]]
    return [event for event in every if event["type"].startswith(f"factledger.{kind}")]


def assertions(**wanted: Any) -> list[Event]:
    """Every assertion whose data has these fields."""
    return [event for event in events("assertion") if wanted.items() <= event["data"].items()]


def identity_of(event: Event) -> tuple[str, str]:
    return event["source"], event["id"]


def instant(text: str) -> datetime:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text)
    return datetime.fromisoformat(text)


# ---- Form ----------------------------------------------------------------------------------------------


def test_batches_are_told_in_one_sentence_and_recorded_in_order() -> None:
    recorded_at = [instant(batch["recorded_at"]) for batch in batches()]
    assert recorded_at == sorted(set(recorded_at))
    for batch in batches():
        assert batch.keys() == {"recorded_at", "article", "note", "events"}
        assert batch["article"]
        assert batch["note"].endswith(".")
        assert batch["events"]


def test_events_are_cloudevents_read_shortly_before_they_are_recorded() -> None:
    for batch in batches():
        read_at = [instant(event["time"]) for event in batch["events"]]
        assert read_at == sorted(read_at)
        assert 0 < (instant(batch["recorded_at"]) - read_at[0]).total_seconds() < 3600
        assert read_at[-1] < instant(batch["recorded_at"])
        for event in batch["events"]:
            assert event.keys() == {"specversion", "type", "source", "id", "time", "data"}
            assert event["specversion"] == "1.0"


def test_every_event_has_an_identity_of_its_own() -> None:
    assert len({identity_of(event) for event in events()}) == len(events())


def test_every_event_is_valid() -> None:
    for event in events():
        read_event(event)


def test_assertions_have_an_outlet_and_at_most_four_words_of_the_article() -> None:
    for event in assertions():
        assert event["data"]["provenance"]["outlet"].startswith("outlet:")
        assert len(event["data"].get("valid_text", "").split()) <= 4


def test_nothing_is_said_after_it_is_recorded() -> None:
    for batch in batches():
        said = [event["data"]["asserted_at"] for event in batch["events"] if event in assertions()]
        assert all(times.parse_moment(at) < times.parse_instant(batch["recorded_at"]) for at in said)


def test_evidence_is_a_slice_and_a_digest_and_never_a_quote() -> None:
    for event in assertions():
        evidence = event["data"]["provenance"]["evidence"]
        assert evidence.keys() == {"start", "end", "sha256"}
        assert 0 <= evidence["start"] < evidence["end"]
        assert re.fullmatch(r"[0-9a-f]{64}", evidence["sha256"])


def test_five_documents_each_with_one_digest() -> None:
    documents = {json.dumps(event["data"]["provenance"]["document"], sort_keys=True) for event in assertions()}
    read = sorted((json.loads(document) for document in documents), key=lambda document: document["uri"])
    assert [document["uri"] for document in read] == [f"https://example.org/panjshir/{n}" for n in range(1, 6)]
    for document in read:
        assert document.keys() == {"uri", "sha256", "title", "published_at", "language"}
        assert re.fullmatch(r"[0-9a-f]{64}", document["sha256"])


def test_predicates_are_declared_before_use_and_values_are_of_their_type() -> None:
    declared: dict[str, str] = {}
    for event in events():
        data = event["data"]
        if event["type"] == "factledger.predicate.v1":
            assert data["label"]
            assert data["description"]
            declared[data["predicate"]] = data["value_type"]
        elif event["type"] == "factledger.assertion.v1":
            assert facts.value_type(data["value"]) == declared[data["predicate"]]
    assert declared.keys() == {event["data"]["predicate"] for event in assertions()}


def test_every_target_lies_earlier() -> None:
    earlier: set[tuple[str, str]] = set()
    for event in events():
        for field in ("targets", "corrects"):
            for ref in event["data"].get(field, []):
                assert (ref.get("source", event["source"]), ref["id"]) in earlier
        earlier.add(identity_of(event))


# ---- What must be in it --------------------------------------------------------------------------------


def test_there_is_enough_of_it() -> None:
    removed = {(ref["source"], ref["id"]) for event in assertions() for ref in event["data"].get("corrects", [])}
    standing = [
        event for event in assertions() if event["source"] != FAULTY_EXTRACTOR and identity_of(event) not in removed
    ]
    assert len(standing) >= 60
    assert 70 <= len(assertions()) <= 100


@pytest.mark.parametrize(
    ("subject", "predicate", "value"),
    [
        ("place:panjshir", "control", {"entity": "org:taliban"}),
        ("org:taliban", "entered", {"entity": "place:panjshir"}),
        ("person:ahmed-masood", "organised", {"entity": "event:baghlan-uprising"}),
    ],
)
def test_denials(subject: str, predicate: str, value: object) -> None:
    assert assertions(subject=subject, predicate=predicate, value=value, polarity="denies")


@pytest.mark.parametrize("certainty", ["probable", "possible"])
def test_hedges(certainty: str) -> None:
    assert assertions(certainty=certainty)


def test_vague_dates() -> None:
    valid = [event["data"]["valid"] for event in assertions() if "valid" in event["data"]]
    assert any("X" in text for text in valid)
    assert any("~" in text for text in valid)
    assert "2021-09/.." in valid


def test_a_correction_by_an_editor_replaces_the_wrong_year() -> None:
    (correction,) = [event for event in assertions() if "corrects" in event["data"]]
    (ref,) = correction["data"]["corrects"]
    (corrected,) = [event for event in assertions() if identity_of(event) == (ref["source"], ref["id"])]
    assert correction["source"] == "human:editor-7"
    assert corrected["source"] == EXTRACTOR
    assert corrected["data"]["subject"] == correction["data"]["subject"]
    assert corrected["data"]["value"] == {"date": "2022-08-22"}
    assert correction["data"]["value"] == {"date": "2021-08-22"}


@pytest.mark.parametrize("judgement", ["same", "different", "unsure"])
def test_identity_judgements_of_each_kind(judgement: str) -> None:
    judgements = [event["data"]["judgement"] for event in events("identity")]
    assert judgement in judgements


def test_a_wrong_match_is_taken_back_before_its_opposite_is_judged() -> None:
    (retraction,) = [event for event in events("retraction") if "targets" in event["data"]]
    (ref,) = retraction["data"]["targets"]
    (wrong,) = [event for event in events("identity") if identity_of(event) == (ref["source"], ref["id"])]
    (right,) = [
        event
        for event in events("identity")
        if event["data"]["judgement"] == "different" and event["data"]["entities"] == wrong["data"]["entities"]
    ]
    assert wrong["data"]["judgement"] == "same"
    assert events().index(wrong) < events().index(retraction) < events().index(right)


def test_one_retraction_takes_back_all_that_the_faulty_extractor_said() -> None:
    (retraction,) = [event for event in events("retraction") if "where" in event["data"]]
    assert retraction["data"]["where"] == {"source": FAULTY_EXTRACTOR}
    assert retraction["data"]["reason"] == "extractor_error"

    def said(event: Event) -> str:
        fields = ("subject", "predicate", "value", "polarity")
        return json.dumps([event["data"][field] for field in fields], sort_keys=True)

    faulty = [event for event in assertions() if event["source"] == FAULTY_EXTRACTOR]
    also_said_by_others = {said(event) for event in assertions() if event["source"] != FAULTY_EXTRACTOR}
    surviving = [event for event in faulty if said(event) in also_said_by_others]
    assert surviving
    assert 8 <= len(faulty) - len(surviving) <= 12
    assert all(events().index(event) < events().index(retraction) for event in faulty)


def test_outlets_and_spokesmen_relay_but_the_one_who_concedes_does_not() -> None:
    relays = {event["data"]["agent"]: event["data"].get("relays") for event in events("agent")}
    assert relays["outlet:machine-translated-mirror"] == "outlet:aljazeera"
    assert relays["outlet:aggregator-blog"] == "outlet:british-tabloid"
    assert relays["agent:zabihullah-mujahid"] == relays["agent:tariq-ghazniwal"] == "org:taliban"
    assert relays["agent:ali-maisam"] == "org:nrf"
    assert relays["agent:ahmad-massoud"] is None


def test_agents_are_rated_and_it_is_said_why() -> None:
    rated = [event["data"] for event in events("agent") if {"reliability", "fidelity"} & event["data"].keys()]
    assert {data["reliability"] for data in rated if "reliability" in data} >= {"B", "C", "D", "F"}
    assert {data["fidelity"] for data in rated if "fidelity" in data} == {0.8, 0.9}
    assert [data["agent"] for data in rated if not data.get("note")] == []


def test_one_article_contradicts_itself() -> None:
    counts = assertions(subject="place:panjshir", predicate="district_count")
    assert {event["data"]["value"] for event in counts} == {7, 8}
    assert len({event["data"]["provenance"]["document"]["uri"] for event in counts}) == 1
