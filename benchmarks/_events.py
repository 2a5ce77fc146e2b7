"""What is appended and read: a news-like stream, and slots of every shape, the same on every run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from random import Random
from typing import Any

from factledger.core import events, times
from factledger.core.context import Context, ContextEvent
from factledger.core.entries import Entry, assertion_of
from factledger.core.evidence import Assertion
from factledger.core.facts import value_key
from factledger.ledger import Ledger
from factledger.recording import Receipt, Request

Event = dict[str, Any]

SOURCE = "extractor:bench@1"
HOUR = times.DAY // 24
DAY_ONE = times.parse_instant("2000-01-01T00:00:00Z")
LATER = times.parse_instant("2024-01-01T00:00:00Z")  # after everything below was said


def moment(hour: int) -> str:
    """Return an hour counted from the first day, as RFC 3339."""
    return times.format_instant(DAY_ONE + hour * HOUR).replace(".000000Z", "Z")


def event(kind: str, event_id: str, data: Mapping[str, Any], source: str = SOURCE) -> Event:
    """Return a CloudEvent as a producer posts it."""
    return {
        "specversion": "1.0",
        "type": kind,
        "source": source,
        "id": event_id,
        "time": "2024-01-01T00:00:00Z",
        "data": dict(data),
    }


# --- a stream as a newsroom has it

PREDICATES = [f"predicate_{number:02d}" for number in range(20)]
_WORDS = ("the", "valley", "was", "said", "to", "have", "been", "taken", "by", "forces", "loyal", "a", "commander")


def newsroom(seed: int, count: int, entities: int = 5_000, name: str = "doc") -> Iterator[Event]:
    """Yield assertions from articles of twenty claims each, about entities of very different fame."""
    random = Random(seed)
    outlet, said = "", ""
    for number in range(count):
        document, claim = divmod(number, 20)
        if claim == 0:
            outlet = f"outlet:{random.randrange(200)}"
            said = moment(random.randrange(100_000))
        subject = int(entities * random.random() ** 2)
        known: Event = {"entity": f"entity:{int(entities * random.random() ** 2)}"}
        value = known if random.random() < 0.5 else f"value {random.randrange(50)}"
        start = random.randrange(200, 30_000)
        quote = " ".join(random.choices(_WORDS, k=20))
        data: Event = {
            "subject": f"entity:{subject}",
            "predicate": random.choice(PREDICATES),
            "value": value,
            "valid": said[:10] + "/..",
            "confidence": round(random.uniform(0.6, 1.0), 2),
            "provenance": {
                "outlet": outlet,
                "document": {"uri": f"https://news.example/{name}/{document}", "published_at": said},
                "evidence": {"start": start, "end": start + len(quote), "quote": quote},
                "method": {"kind": "llm", "model": "bench-1", "run": f"run-{document // 500}"},
            },
        }
        if random.random() < 0.6:
            data["provenance"]["speakers"] = [f"speaker:{random.randrange(2_000)}"]
        if random.random() < 0.05:
            data["polarity"] = "denies"
        yield event(events.ASSERTION, f"{name}{document:07d}#{claim:02d}", data)


# --- slots by shape: what is asserted in one slot, one dictionary of `data` fields an assertion

Fields = dict[str, Any]
Shape = Callable[[int, Random], Iterator[Fields]]


def changing(count: int, random: Random) -> Iterator[Fields]:
    """A new value every hour, announced by one of forty origins: each outdates what was said before."""
    for hour in range(count):
        yield _said(f"v{hour % 50}", f"{moment(hour)}/..", hour, f"o{random.randrange(40)}")


def stable(count: int, random: Random) -> Iterator[Fields]:
    """One value, repeated for ever by forty origins."""
    for hour in range(count):
        yield _said("v0", f"{moment(0)}/..", hour, f"o{random.randrange(40)}")


def scattered(count: int, random: Random) -> Iterator[Fields]:
    """Eight values over random stretches of the past, up to a month long, told in any order by forty origins."""
    for _ in range(count):
        begins = random.randrange(count)
        ends = begins + random.randrange(1, 720)
        valid = f"{moment(begins)}/{moment(ends)}"
        yield _said(f"v{random.randrange(8)}", valid, random.randrange(count), f"o{random.randrange(40)}")


USUAL: Mapping[str, Shape] = {"changing": changing, "stable": stable, "scattered": scattered}


def _said(value: Any, valid: str | None, hour: int, outlet: str, **more: Any) -> Fields:
    fields = {"value": value, "asserted_at": moment(hour), "provenance": {"outlet": outlet}, **more}
    return fields if valid is None else {**fields, "valid": valid}


def many_origins(count: int, random: Random) -> Iterator[Fields]:
    """As many origins as assertions, agreeing on one value over stretches of their own."""
    for number in range(count):
        begins = random.randrange(count)
        yield _said("v0", f"{moment(begins)}/{moment(begins + 48)}", begins, f"o{number}")


def many_values(count: int, random: Random) -> Iterator[Fields]:
    """As many values as assertions, each on its own day."""
    for number in range(count):
        begins = random.randrange(count)
        yield _said(f"v{number}", f"{moment(begins)}/{moment(begins + 24)}", begins, f"o{number % 40}")


def rivals(count: int, _random: Random) -> Iterator[Fields]:
    """Values that all begin at different times, all told at the end: all of them stand beside each other."""
    for number in range(count):
        yield _said(f"v{number}", f"{moment(number)}/..", 2 * count, f"o{number}")


def vague_starts(count: int, random: Random) -> Iterator[Fields]:
    """Changes between two values in every month of two centuries, dated by the month only."""
    for number in range(count):
        month = _month(1800, 2_400 * number // count)
        said = f"{month}-{random.randrange(1, 29):02d}"
        fields = _said(f"v{number % 2}", f"{month}/..", 0, f"o{random.randrange(40)}")
        yield {**fields, "asserted_at": said}


def vague_unheeded(count: int, _random: Random) -> Iterator[Fields]:
    """Half is old and on the best word; half announces changes, each in a month of its own, on the worst."""
    for number in range(count // 2):
        yield {**_said("v0", None, 0, f"high{number}"), "asserted_at": "1000-01-01"}
        yield _said("v1", f"{_month(1010, number)}/..", number, f"low{number % 7}")


def _month(year: int, months: int) -> str:
    return f"{year + months // 12:04d}-{months % 12 + 1:02d}"


def denials(count: int, random: Random) -> Iterator[Fields]:
    """Half affirm, half deny, ten values."""
    for hour in range(count):
        polarity = "denies" if hour % 2 else "affirms"
        valid = f"{moment(hour)}/.."
        yield _said(f"v{random.randrange(10)}", valid, hour, f"o{random.randrange(40)}", polarity=polarity)


def denials_by_rating(count: int, _random: Random) -> Iterator[Fields]:
    """Half deny, on the best word; half announce the same value again, each with a rating of its own."""
    for number in range(count // 2):
        yield _said("v0", None, number, "high", polarity="denies")
        yield _said("v0", f"{moment(count + number)}/..", count + number, f"rated{number}")


def ratings(count: int, _random: Random) -> Iterator[Fields]:
    """As many ratings as assertions: a change of value every hour, each by an origin that is rated otherwise."""
    for hour in range(count):
        yield _said(f"v{hour % 50}", f"{moment(hour)}/..", hour, f"rated{hour}")


def high_against_low(count: int, _random: Random) -> Iterator[Fields]:
    """Half on the best word, said by as many of the best origins; half announce a change, on the worst."""
    for number in range(count // 2):
        yield _said("v0", None, number, f"high{number}")
        yield _said("v1", f"{moment(count + number)}/..", count + number, f"low{number % 7}")


def flip_flop(count: int, _random: Random) -> Iterator[Fields]:
    """One origin, now this and now that, each for an hour."""
    for hour in range(count):
        yield _said(f"v{hour % 2}", f"{moment(hour)}/{moment(hour + 1)}", hour, "o0")


def flip_flop_overlapping(count: int, random: Random) -> Iterator[Fields]:
    """One origin, now this and now that, over long stretches that overlap anyhow."""
    for hour in range(count):
        begins = random.randrange(count)
        ends = begins + random.randrange(1, count)
        yield _said(f"v{hour % 2}", f"{moment(begins)}/{moment(ends)}", 2 * count + hour, "o0")


def combs(count: int, _random: Random) -> Iterator[Fields]:
    """One origin: half of its words cover everything, and the later half takes an hour in two of that back."""
    for _ in range(count // 2):
        yield _said("v0", f"{moment(0)}/{moment(count)}", count, "o0")
    for number in range(count // 2):
        yield _said("v1", f"{moment(2 * number)}/{moment(2 * number + 1)}", count + 1 + number, "o0")


def last_word(count: int, _random: Random) -> Iterator[Fields]:
    """One origin's bounded words, all taken back by its last; and many others that those would have outdated."""
    half = count // 2
    for number in range(half):
        yield _said("v0", f"{moment(0)}/{moment(4 * count)}", number, f"p{number}")
    for number in range(half):
        begins = half + number
        yield _said("v1", f"{moment(begins)}/{moment(begins + 1)}", begins, "o0")
    yield _said("v2", f"../{moment(3 * count)}", 2 * count, "o0")


