"""Answers as tables for people: the same JSON that programs get, laid out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from factledger.cli.terminal import shown

Json = Mapping[str, Any]

STYLES = {
    "accepted": "green",
    "reported": "cyan",
    "contested": "yellow",
    "outweighed": "magenta",
    "denied": "red",
    "withdrawn": "bright_black",
    "unknown": "bright_black",
}
_QUIET = "bright_black"
_WITH_BARS = 110  # columns
_EIGHTHS = " ▏▎▍▌▋▊▉"


# --- the small parts


def value(found: Any) -> str:
    """Return a value as people write it: texts quoted, ids and numbers as they are."""
    if isinstance(found, str):
        return f"“{shown(found)}”"
    if not isinstance(found, dict):
        return orjson.dumps(found).decode()
    if "text" in found:
        return f"“{shown(found['text'])}” ({shown(found['lang'])})" if "lang" in found else f"“{shown(found['text'])}”"
    if "quantity" in found:
        return _quantity(found["quantity"])
    return shown(str(next(iter(found.values()))))


def _quantity(found: Json) -> str:
    text = orjson.dumps(found["amount"]).decode()
    if "low" in found or "high" in found:
        text += " ({}–{})".format(
            *(orjson.dumps(found[end]).decode() if end in found else "" for end in ("low", "high"))
        )
    return f"{text} {shown(found['unit'])}" if "unit" in found else text


def moment(instant: str | None) -> str:
    """Return an RFC 3339 instant to the second, in UTC: its day alone at midnight."""
    if instant is None:
        return ""
    day, _, clock = instant.removesuffix("Z").partition("T")
    clock = clock.partition(".")[0]
    return day if clock in ("", "00:00:00") else f"{day} {clock.removesuffix(':00')}"


def span(begins: str | None, ends: str | None) -> str:
    """Return a half-open span: `2021-09-06 →` goes on, `→ 2021-09-06` has always been."""
    return "always" if begins is None and ends is None else f"{moment(begins)} → {moment(ends)}".strip()


def probability(p: float | None) -> str:
    """Return a probability with three decimals."""
    return "" if p is None else f"{p:.3f}"


def bar(share: float, width: int, style: str) -> Text:
    """Return a bar that is `share` full."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    filled = "█" * full + (_EIGHTHS[rest] if rest else "")
    return Text.assemble((filled, style), ("·" * (width - len(filled)), _QUIET))


def count(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def status(word: str) -> Text:
    """Return a status in its colour."""
    return Text(word, style=STYLES.get(word, ""))


def _table(*columns: str, numbers: Iterable[str] = (), title: str | None = None) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title, title_justify="left", title_style="bold", pad_edge=False
    )
    for column in columns:
        right = column in numbers
        table.add_column(column, justify="right" if right else "left", overflow="fold", no_wrap=right)
    return table


def _heading(answer: Json, *, of: str = "") -> Text:
    """Return whom an answer is about, and as of which coordinates."""
    at = answer["coordinates"]
    text = Text.assemble((shown(answer["entity"]), "bold"), (f"  {shown(of)}" if of else "", "bold"))
    others = [m for m in answer.get("members", ()) if m not in (answer["entity"], answer["canonical"])]
    if answer["canonical"] != answer["entity"]:
        text.append(f"  is {shown(answer['canonical'])}")
    if others:
        text.append(f"  also {', '.join(shown(other) for other in others)}", style=_QUIET)
    about = f"about {moment(at['valid_at'])}, " if at["valid_at"] is not None else ""
    known = f"size {at['at_size']}" + (f" ({moment(at['known_at'])})" if at["known_at"] else "")
    text.append(f"\n{about}as known at {known}", style=_QUIET)
    if at["asserted_before"] is not None:
        text.append(f", said before {moment(at['asserted_before'])}", style=_QUIET)
    if at["identity_at_size"] != at["at_size"]:
        text.append(f", who is who at size {at['identity_at_size']}", style=_QUIET)
    if at["method"] != "weighed":
        text.append(f", by {at['method']}", style=_QUIET)
    if at["when"] != "possible":
        text.append(f", {at['when']} only", style=_QUIET)
    return text


# --- the answers


def believed(answer: Json, console: Console) -> RenderableType:
    """Return the believed state of an entity."""
    graphic = console.is_terminal and console.width >= _WITH_BARS
    columns = ["predicate", "value", "status", "P", *([""] if graphic else []), "when", "origins", "valid"]
    table = _table(*columns, numbers=("P",))
    for predicate, slot in answer["facts"].items():
        for number, found in enumerate(slot["values"]):
            word = found["status"]
            table.add_row(
                shown(predicate) if number == 0 or not console.is_terminal else "",
                Text(value(found["value"]), style="bold" if number == 0 else ""),
                status(word),
                probability(found["probability"]),
                *([bar(found["probability"], 10, STYLES[word])] if graphic else []),
                found["when"] or "",
                witnesses(found["support"]["origins"], found["opposition"]["origins"]),
                span(found["valid"]["from"], found["valid"]["to"]),
            )
        if not slot["values"]:
            table.add_row(shown(predicate), "", status(slot["status"]))
    if not answer["facts"]:
        return Group(_heading(answer), Text("Nothing was asserted about it.", style=_QUIET))
    legend = Text("origins: how many independent ones say so (+) and deny it (−)", style=_QUIET)
    return Group(_heading(answer), table, legend)


