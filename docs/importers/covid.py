"""Import figures that publishers stated, passed on and edited: the lines of opencovid19-fr.

    python -m docs.importers.covid claims.jsonl.gz

A line: subject, subject_name, level, predicate, value, date, source, url, archive, path, asserted_at, last_edit.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from docs.importers.importing import Event, LeftOut, Mapped, Row, json_lines, main, mapped, once, slug
from factledger.client import agent, assertion, predicate

SOURCE = "importer:opencovid19-fr@1"

# An edited report shows its last figures only. How sure that a figure was in it from the start:
UNSEEN = 0.9

# Two spellings of one measure.
SAME_MEASURE = {"hospitalise": "hospitalises", "reanimations": "reanimation"}

# Who publishes figures that are another's, as comparing them shows.
RELAYS = {
    "Le Petit Corse": "ARS Corse",
    "Préfecture d'Ille-et-Vilaine": "ARS Bretagne",
    "Préfecture de Bretagne": "ARS Bretagne",
    "Préfecture du Morbihan": "ARS Bretagne",
    "Préfecture région Bretagne": "ARS Bretagne",
}


def publisher(name: str) -> str:
    """Return the id of a publisher."""
    return f"publisher:{slug(name)}"


def published(row: Row) -> tuple[str, str | None]:
    """Return who published a figure, and whose word it is if not theirs."""
    names: list[str] = re.split(r", | et (?=Préfecture)", row["source"])
    if len(names) == 2:  # "Préfecture de la Manche, ARS Normandie": on the prefecture's site, by the agency
        agency, prefecture = sorted(names, key=lambda name: name.startswith("Préfecture"))
        return prefecture, agency
    host = urlsplit(row["url"] or "").netloc
    if names[0].startswith("ARS ") and host.endswith((".gouv.fr", ".chu-angers.fr")):
        return host, names[0]  # an agency's figure on the site of a prefecture or a hospital
    return names[0], None


def said_at(row: Row) -> str:
    """Return when a report was first seen: in the collection, or else in the web archive."""
    if row["asserted_at"]:
        return str(row["asserted_at"])
    captured = re.search(r"/web/(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)", row["archive"] or "")
    if captured is None:
        raise ValueError("says nowhere when it was published")
    return "{}-{}-{}T{}:{}:{}Z".format(*captured.groups())


def edition(row: Row) -> str:
    """Return the id of the event that has a figure as the report shows it now."""
    return f"{row['path']}#{row['subject']}/{row['predicate']}@{row['last_edit'] or said_at(row)}"


def claims(row: Row, before: Row | None = None) -> Iterator[Event]:
    """Yield what a line says, given the same line of the collection that was imported before.

    Raises:
        LookupError, TypeError, ValueError: it lacks something.
    """
    if type(row["value"]) is not int:
        raise ValueError(f"the figure is {row['value']!r}, not a whole number")
    measure: str = row["predicate"]
    measure = SAME_MEASURE.get(measure, measure)
    name = slug(measure, "_")
    place = f"insee:{row['subject']}" if row["subject"] else "place:world"
    outlet, speaker = published(row)
    uri = row["archive"] or row["url"]

    yield predicate(name, "one", value_type="number", label=measure, id=f"predicate/{name}")
    for one in dict.fromkeys((outlet, speaker or outlet)):
        relays = publisher(RELAYS[one]) if one in RELAYS else ...
        yield agent(publisher(one), label=one, relays=relays, id=f"agent/{slug(one)}")

    def figure(**more: Any) -> Event:
        return assertion(
            place,
            name,
            row["value"],
            outlet=publisher(outlet),
            speakers=publisher(speaker) if speaker else None,
            document={"uri": uri, "language": "fr"} if uri else None,
            valid=row["date"],  # a count of that day, and of no other
            **more,
        )

    first, last = said_at(row), row["last_edit"] or said_at(row)
    if before is not None:
        if edition(before) != edition(row):
            yield figure(asserted_at=last, corrects=edition(before), id=edition(row))
    elif last == first:
        yield figure(asserted_at=first, id=edition(row))
    else:
        unseen = f"{edition(row)} from {first}"
        yield figure(asserted_at=first, confidence=UNSEEN, id=unseen)
        yield figure(asserted_at=last, corrects=unseen, id=edition(row))


def known_as(row: Row) -> tuple[Any, ...]:
    """Return what is the same of a figure in every version of the collection."""
    return row["path"], row["subject"], row["predicate"]


def importer(file: Path, previous: Path | None) -> Iterator[Mapped]:
    """Yield the events of a file."""
    earlier = json_lines(previous) if previous else ()
    before = {known_as(row): row for _, row in earlier if not isinstance(row, LeftOut)}
    yield from once(mapped(json_lines(file), lambda row: claims(row, before.get(known_as(row)))))


if __name__ == "__main__":
    sys.exit(main(importer, SOURCE, __doc__))
