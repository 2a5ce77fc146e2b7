"""Import Wikidata entities: lines of a dump in JSON, or what Special:EntityData returns.

    python -m docs.importers.wikidata entities.json.gz --previous entities-of-last-month.json.gz

A line is one entity. Source: Wikibase, `docs/topics/json.md`; Wikidata, Help:Ranking and Help:Dates.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date as day_of
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from docs.importers.importing import Event, LeftOut, Mapped, Row, main, opened
from factledger.client import assertion, date, entity, predicate, quantity, retraction, text

SOURCE = "importer:wikidata@1"
WIKIDATA = "wd:Q2013"
JULIAN = "http://www.wikidata.org/entity/Q1985786"
EARTH = "http://www.wikidata.org/entity/Q2"

# What is no matter of time, by property or data type: it always holds. Of anything else nothing is said of the time
# before it was stated, unless qualifiers do.
TIMELESS = {"P31", "P279", "P19", "P20", "P22", "P25", "time", "external-id", "globe-coordinate"}
# What narrows a statement down, so that without it something else would be said: applies to part, of, jurisdiction.
NARROWING = {"P518", "P642", "P1001"}
SINGLE = {"Q19474404", "Q52060874"}  # constraints on a property: one value, one best value
RANKS = ("deprecated", "normal", "preferred")
# Of P1480, sourcing circumstances: presumably, probably, possibly; and circa, of a date
CERTAINTY: dict[str, Literal["probable", "possible"]] = {
    "Q18122778": "probable",
    "Q56644435": "probable",
    "Q30230067": "possible",
}
CIRCA = "Q5727902"

Snaks = Mapping[str, Sequence[Row]]  # by property


# --- values


def edtf(time: Row, *, circa: bool = False) -> str:
    """Return a point in time in EDTF: no finer than its precision, and in the Gregorian calendar.

    Raises:
        ValueError: it is coarser than a millennium, or no time.
    """
    match = re.fullmatch(r"([+-]\d+)-(\d\d)-(\d\d)T(\d\d:\d\d:\d\d)Z", time["time"])
    if match is None or int(match[1]) == 0:
        raise ValueError(f"{time['time']!r} is no time")
    historical, month, day = int(match[1]), int(match[2]), int(match[3])
    year = historical + (historical < 0)  # EDTF has a year 0, which is 1 BCE
    precision, julian = time["precision"], time["calendarmodel"] == JULIAN
    if precision < 9 and precision >= 6:
        return _coarse(historical, precision)
    if precision < 6:
        raise ValueError("is coarser than a millennium")
    about = "~" if circa or (julian and precision < 11) else ""  # a month of one calendar is parts of two in the other
    if precision >= 11 and julian:
        written = _gregorian(year, month, day)
    else:
        written = "-".join([_year(year), f"{month:02d}", f"{day:02d}"][: min(precision, 11) - 8])
    return f"{written}T{match[4]}Z" if precision == 14 else written + about


def _coarse(historical: int, precision: int) -> str:
    """Return a decade, century or millennium as digits left open. The 20th century is 19XX: 1900 to 1999."""
    digits = {8: 1, 7: 2, 6: 3}[precision]
    if historical < 0 and digits == 1:
        digits = 2  # the 40s BCE are -0048 to -0039, which is no decade of EDTF's
    sign, count = ("-", -historical - 1) if historical < 0 else ("", historical - (digits > 1))
    if count > 9999:
        raise ValueError("is beyond the year 9999")
    return sign + f"{count:04d}"[:-digits] + "X" * digits


def _gregorian(year: int, month: int, day: int) -> str:
    """Return the Gregorian date of a day in the Julian calendar; years are astronomical."""
    before_march = (14 - month) // 12
    years = year + 4800 - before_march
    months = month + 12 * before_march - 3
    ordinal = day + (153 * months + 2) // 5 + 365 * years + years // 4 - 1_753_508
    cycles = 0 if ordinal > 0 else -((ordinal - 1) // 146_097)  # of 400 years; Python's calendar begins with the year 1
    gregorian = day_of.fromordinal(ordinal + cycles * 146_097)
    return f"{_year(gregorian.year - 400 * cycles)}-{gregorian:%m-%d}"


def _year(year: int) -> str:
    return f"Y{year}" if abs(year) > 9999 else f"{'-' * (year < 0)}{abs(year):04d}"


def _number(digits: str) -> int | float:
    exact = Decimal(digits)
    if exact == exact.to_integral_value() and abs(exact) < 2**53:
        return int(exact)
    if Decimal(repr(float(exact))) != exact:
        raise ValueError(f"{digits} has more digits than a number in the ledger")
    return float(exact)


def value(snak: Row, guid: str, *, circa: bool = False) -> Any:
    """Return what a snak says, as a value of the ledger.

    Raises:
        ValueError: the ledger has nothing for it.
    """
    if snak["snaktype"] == "somevalue":
        return entity(f"wd:somevalue/{guid}")  # something, and nobody knows what: it has an id, so it can be judged
    if snak["snaktype"] == "novalue":
        return entity("wd:novalue")
    kind, said = snak["datavalue"]["type"], snak["datavalue"]["value"]
    match kind:
        case "string":
            return said
        case "wikibase-entityid":
            return entity(f"wd:{said['id']}")
        case "monolingualtext":
            return text(said["text"], said["language"])
        case "time":
            return date(edtf(said, circa=circa))
        case "quantity":
            bounds = sorted(_number(said[bound]) for bound in ("lowerBound", "upperBound") if said.get(bound))
            low, high = bounds or (None, None)
            unit = None if said["unit"] == "1" else "wd:" + said["unit"].rpartition("/")[2]
            return quantity(_number(said["amount"]), unit, low=low, high=high)
        case "globecoordinate" if said["globe"] == EARTH:
            return "geo:{:f},{:f}".format(*(Decimal(str(said[axis])) for axis in ("latitude", "longitude")))
    raise ValueError(f"has a value of the type {kind}, for which the ledger has none")


# --- qualifiers and references


def _only(snaks: Snaks, name: str) -> Row | None:
    """Return the one snak of a property, if there is any.

    Raises:
        ValueError: there are several.
    """
    given = snaks.get(name, ())
    if len(given) > 1:
        raise ValueError(f"is qualified by {name} more than once")
    return given[0] if given else None


def valid(qualifiers: Snaks, *, timeless: bool, by: str) -> str | None:
    """Return for which time a statement holds, by its qualifiers; `by` is the day by which it was made."""
    start, end, point = (_only(qualifiers, name) for name in ("P580", "P582", "P585"))
    if start is end is None:
        if point is not None and point["snaktype"] == "value":
            return edtf(point["datavalue"]["value"])
        return "../.." if timeless else None
    unknown = {"somevalue": "", "novalue": ".."}
    begins = "" if start is None else unknown.get(start["snaktype"]) or _moment(start)
    if end is None:
        return f"{begins}/"
    if end["snaktype"] == "somevalue":  # over, and nobody knows since when
        return f"{begins}/XXXX" if begins else f"XXXX/{by}"
    return f"{begins}/{unknown.get(end['snaktype']) or _moment(end)}"


def _moment(snak: Row) -> str:
    return edtf(snak["datavalue"]["value"]) if snak["snaktype"] == "value" else ""


def _ids(snaks: Snaks, name: str) -> list[str]:
    return [snak["datavalue"]["value"]["id"] for snak in snaks.get(name, ()) if snak["snaktype"] == "value"]


def _first(snaks: Snaks, name: str) -> Any:
    found = (snak["datavalue"]["value"] for snak in snaks.get(name, ()) if snak["snaktype"] == "value")
    return next(found, None)


def _day(time: Row | None) -> str | None:
    return edtf(time) if time is not None and time["precision"] == 11 and time["time"].startswith("+") else None


@dataclass(frozen=True, slots=True)
class Reference:
    """Whose word a reference names, and where it stands."""

    speaker: str | None
    document: Row | None
    said_at: str | None

    @classmethod
    def of(cls, snaks: Snaks) -> Reference:
        """Read what it is stated in, or imported from, or else the site of its URL."""
        url, title = _first(snaks, "P854"), _first(snaks, "P1476")
        stated = [f"wd:{one}" for one in _ids(snaks, "P248") + _ids(snaks, "P143")]
        site = [f"site:{urlsplit(url).hostname}"] if url and urlsplit(url).hostname else []
        published = _day(_first(snaks, "P577"))
        document = {"uri": url, "published_at": published}
        if title is not None:
            document |= {"title": title["text"], "language": title["language"]}
        document = {name: member for name, member in document.items() if member is not None}
        speaker = next(iter(stated + site), None)
        return cls(speaker, document or None, published or _day(_first(snaks, "P813")))


# --- entities


@dataclass(frozen=True, slots=True)
class Entity:
    """One revision of an entity."""

    row: Row

    @property
    def id(self) -> str:
        """Return its id."""
        return str(self.row["id"])

    @property
    def revision(self) -> int:
        """Return which revision it is. Events carry it in their ids: another revision may say otherwise."""
        return int(self.row["lastrevid"])

    def groups(self) -> dict[str, Any]:
        """Return its content in the parts that are imported, and replaced, as a whole: by predicate."""
        row = self.row
        names = {"name": row.get("labels"), "alias": row.get("aliases")}
        # PHP writes an empty object as an empty list.
        return {name: group for name, group in {**names, **(row.get("claims") or {})}.items() if group}

    def events(self, name: str, group: Any) -> Iterator[Event | LeftOut]:
        """Yield what one of its groups says."""
        match name:
            case "name":
                for language, label in group.items():
                    yield self._named("name", label, f"label/{language}")
            case "alias":
                for language, aliases in group.items():
                    for number, alias in enumerate(aliases):
                        yield self._named("alias", alias, f"alias/{language}/{number}")
            case _:
                # The better ranked come last: of what Wikidata itself says, its last word counts.
                for claim in sorted(group, key=lambda claim: RANKS.index(claim["rank"])):
                    try:
                        yield from list(self._statement(claim))
                    except KeyError as missing:
                        yield LeftOut(f"{claim.get('id')} has no {missing}")
                    except (AttributeError, LookupError, TypeError, ValueError) as problem:
                        yield LeftOut(f"{claim.get('id')} {problem}")

    def declaration(self) -> Iterator[Event]:
        """Yield what a property means as a predicate."""
        if self.row["type"] == "property":
            constraints = [claim["mainsnak"] for claim in self.row["claims"].get("P2302", ())]
            single = not SINGLE.isdisjoint(_ids({"P2302": constraints}, "P2302"))
            label = self.row["labels"].get("en", {}).get("value")
            name = self.id.lower()
            yield predicate(name, "one" if single else "many", label=label, id=f"{name}@{self.revision}")

    def replaced(self, name: str) -> Event:
        """Return what takes back all that earlier revisions said under a predicate."""
        said = {"source": SOURCE, "subject": f"wd:{self.id}", "predicate": name.lower()}
        return retraction(where=said, reason="source_withdrew", id=f"{self.id}/{name} before {self.revision}")

    def _named(self, name: str, term: Row, path: str) -> Event:
        said = text(term["value"], term["language"])
        return self._own(name, said, f"{self.id}/{path}@{self.revision}", valid="../..")

    def _own(self, name: str, said: Any, event_id: str, **more: Any) -> Event:
        """Return what Wikidata itself says."""
        document = {"uri": f"https://www.wikidata.org/w/index.php?title={self.id}&oldid={self.revision}"}
        at = self.row["modified"]
        return assertion(
            f"wd:{self.id}", name, said, outlet=WIKIDATA, document=document, asserted_at=at, id=event_id, **more
        )

    def _statement(self, claim: Row) -> Iterator[Event]:
        snak, qualifiers, rank = claim["mainsnak"], claim.get("qualifiers") or {}, claim["rank"]
        narrowed = NARROWING & set(qualifiers)
        if narrowed:
            raise ValueError(f"is narrowed by {', '.join(sorted(narrowed))}, which the ledger could not say")
        circumstances = _ids(qualifiers, "P1480")
        name = snak["property"].lower()
        said = value(snak, claim["id"], circa=CIRCA in circumstances)
        timeless = not TIMELESS.isdisjoint((snak["property"], snak.get("datatype")))
        span = valid(qualifiers, timeless=timeless, by=self.row["modified"][:10])
        certainty = next((CERTAINTY[one] for one in circumstances if one in CERTAINTY), None)

        references = [(given["hash"], Reference.of(given["snaks"])) for given in claim.get("references", ())]
        sourced = [(digest, reference) for digest, reference in references if reference.speaker]
        for digest, reference in sourced:
            yield assertion(
                f"wd:{self.id}",
                name,
                said,
                outlet=WIKIDATA,
                speakers=reference.speaker,
                document=reference.document,
                valid=span,
                asserted_at=reference.said_at or self.row["modified"],
                certainty=certainty,
                id=f"{claim['id']}/{digest}@{self.revision}",
            )
        for number, disputer in enumerate(_ids(qualifiers, "P1310")):
            yield assertion(
                f"wd:{self.id}",
                name,
                said,
                outlet=WIKIDATA,
                polarity="denies",
                speakers=f"wd:{disputer}",
                valid=span,
                asserted_at=self.row["modified"],
                id=f"{claim['id']}/disputed/{number}@{self.revision}",
            )
        own = f"{claim['id']}@{self.revision}"
        if rank == "deprecated":
            yield self._own(name, said, own, valid=span, polarity="denies")
        elif rank == "preferred" or not sourced:
            yield self._own(name, said, own, valid=span, certainty=certainty)


def entities(file: Path) -> Iterator[tuple[int, Entity | LeftOut]]:
    """Yield the entities of a file with their lines."""
    with opened(file) as lines:
        for number, line in enumerate(lines, 1):
            stripped = line.strip().rstrip(",")
            if stripped in ("", "[", "]"):
                continue
            try:
                read = json.loads(stripped)
                given = read["entities"].values() if "entities" in read else [read]
                lacking = [name for row in given for name in ("id", "lastrevid", "modified") if name not in row]
            except (AttributeError, TypeError, ValueError):
                yield number, LeftOut("is no entity in JSON")
                continue
            if lacking:
                yield number, LeftOut(f"lacks {', '.join(lacking)}")
            else:
                yield from ((number, Entity(row)) for row in given)


def importer(file: Path, previous: Path | None) -> Iterator[Mapped]:
    """Yield the events of a file: all, or what differs from the previous one."""
    before: dict[str, dict[str, bytes]] = {}  # by entity and predicate
    for _, one in entities(previous) if previous else ():
        if not isinstance(one, LeftOut):
            before[one.id] = {name: _digest(group) for name, group in one.groups().items()}
    for number, one in entities(file):
        if isinstance(one, LeftOut):
            yield number, one
        else:
            yield from ((number, event) for event in _differences(one, before.pop(one.id, {})))
    for entity_id in before:
        gone = {"source": SOURCE, "subject": f"wd:{entity_id}"}
        yield 0, retraction(where=gone, reason="source_withdrew", id=f"{entity_id} gone")


def _differences(one: Entity, earlier: Mapping[str, bytes]) -> Iterator[Event | LeftOut]:
    yield from one.declaration()
    groups = one.groups()
    for name in sorted(groups.keys() | earlier):
        group = groups.get(name)
        if group is not None and _digest(group) == earlier.get(name):
            continue
        if name in earlier:
            yield one.replaced(name)
        if group is not None:
            yield from one.events(name, group)


def _digest(group: Any) -> bytes:
    return hashlib.sha256(json.dumps(group, sort_keys=True).encode()).digest()


if __name__ == "__main__":
    sys.exit(main(importer, SOURCE, __doc__))