def witnesses(support: int, opposition: int) -> Text:
    """Return in signs how many say so, and how many deny it."""
    return Text.assemble(
        (f"+{support}" if support else "  ", "green"), (f" −{opposition}" if opposition else "", "red")
    )


def timeline(answer: Json, _console: Console) -> RenderableType:
    """Return belief over valid time, one table for each predicate."""
    several = answer.get("timelines") or [answer]
    parts: list[RenderableType] = [_heading(answer)]
    for line in several:
        table = _table("from", "to", "status", "believed", title=shown(line["predicate"]))
        # Segments also part where a value goes from observed to presumed; that is not shown here.
        for _, alike in groupby(line["segments"], key=_looks):
            run = list(alike)
            table.add_row(
                moment(run[0]["from"]) or "ever",
                moment(run[-1]["to"]) or "ever",
                status(run[0]["status"]),
                values_in_line(run[0]["values"]),
            )
        parts.append(table)
    return Group(*parts)


def _looks(segment: Json) -> tuple[str, str]:
    return segment["status"], values_in_line(segment["values"]).plain


def values_in_line(found: Sequence[Json]) -> Text:
    """Return values with their probabilities in one line, best first."""
    parts = [
        Text.assemble((value(v["value"]), STYLES.get(v["status"], "")), f" {probability(v['probability'])}")
        for v in found
    ]
    return Text(", ").join(parts)


def history(answer: Json, _console: Console) -> RenderableType:
    """Return how belief changed, event by event."""
    if not answer["changes"]:
        return Group(_heading(answer), Text("Belief has not changed.", style=_QUIET))
    table = _table("at", "recorded", "of", "before", "after", "by", numbers=("at",))
    for change in answer["changes"]:
        cause, recorded = change["cause"], moment(change["recorded_at"])
        valid = span(change["valid"]["from"], change["valid"]["to"])
        table.add_row(
            str(change["position"]),
            Text(recorded.replace(" ", "\n")),
            _stacked(change["predicate"], Text(valid), "retroactive" if change["retroactive"] else ""),
            _side(change["before"]),
            _side(change["after"]),
            _stacked(cause["id"], _kind(cause), cause["source"]),
        )
    parts: list[RenderableType] = [_heading(answer), table]
    if answer["next"] is not None:
        going_on = parse_qs(urlsplit(answer["next"]).query)["from_size"][0]
        parts.append(Text(f"There is more: --from-size {going_on}", style=_QUIET))
    return Group(*parts)


def preview(answer: Json) -> RenderableType:
    """Return what posting would change, and what would survive it."""
    counts = (answer["recorded"], answer["duplicate"], answer["rejected"])
    parts: list[RenderableType] = [
        Text("Nothing is recorded. Posted now: {:,} new, {:,} there already, {:,} rejected.".format(*counts))
    ]
    parts += [
        Text(f"{shown(found['id'])} matches {count(found['matched']['count'], 'assertion')}.")
        for found in answer["results"]
        if "matched" in found
    ]
    parts.append(differences(answer["changes"]) if answer["changes"] else Text("Belief would not change."))
    if answer["survived"]:
        table = _table("of", "value", "status", "loses", "stands on")
        for found in answer["survived"]:
            table.add_row(
                _stacked(found["entity"], found["predicate"], span(found["valid"]["from"], found["valid"]["to"])),
                value(found["value"]),
                status(found["status"]),
                *(_witnesses(found[side], found[f"{side}_count"]) for side in ("lost", "support")),
            )
        parts += [Text("Loses support, and keeps its status", style="bold"), table]
    if answer["next"] is not None:
        parts.append(Text("There is more: a greater --limit shows it.", style=_QUIET))
    return Group(*parts)


def diff(answer: Json, _console: Console) -> RenderableType:
    """Return where belief differs between two states."""
    since, until = (
        f"size {answer[side]['size']:,}" + (f" ({moment(at)})" if (at := answer[side]["known_at"]) else "")
        for side in ("from", "to")
    )
    parts: list[RenderableType] = [Text(f"From {since} to {until}")]
    parts.append(differences(answer["changes"]) if answer["changes"] else Text("Belief is the same.", style=_QUIET))
    if answer["next"] is not None:
        parts.append(Text("There is more: a greater --limit shows it.", style=_QUIET))
    return Group(*parts)


