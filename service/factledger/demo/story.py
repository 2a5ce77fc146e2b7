"""The story that the demonstration tells: questions to its ledger, with what the ledger answers.

Only the questions are written here. Values, probabilities, counts and names come from the ledger.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from factledger.answers import entity_path
from factledger.core import events, times
from factledger.ledger import Ledger
from factledger.reading import Question

Json = Mapping[str, Any]

VALLEY, VICE_PRESIDENT, DISTRICT = "place:panjshir", "person:amrullah-saleh", "place:bano"
PHOTO, COMMANDER, FATHER = "photo:wazir-akbar-khan-checkpoint", "person:ahmad-massoud", "person:ahmad-shah-massoud"
FAULTY = "extractor:newsre@1.3.0"

EARLY, DAY_OF_CLAIMS, LATE = "2021-08-24T12:00:00Z", "2021-09-07T00:00:00Z", "2021-09-08T12:00:00Z"
KNOWN = (
    ("24 Aug, noon", EARLY),
    ("end of 6 Sep", DAY_OF_CLAIMS),
    ("8 Sep, noon", LATE),
)
BEFORE_THE_CAPTION, BEFORE_THE_REVIEW = "2021-09-08T08:00:00Z", "2021-09-08T09:00:00Z"
BEFORE_THE_CLEARING = "2021-09-08T10:30:00Z"

_SECOND_SOURCE = json.dumps(
    {
        "specversion": "1.0",
        "type": events.ASSERTION,
        "source": "human:you",
        "id": "1",
        "data": {
            "subject": VICE_PRESIDENT,
            "predicate": "location",
            "value": {"entity": "place:tajikistan"},
            "valid": "2021-09/..",
            "provenance": {"outlet": "outlet:your-paper"},
        },
    }
)


@dataclass(frozen=True, slots=True)
class Row:
    """One value as believed; without a probability where nothing is left to weigh."""

    value: str
    status: str
    probability: float | None
    sources: int  # independent origins that say so
    reports: int
    denials: int  # independent origins that deny it


@dataclass(frozen=True, slots=True)
class Moment:
    """What was believed at one moment, best first, and why in one sentence."""

    label: str
    rows: tuple[Row, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Chapter:
    """One question, what to look for in its answers, and the answers."""

    question: str
    remark: str
    moments: tuple[Moment, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """A question to put to the service: path and query below its address, what to post, and what it answers."""

    path: str
    answers: str
    body: str | None = None


@dataclass(frozen=True, slots=True)
class Story:
    """All of it, with how many events it rests on, and what to ask next."""

    events: int
    chapters: tuple[Chapter, ...]
    asks: tuple[Ask, ...]


def tell(ledger: Ledger) -> Story:
    """Return the story as the demonstration's ledger tells it."""
    teller = _Teller(ledger)
    return Story(ledger.size(), tuple(teller.chapters()), tuple(teller.asks()))


def _asked(known_at: str, valid_at: str | None = None) -> Question:
    known = times.parse_instant(known_at)
    return Question(valid_at=known if valid_at is None else times.first_instant(valid_at), known_at=known)