def ends(count: int, _random: Random) -> Iterator[Fields]:
    """Half affirm for ever, on the best word; half, on the worst, say that it ended, each at another time."""
    for number in range(count // 2):
        yield _said("v0", f"{moment(0)}/..", number, f"high{number}")
        yield _said("v0", f"{moment(0)}/{moment(count + number)}", count + number, f"low{number % 7}")


WORST: Mapping[str, Shape] = {
    "many origins": many_origins,
    "many values": many_values,
    "rivals, all standing": rivals,
    "ratings, all different": ratings,
    "vague starts": vague_starts,
    "vague starts, unheeded": vague_unheeded,
    "denials": denials,
    "denials by rating": denials_by_rating,
    "high- against low-rated": high_against_low,
    "ends announced by low-rated": ends,
    "flip-flop": flip_flop,
    "flip-flop, overlapping": flip_flop_overlapping,
    "flip-flop, a last word": last_word,
    "combs": combs,
}


def rating_of(origin: str) -> str | float | None:
    """Return how an origin of these shapes is rated, None if it is not."""
    if origin.startswith("high"):
        return 0.999_999
    if origin.startswith("low"):
        return 0.41
    return 0.45 + 0.5 / (2 + int(origin[5:])) if origin.startswith("rated") else None


# --- shapes as events, and as the inputs of belief


def shaped(shape: Shape, count: int, *, subject: str, slots: int = 1, seed: int = 1) -> Iterator[Event]:
    """Yield the events of one entity: so many assertions of one shape, dealt out to so many slots."""
    random = Random(seed)
    for slot in range(slots):
        for number, fields in enumerate(shape(count // slots, random)):
            data = {"subject": subject, "predicate": f"slot_{slot:02d}", **fields}
            yield event(events.ASSERTION, f"{subject}/{slot}/{number}", data)


def declared(slots: int = 20) -> Iterator[Event]:
    """Yield the events that make every slot of these shapes hold one value at a time."""
    for slot in range(slots):
        data = {"predicate": f"slot_{slot:02d}", "cardinality": "one"}
        yield event(events.PREDICATE, f"declares/{slot}", data)


def inputs(made: Iterable[Event]) -> list[Assertion]:
    """Return assertions as the projection keeps them, without a database."""
    return [
        assertion_of(Entry(position, LATER, e["type"], e["source"], e["time"], e["data"]))
        for position, e in enumerate(made)
    ]


def context(assertions: Iterable[Assertion]) -> Context:
    """Return the context in which the origins of these shapes are rated as they should be."""
    rated = ((speaker, rating_of(speaker)) for speaker in sorted({a.speaker for a in assertions}))
    recorded = [
        ContextEvent(position, events.AGENT, {"agent": agent, "reliability": rating})
        for position, (agent, rating) in enumerate(rated)
        if rating is not None
    ]
    return Context(recorded, recorded, {})


def value(name: str) -> str:
    """Return the key of a text value."""
    return value_key(name)


# --- appending


def requests(made: Iterable[Event], size: int) -> list[Request]:
    """Return requests of so many events each."""
    drafts = [events.read_event(e) for e in made]
    return [Request(drafts[i : i + size]) for i in range(0, len(drafts), size)]


def append(ledger: Ledger, request: Request) -> None:
    """Append one request in a transaction of its own; a refusal ends the benchmark."""
    (outcome,) = ledger.append([request])
    if not isinstance(outcome, Receipt):
        raise outcome


def fill(ledger: Ledger, made: Iterable[Event]) -> int:
    """Append events in large batches and return the size of the ledger."""
    batch: list[Event] = []
    for e in made:
        batch.append(e)
        if len(batch) == 5_000:
            append(ledger, Request([events.read_event(b) for b in batch]))
            batch = []
    if batch:
        append(ledger, Request([events.read_event(b) for b in batch]))
    return ledger.size()