def _witnesses(found: Sequence[Json], number: int) -> Text:
    """Return how many assertions there are, and the first few."""
    named = [f"{e['position']}  {e['origin']}" for e in found[:3]]
    return _stacked(count(number, "assertion"), *named, *(["…"] if number > len(named) else []))


def differences(found: Sequence[Json]) -> Table:
    """Return differences of belief, slot by slot."""
    table = _table("of", "valid", "before", "after", "by")
    for change in found:
        cause, others = change["cause"], change["cause_count"] - 1
        table.add_row(
            _stacked(change["entity"], change["predicate"]),
            _stacked(
                span(change["valid"]["from"], change["valid"]["to"]), "retroactive" if change["retroactive"] else ""
            ),
            _side(change["before"]),
            _side(change["after"]),
            _stacked(cause["id"], _kind(cause), cause["source"], f"and {others:,} before" if others else ""),
        )
    return table


def _kind(cause: Json) -> str:
    return str(cause["type"]).removeprefix("factledger.").removesuffix(".v1")


def _side(side: Json) -> Text:
    return Text("\n").join([status(side["status"]), *(values_in_line([found]) for found in side["values"])])


def _stacked(first: str, *below: str | Text) -> Text:
    """Return lines below one another, all but the first quiet; empty ones are left out."""
    lines = [line if isinstance(line, Text) else Text(shown(line), style=_QUIET) for line in below if line]
    return Text("\n").join([Text(shown(first)), *lines])


# --- why


def why(answer: Json, _console: Console) -> RenderableType:
    """Return what a belief rests on: the sentence, the evidence on each value, and what does not count."""
    parts: list[RenderableType] = [
        _heading(answer, of=answer["predicate"]),
        Text(f"\n{shown(answer['sentence'])}\n", style="bold"),
    ]
    for found in answer["values"]:
        table = _evidence_table("", "weight")
        for sign, side in (("+", found["for"]), ("−", found["against"])):
            for e in side:
                table.add_row(Text(sign, style="green" if sign == "+" else "red"), *_evidence(e), f"{e['weight']:+.3f}")
        headline = Text.assemble(
            (value(found["value"]), "bold"), "  ", status(found["status"]), f"  P {probability(found['probability'])}"
        )
        parts += [headline, table]
    for name, title in (
        ("superseded", "Superseded: the same origin spoke again"),
        ("outdated", "Outdated: the world is said to have changed"),
        ("not_in_force", "Not in force: taken back or corrected"),
        ("no_surety", "Without surety: its source or outlet is quarantined"),
    ):
        if answer[name]:
            table = _evidence_table("value", "because of")
            for e in answer[name]:
                stance = ("not " if e["polarity"] == "denies" else "") + value(e["value"])
                table.add_row(stance, *_evidence(e), _cause(e.get("by") or e.get("because")))
            parts += [Text(title, style="bold"), table]
    policy = answer["policy"]
    set_by = "the default" if policy["position"] is None else f"set at position {policy['position']}"
    parts.append(Text(f"policy: {policy['method']}, {set_by}; q: how sure it is that the origin said it", style=_QUIET))
    return Group(*parts)


def _evidence_table(first: str, last: str) -> Table:
    columns = (first, "origin, outlet", "said", "about", "rel.", "q", "event", last)
    return _table(*columns, numbers=("rel.", "q", "weight"))


def _evidence(e: Json) -> tuple[str | Text, ...]:
    outlet = "" if e["outlet"] == e["origin"] else e["outlet"]
    about = shown(e["valid"]["edtf"]) if e["valid"]["edtf"] else span(e["valid"]["from"], e["valid"]["to"])
    return (
        _stacked(e["origin"], outlet),
        moment(e["asserted_at"]),
        about,
        f"{e['reliability']:.2f}",
        f"{e['q']:.2f}",
        _stacked(str(e["position"]), e["id"]),
    )


def _cause(cause: Json | None) -> Text:
    return Text() if cause is None else _stacked(str(cause["position"]), cause["id"], cause.get("reason", ""))


# --- replay


def states() -> Table:
    """Return an empty table for the states of many entities."""
    return _table("entity", "predicate", "status", "best value", "P", "origins", numbers=("P", "origins"))


def add_state(table: Table, answer: Json) -> None:
    """Add a row for each slot of an entity."""
    for predicate, slot in answer["facts"].items():
        best = slot["values"][0] if slot["values"] else None
        table.add_row(
            shown(answer["canonical"]),
            shown(predicate),
            status(slot["status"]),
            value(best["value"]) if best else "",
            probability(best["probability"]) if best else "",
            str(best["support"]["origins"]) if best else "",
        )
