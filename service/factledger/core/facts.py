"""The nouns: ids, values and the keys that they are compared by."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from factledger.core import encoding, times

ID_LENGTH = 256
_ID = re.compile(r"[^\s\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]{1,256}")
_PREDICATE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_LANGUAGE = re.compile(r"(?a:[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*)")
ENTITY_KEY = '{"entity":'  # how the key of a value that is an entity starts

VALUE_TYPES = ("any", "text", "number", "boolean", "date", "entity", "quantity")

Report = Callable[[str, str], None]  # (pointer, what is wrong and what belongs there)


def is_id(candidate: object) -> bool:
    """Tell whether it is an entity or agent id: 1 to 256 characters, no white space, no control characters."""
    return isinstance(candidate, str) and _ID.fullmatch(candidate) is not None


def is_predicate(candidate: object) -> bool:
    """Tell whether it is a predicate name: `[a-z][a-z0-9_]{0,63}`."""
    return isinstance(candidate, str) and _PREDICATE.fullmatch(candidate) is not None


def is_language(candidate: object) -> bool:
    """Tell whether it has the form of a language tag (BCP 47)."""
    return isinstance(candidate, str) and _LANGUAGE.fullmatch(candidate) is not None


def is_number(candidate: object) -> bool:
    """Tell whether it is a JSON number; JSON's booleans are Python's integers, and are not."""
    return isinstance(candidate, int | float) and not isinstance(candidate, bool)


def check_value(value: object, pointer: str, report: Report) -> None:
    """Report everything that keeps `value` from being a value of contract §1."""
    if isinstance(value, str | bool) or is_number(value):
        return
    if not isinstance(value, dict):
        report(pointer, "must be a string, a number, a boolean, or an object with entity, date, text or quantity")
        return
    if "entity" in value:
        _only(value, {"entity"}, pointer, report)
        if not is_id(value["entity"]):
            report(f"{pointer}/entity", "must be an id of 1 to 256 characters without white space")
    elif "date" in value:
        _only(value, {"date"}, pointer, report)
        check_edtf(value["date"], f"{pointer}/date", report)
    elif "text" in value:
        _only(value, {"text", "lang"}, pointer, report)
        if not isinstance(value["text"], str):
            report(f"{pointer}/text", "must be a string")
        if not is_language(value.get("lang")):
            report(f"{pointer}/lang", "must be a language tag such as en or prs-AF")
    elif "quantity" in value:
        _only(value, {"quantity"}, pointer, report)
        _check_quantity(value["quantity"], f"{pointer}/quantity", report)
    else:
        report(pointer, "must have exactly one of the members entity, date, text or quantity")


def _check_quantity(quantity: object, pointer: str, report: Report) -> None:
    if not isinstance(quantity, dict):
        report(pointer, "must be an object with amount, and low, high and unit if they are known")
        return
    _only(quantity, {"amount", "low", "high", "unit"}, pointer, report)
    for name in ("amount", "low", "high"):
        if name in quantity and not is_number(quantity[name]):
            report(f"{pointer}/{name}", "must be a number")
    if "amount" not in quantity:
        report(f"{pointer}/amount", "is required")
    if "unit" in quantity and not (isinstance(quantity["unit"], str) and 0 < len(quantity["unit"]) <= 64):
        report(f"{pointer}/unit", "must be a string of 1 to 64 characters")
    bounds = [quantity[name] for name in ("low", "amount", "high") if is_number(quantity.get(name))]
    if bounds != sorted(bounds):
        report(pointer, "must have low <= amount <= high")


def check_edtf(text: object, pointer: str, report: Report) -> None:
    """Report what keeps `text` from being an EDTF date or interval."""
    if not isinstance(text, str):
        report(pointer, "must be a string holding an EDTF date or interval")
        return
    try:
        times.parse_valid(text)
    except ValueError as problem:
        report(pointer, str(problem))


def _only(given: dict[str, Any], allowed: set[str], pointer: str, report: Report) -> None:
    for name in sorted(given.keys() - allowed):
        report(f"{pointer}/{escape(name)}", f"is not a known field here; known: {', '.join(sorted(allowed))}")


def escape(name: str) -> str:
    """Return a member name as a JSON pointer token (RFC 6901); names from outside are cut to 64 characters."""
    return name[:64].replace("~", "~0").replace("/", "~1")


def value_type(value: object) -> str:
    """Return the vocabulary's word for the type of a checked value."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, dict):
        return str(next(name for name in ("entity", "date", "text", "quantity") if name in value))
    return "text" if isinstance(value, str) else "number"


def value_key(value: object) -> str:
    """Return the text that a value is compared by: its canonical JSON (RFC 8785), entities as posted."""
    return encoding.canonical_bytes(value).decode()


def entity_of(key: str) -> str | None:
    """Return the entity id that a value's key points at, or None for a literal."""
    if not key.startswith(ENTITY_KEY):
        return None
    entity = encoding.parse_json(key.encode())["entity"]
    assert isinstance(entity, str)
    return entity


def entity_in(value: object) -> str | None:
    """Return the entity that a checked value is, or None for a literal."""
    return value.get("entity") if isinstance(value, dict) else None


def entity_key(entity: str) -> str:
    """Return the key of the value that is this entity."""
    return value_key({"entity": entity})