class _Teller:
    """Asks one ledger, and knows the names that it has for things."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._names = {e["data"]["agent"]: e["data"]["label"] for e in self._events(type=events.AGENT)}
        self._labels = {e["data"]["predicate"]: e["data"]["label"] for e in self._events(type=events.PREDICATE)}

    def chapters(self) -> Iterable[Chapter]:
        yield Chapter(
            "Who controls Panjshir?",
            "As it was believed on three days. The last word does not win: on 6 September two sides contradict each "
            "other, and the ledger says so. A day later the resistance's own commander concedes, and that decides.",
            tuple(self._moment(label, VALLEY, "control", _asked(at)) for label, at in KNOWN),
        )
        yield Chapter(
            "Where is Amrullah Saleh, the vice president?",
            "A newer report that the world has changed puts the older ones out of date. But it is one source, and "
            "unsure: so it is reported, not accepted.",
            tuple(self._moment(label, VICE_PRESIDENT, "location", _asked(at)) for label, at in KNOWN),
        )
        yield Chapter(
            "Who held the district of Bano?",
            "What is known stays the same here; the day that is asked about differs.",
            tuple(
                self._moment(f"on {day}", DISTRICT, "control", _asked(LATE, valid_at))
                for day, valid_at in (("20 Aug", "2021-08-20"), ("24 Aug", "2021-08-24"))
            ),
        )
        yield self._advertising()
        yield self._caption()
        yield self._names_of_one_man()

    def asks(self) -> Iterable[Ask]:
        """Yield questions for the service, each with what this ledger answers."""
        root = f"/v1/ledgers/{self._ledger.name}"
        valley, man = f"{root}/{entity_path(VALLEY)}", f"{root}/{entity_path(VICE_PRESIDENT)}"
        late, early = "valid_at=2021-09-08", "valid_at=2021-08-24&known_at=2021-08-24T12:00:00Z"
        now = Question(valid_at=times.first_instant("2021-09-08"))
        then = Question(times.first_instant("2021-08-24"), times.parse_instant(EARLY))
        yield Ask(f"{valley}?{late}", f"the valley on 8 September: {self._in_short(VALLEY, 'control', now)}")
        yield Ask(f"{valley}?{early}", f"on 24 August, as known then: {self._in_short(VALLEY, 'control', then)}")
        found = self._why(VALLEY, "control", now)
        reports = sum(len(value["for"]) + len(value["against"]) for value in found["values"])
        aside = sum(len(found[role]) for role in ("outdated", "superseded", "not_in_force"))
        yield Ask(
            f"{valley}/why?predicate=control&{late}",
            f"why: {reports} reports for and against with their weights, and {aside} that no longer count",
        )
        segments = json.loads(self._ledger.timeline(DISTRICT, "control", now).body)["segments"]
        yield Ask(
            f"{root}/{entity_path(DISTRICT)}/timeline?predicate=control",
            f"who held Bano when: {len(segments)} spans of time",
        )
        changes = json.loads(self._ledger.history(VICE_PRESIDENT, "location", Question()).body)["changes"]
        yield Ask(
            f"{man}/history?predicate=location", f"how belief about Saleh's place changed: {len(changes)} changes"
        )
        claims = self._events(source=FAULTY)
        standing = sum(claim["inforce"] for claim in claims)
        yield Ask(
            f"{root}/events?{urlencode({'source': FAULTY})}",
            f"all that the outdated reader claimed: {len(claims)} events, of which {standing} are in force",
        )
        yield Ask(
            f"{root}/events",
            f"a second source for Saleh's place; it gets position {self._ledger.size()}, however often it is sent",
            _SECOND_SOURCE,
        )
        yield Ask(f"{man}?{late}", f"so far {self._in_short(VICE_PRESIDENT, 'location', now)}; see what it is now")

    def _in_short(self, entity: str, predicate: str, question: Question) -> str:
        best = self._why(entity, predicate, question)["values"][0]
        return f"{self._value(best['value'])}, {best['status']}, {best['probability']:.3f}"

    # --- the chapters that are not simply asked

    def _advertising(self) -> Chapter:
        claims = self._events(source=FAULTY)
        elsewhere = {_said(e) for e in self._events(type=events.ASSERTION) if e["source"] != FAULTY}
        lost = [claim for claim in claims if _said(claim) not in elsewhere]
        shown = [claim["data"] for claim in lost if {VALLEY, COMMANDER} & {*_ids(claim["data"])}]
        (retraction,) = (e for e in self._events(type=events.RETRACTION) if "where" in e["data"])
        matched = retraction["data"]["matched"]["count"]
        before, after = (
            (label, tuple(self._claim(claim, _asked(at)) for claim in shown))
            for label, at in (("8 Sep, 10:30", BEFORE_THE_CLEARING), ("8 Sep, noon", LATE))
        )
        return Chapter(
            "How did the advertising get in, and out again?",
            "An outdated reader took the advertising below an article for news.",
            (
                Moment(*before, f"{len(claims)} claims came from {FAULTY}; among them these."),
                Moment(
                    *after,
                    f"One retraction took back all {matched}. {len(lost)} are gone; {matched - len(lost)} stand, "
                    "since another reader had made them too.",
                ),
            ),
        )

    def _claim(self, data: Json, question: Question) -> Row:
        """Return what is believed of one claim, with its subject and predicate in the value's place."""
        answer = self._why(data["subject"], data["predicate"], question)
        text = f"{self._name(data['subject'])} {self._labels[data['predicate']].lower()} {self._value(data['value'])}"
        for found in answer["values"]:
            if found["value"] == data["value"]:
                return self._row(found, text)
        return Row(text, answer["status"], None, 0, 0, 0)

    def _caption(self) -> Chapter:
        moments = [
            self._moment(label, PHOTO, "date_taken", _asked(at))
            for label, at in (("8 Sep, 08:00", BEFORE_THE_CAPTION), ("8 Sep, noon", LATE))
        ]
        (corrected,) = self._why(PHOTO, "date_taken", _asked(LATE))["not_in_force"]
        note = f"{moments[1].why} The caption's {self._value(corrected['value'])} was corrected, and is kept."
        return Chapter(
            "When was the photograph at the checkpoint taken?",
            "The page that printed it gave a year that was still to come.",
            (moments[0], Moment(moments[1].label, moments[1].rows, note)),
        )

    def _names_of_one_man(self) -> Chapter:
        moments = []
        for label, at in (("8 Sep, 09:00", BEFORE_THE_REVIEW), ("8 Sep, noon", LATE)):
            answer = json.loads(self._ledger.entity(COMMANDER, _asked(at)).body)
            alive = self._why(COMMANDER, "alive", _asked(at))
            rows = tuple(self._row(found, f"alive: {self._value(found['value'])}") for found in alive["values"])
            taken_for_one = _listed(self._name(member) for member in answer["members"])
            moments.append(Moment(label, rows, f"Taken for one man: {taken_for_one}."))
        return Chapter(
            "Who is Ahmad Massoud, and is he alive?",
            "A name resolver had taken him for his late father, and his other spellings for other men. Reviewers put "
            "both right; every report keeps the name that it was made under.",
            tuple(moments),
        )

    # --- asking

    def _events(self, **criteria: str) -> list[dict[str, Any]]:
        found, _, _ = self._ledger.events(Question(), from_position=0, limit=1_000, criteria=criteria)
        return found

    def _why(self, entity: str, predicate: str, question: Question) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._ledger.why(entity, predicate, question).body)
        return answer

    def _moment(self, label: str, entity: str, predicate: str, question: Question) -> Moment:
        answer = self._why(entity, predicate, question)
        return Moment(label, tuple(self._row(found) for found in answer["values"]), self._because(answer))

    def _row(self, found: Json, text: str | None = None) -> Row:
        return Row(
            text or self._value(found["value"]),
            found["status"],
            found["probability"],
            len({e["origin"] for e in found["for"]}),
            len(found["for"]),
            len({e["origin"] for e in found["against"]}),
        )

    # --- in words

    def _because(self, answer: Json) -> str:
        """Return who says what, and what of the rest no longer counts."""
        if len(answer["values"]) == 1:
            voices = self._voices(answer["values"][0])
            sentences = [f"{voices[0].upper()}{voices[1:]}."]
        else:
            named = ((self._value(found["value"]), found) for found in answer["values"])
            sentences = [f"{name}: {self._voices(found, subject=name)}." for name, found in named]
        for role, of_one, of_many in (
            ("outdated", "earlier report is out of date", "earlier reports are out of date"),
            (
                "superseded",
                "earlier report was replaced by its own source",
                "earlier reports were replaced by their own sources",
            ),
        ):
            if number := len(answer[role]):
                sentences.append(f"{number} {of_one if number == 1 else of_many}.")
        return " ".join(sentences)

    def _voices(self, found: Json, subject: str | None = None) -> str:
        said = []
        if found["for"]:
            hedges = {e["certainty"] for e in found["for"]}
            hedge = "" if "certain" in hedges else f" as {_listed(sorted(hedges))}"
            said.append(f"said{hedge} by {self._origins(found['for'], subject)}")
        if found["against"]:
            said.append(f"denied by {self._origins(found['against'], subject)}")
        return ", ".join(said)

    def _origins(self, evidence: Sequence[Json], subject: str | None) -> str:
        names = [self._name(origin) for origin in dict.fromkeys(e["origin"] for e in evidence)]
        copies = f" ({len(evidence)} reports)" if len(evidence) > len(names) else ""
        return _listed("itself" if name == subject else name for name in names) + copies

    def _value(self, value: Any) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, dict) and "entity" in value:
            return self._name(value["entity"])
        return str(next(iter(value.values()))) if isinstance(value, dict) else f"“{value}”"

    def _name(self, name: str) -> str:
        """Return the label of an agent, or what an id such as `place:college-of-charleston` spells."""
        words = name.partition(":")[2].replace("-", " ").split()
        return self._names.get(name) or " ".join(w if w in ("of", "the") else w.capitalize() for w in words)


def _said(event: Json) -> str:
    """Return what an assertion says, whoever says it."""
    data = event["data"]
    return json.dumps([data[key] for key in ("subject", "predicate", "value", "polarity")], sort_keys=True)


def _ids(data: Json) -> Iterable[str]:
    """Yield the entities that an assertion is about."""
    yield data["subject"]
    if isinstance(data["value"], dict) and "entity" in data["value"]:
        yield data["value"]["entity"]


def _listed(words: Iterable[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last
