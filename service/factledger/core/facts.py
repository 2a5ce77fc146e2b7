"""The nouns: ids, values and the keys that they are compared by."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from factledger.core import encoding, times

ID_LENGTH = 256
_ID = re.compile(r"[^\s\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]{1,256}")
_PREDICATE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_LANGUAGE = re.compile(r"(?a:[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*)")
ENTITY_KEY = '{"entity":'  # how the key of a value that is an entity starts

VALUE_TYPES = ("any", "text", "number", "boolean", "date", "entity", "quantity")

# What a check finds: (pointer from what was checked, what is wrong and what belongs there). Nothing is most common, so
# a pointer is put together only once something is wrong.
Found = Sequence[tuple[str, str]]
NOTHING: Found = ()


def wrong(detail: str, pointer: str = "") -> Found:
    """Return one fault."""
    return ((pointer, detail),)


def within(name: str | int, found: Found) -> Found:
    """Return what was found in a member as found in the whole."""
    return [(f"/{name}{pointer}", detail) for pointer, detail in found]


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


def check_value(value: object) -> Found:
    """Return everything that keeps `value` from being a value of contract §1."""
    if isinstance(value, str | bool) or is_number(value):
        return NOTHING
    if not isinstance(value, dict):
        return wrong("must be a string, a number, a boolean, or an object with entity, date, text or quantity")
    found = list[tuple[str, str]]()
    if "entity" in value:
        found += _only(value, {"entity"})
        if not is_id(value["entity"]):
            found += wrong("must be an id of 1 to 256 characters without white space", "/entity")
    elif "date" in value:
        found += _only(value, {"date"})
        found += within("date", check_edtf(value["date"]))
    elif "text" in value:
        found += _only(value, {"text", "lang"})
        if not isinstance(value["text"], str):
            found += wrong("must be a string", "/text")
        if not is_language(value.get("lang")):
            found += wrong("must be a language tag such as en or prs-AF", "/lang")
    elif "quantity" in value:
        found += _only(value, {"quantity"})
        found += within("quantity", _check_quantity(value["quantity"]))
    else:
        found += wrong("must have exactly one of the members entity, date, text or quantity")
    return found


def _check_quantity(quantity: object) -> Found:
    if not isinstance(quantity, dict):
        return wrong("must be an object with amount, and low, high and unit if they are known")
    found = [*_only(quantity, {"amount", "low", "high", "unit"})]
    for name in ("amount", "low", "high"):
        if name in quantity and not is_number(quantity[name]):
            found += wrong("must be a number", f"/{name}")
    if "amount" not in quantity:
        found += wrong("is required", "/amount")
    if "unit" in quantity and not (isinstance(quantity["unit"], str) and 0 < len(quantity["unit"]) <= 64):
        found += wrong("must be a string of 1 to 64 characters", "/unit")
    bounds = [quantity[name] for name in ("low", "amount", "high") if is_number(quantity.get(name))]
    if bounds != sorted(bounds):
        found += wrong("must have low <= amount <= high")
    return found


def check_edtf(text: object) -> Found:
    """Return what keeps `text` from being an EDTF date or interval."""
    if not isinstance(text, str):
        return wrong("must be a string holding an EDTF date or interval")
    try:
        times.parse_valid(text)
    except ValueError as problem:
        return wrong(str(problem))
    return NOTHING


def _only(given: dict[str, Any], allowed: set[str]) -> Found:
    if given.keys() <= allowed:
        return NOTHING
    detail = f"is not a known field here; known: {', '.join(sorted(allowed))}"
    return [(f"/{escape(name)}", detail) for name in sorted(given.keys() - allowed)]


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
