"""Time: instants as integer microseconds, EDTF texts as spans with bounds on both ends.

Instants are microseconds since 1970-01-01T00:00:00Z, proleptic Gregorian, without leap seconds. Spans are
half-open. Source: EDTF (ISO 8601-2:2019), levels 0 and 1, and of level 2 the qualification of parts, digits
unspecified anywhere and sub-year groupings.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import lru_cache

DAY = 86_400_000_000
BEGINNING = -(2**63) + 1  # earlier than every instant; fits a signed 64-bit column
FOREVER = 2**63 - 1  # later than every instant
YEAR_LIMIT = 200_000  # keeps every instant well inside 64 bits


class StartKind(IntEnum):
    """What was said about the start of a span."""

    UNKNOWN = 0
    UNBOUNDED = 1
    EXACT = 2
    VAGUE = 3


class EndKind(IntEnum):
    """What was said about the end of a span."""

    OPEN = 0  # unknown, or unbounded: presumed to go on
    KNOWN = 1  # the interval names its end
    OBSERVED = 2  # a single date: it covers its days and announces no end


@dataclass(frozen=True, slots=True)
class Valid:
    """An EDTF text as bounds, before the instant of assertion is known; unused bounds are None."""

    start_kind: StartKind
    start_earliest: int | None
    start_latest: int | None
    end_kind: EndKind
    end_earliest: int | None
    end_latest: int | None
    end_timed: bool


@dataclass(frozen=True, slots=True)
class Span:
    """When an assertion holds: `[starts_earliest, ends_latest)`, with bounds on both ends.

    An open end is `FOREVER`; whether it lapses is up to the vocabulary, which is not known here.
    """

    start_kind: StartKind
    starts_earliest: int
    starts_latest: int
    end_kind: EndKind
    ends_earliest: int
    ends_latest: int


def days_from_civil(year: int, month: int, day: int) -> int:
    """Return the days from 1970-01-01 to a proleptic Gregorian date, for any year."""
    year -= month <= 2
    era = year // 400
    year_of_era = year - era * 400
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719_468


def civil_from_days(days: int) -> tuple[int, int, int]:
    """Return (year, month, day) of a day counted from 1970-01-01."""
    days += 719_468
    era = days // 146_097
    day_of_era = days - era * 146_097
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    month = shifted + (3 if shifted < 10 else -9)
    return year_of_era + era * 400 + (month <= 2), month, day_of_year - (153 * shifted + 2) // 5 + 1


def _month_length(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


_PLAIN = re.compile(r"(?a:[12]\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{6})?Z)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DATE_TIME = re.compile(
    r"(?a:(-?\d{4}|[+-]\d{6})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d(?::?\d\d)?)?)"
)


def parse_instant(text: str, *, offset_required: bool = True) -> int:
    """Return the instant of an RFC 3339 date-time; digits finer than a microsecond are cut off.

    A year beyond four digits has a sign and six of them, as `format_instant` writes it. Where no offset is
    required, UTC is meant without one, and the offset may leave out its minutes (EDTF).

    Raises:
        ValueError: the text is no date-time, is no real date or time, or lacks its offset.
    """
    if _PLAIN.fullmatch(text):
        with contextlib.suppress(ValueError):  # which says less clearly what is wrong
            return (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        raise ValueError("must be an RFC 3339 date-time such as 2021-09-07T10:02:11Z")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    if not (1 <= month <= 12 and 1 <= day <= _month_length(year, month)):
        raise ValueError("names a day that does not exist")
    if abs(year) > YEAR_LIMIT:
        raise ValueError(f"names a year beyond {YEAR_LIMIT}")
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError("names a time of day that does not exist")
    fraction, offset = match.group(7) or "", match.group(8)
    if offset_required and (offset is None or len(offset) not in (1, 6)):
        raise ValueError("must end in Z or an offset such as +02:00")
    shift = 0
    if offset and offset not in "Zz":
        digits = offset[1:].replace(":", "")
        hours, minutes = int(digits[:2]), int(digits[2:] or 0)
        if hours > 23 or minutes > 59:
            raise ValueError("has an offset that does not exist")
        shift = (hours * 60 + minutes) * (-1 if offset[0] == "-" else 1)
    seconds = days_from_civil(year, month, day) * 86_400 + (hour * 60 + minute - shift) * 60 + second
    return seconds * 1_000_000 + int((fraction + "000000")[:6])


@lru_cache(maxsize=16_384)
def parse_moment(text: str) -> int:
    """Return the instant of a date (its midnight UTC) or an RFC 3339 date-time.

    Raises:
        ValueError: it is neither.
    """
    if "T" in text or "t" in text:
        return parse_instant(text)
    match = re.fullmatch(r"(?a:(-?\d{4})-(\d\d)-(\d\d))", text)
    if match is None:
        raise ValueError("must be a date such as 2021-09-07 or an RFC 3339 date-time")
    year, month, day = (int(part) for part in match.groups())
    if not (1 <= month <= 12 and 1 <= day <= _month_length(year, month)):
        raise ValueError("names a day that does not exist")
    return days_from_civil(year, month, day) * DAY


def first_instant(text: str) -> int:
    """Return the first instant of an EDTF date or date-time, as the read coordinate `valid_at` needs it.

    Raises:
        ValueError: it is no single EDTF date.
    """
    if "/" in text:
        raise ValueError("must be one date or date-time, not an interval")
    return _endpoint(text)[0]


def format_instant(instant: int) -> str:
    """Return an RFC 3339 date-time in UTC with microseconds; years beyond four digits carry a sign (ISO 8601)."""
    days, micros = divmod(instant, DAY)
    seconds, micros = divmod(micros, 1_000_000)
    minutes, seconds = divmod(seconds, 60)
    return f"{_format_day(days)}T{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}.{micros:06d}Z"


@lru_cache(maxsize=1_024)
def _format_day(days: int) -> str:
    year, month, day = civil_from_days(days)
    years = f"{year:04d}" if 0 <= year <= 9999 else f"{year:+07d}"
    return f"{years}-{month:02d}-{day:02d}"


_PART = re.compile(
    r"(?ax)"
    r"[?~%]? (?: Y(?P<long>-?\d{5,6}) | (?P<year>-?[\dX]{4}) ) [?~%]?"
    r"(?: - [?~%]? (?P<month>[\dX]{2}) [?~%]?"
    r"(?: - [?~%]? (?P<day>[\dX]{2}) [?~%]? )? )?"
)
# Sub-year groupings: first month, and how many months.
_GROUPINGS = {
    **{21 + i: (3 + 3 * i, 3) for i in range(4)},  # seasons, independent of location
    **{25 + i: (3 + 3 * i, 3) for i in range(4)},  # seasons of the northern hemisphere
    **{29 + i: ((9 + 3 * i - 1) % 12 + 1, 3) for i in range(4)},  # seasons of the southern hemisphere
    **{33 + i: (1 + 3 * i, 3) for i in range(4)},  # quarters
    **{37 + i: (1 + 4 * i, 4) for i in range(3)},  # quadrimesters
    **{40 + i: (1 + 6 * i, 6) for i in range(2)},  # semesters
}


def _fill(mask: str, digits: str) -> Iterator[int]:
    """Yield every number that a mask such as `2X` stands for, trying `digits` in their order."""
    if "X" not in mask:
        yield int(mask)
        return
    head, _, tail = mask.partition("X")
    for digit in digits:
        yield from _fill(head + digit + tail, digits)


def _extreme_day(year: str, month: str, day: str, *, last: bool) -> int:
    """Return the first or last real day that the masks allow, as days from 1970-01-01."""
    falling, rising = "9876543210", "0123456789"
    digits = falling if last else rising
    # Before year 0 a greater number is an earlier year.
    year_digits = digits if not year.startswith("-") else (rising if last else falling)
    for y in _fill(year, year_digits):
        for m in _fill(month, digits):
            if not 1 <= m <= 12:
                continue
            length = _month_length(y, m)
            for d in _fill(day, digits):
                if 1 <= d <= length:
                    return days_from_civil(y, m, d)
        if month != "02":  # only 29 February depends on the year
            break
    raise ValueError("names a day that does not exist")


def _days(text: str) -> tuple[int, int]:
    """Return the first and the last day of an EDTF date without a time of day."""
    match = _PART.fullmatch(text)
    if match is None:
        raise ValueError("is not an EDTF date, such as 2021-09-06, 2021-09, 2021-08-2X or 2021-21")
    month, day = match["month"], match["day"]
    year = match["long"] or match["year"]
    if abs(int(year.replace("X", "0"))) > YEAR_LIMIT:
        raise ValueError(f"names a year beyond {YEAR_LIMIT}")
    if month is None:
        month, day = "XX", "XX"
    elif "X" not in month and int(month) in _GROUPINGS:
        if day is not None:
            raise ValueError("names a day within a season or quarter")
        return _grouping(year, int(month))
    day = day or "XX"
    return _extreme_day(year, month, day, last=False), _extreme_day(year, month, day, last=True)


def _grouping(year: str, code: int) -> tuple[int, int]:
    first_month, months = _GROUPINGS[code]
    low, high = int(year.replace("X", "0")), int(year.replace("X", "9"))
    first_year, last_year = min(low, high), max(low, high)
    after = first_month + months
    next_year, next_month = (last_year + 1, after - 12) if after > 12 else (last_year, after)
    return days_from_civil(first_year, first_month, 1), days_from_civil(next_year, next_month, 1) - 1


def _endpoint(text: str) -> tuple[int, int, bool]:
    """Return the first and last instant at which a start may lie, and whether a time of day was given."""
    if "T" in text:
        instant = parse_instant(text, offset_required=False)
        return instant, instant, True
    first, last = _days(text)
    return first * DAY, last * DAY, False


@lru_cache(maxsize=16_384)
def parse_valid(text: str) -> Valid:
    """Return the bounds of an EDTF date or interval.

    Raises:
        ValueError: the text is no EDTF date or interval, or its end does not lie after its start.
    """
    if len(text) > 128:
        raise ValueError("is longer than any EDTF date or interval (128 characters)")
    start_text, slash, end_text = text.partition("/")
    if not slash:
        earliest, latest, timed = _endpoint(text)
        kind = StartKind.EXACT if earliest == latest else StartKind.VAGUE
        step = 1 if timed else DAY
        return Valid(kind, earliest, latest, EndKind.OBSERVED, earliest + step, latest + step, timed)
    if "/" in end_text:
        raise ValueError("has more than one solidus")
    start_kind, start_earliest, start_latest = StartKind.UNKNOWN, None, None
    if start_text == "..":
        start_kind = StartKind.UNBOUNDED
    elif start_text:
        start_earliest, start_latest, _ = _endpoint(start_text)
        start_kind = StartKind.EXACT if start_earliest == start_latest else StartKind.VAGUE
    if end_text in ("", ".."):
        return Valid(start_kind, start_earliest, start_latest, EndKind.OPEN, None, None, False)
    end_earliest, end_latest, timed = _endpoint(end_text)
    if not timed:
        end_earliest, end_latest = end_earliest + DAY, end_latest + DAY
    if start_earliest is not None and end_latest <= start_earliest:
        raise ValueError("ends before it starts")
    return Valid(start_kind, start_earliest, start_latest, EndKind.KNOWN, end_earliest, end_latest, timed)


_ABSENT = Valid(StartKind.UNKNOWN, None, None, EndKind.OPEN, None, None, False)


def resolve_span(valid: str | None, asserted_at: int) -> Span:
    """Return the span that a `valid` text means when it was said at `asserted_at` (belief.md, spans)."""
    given = _ABSENT if valid is None else parse_valid(valid)
    if given.start_kind is StartKind.UNKNOWN:
        start = asserted_at // DAY * DAY  # "it held when it was said"
        if given.end_latest is not None:
            start = min(start, (given.end_latest - 1) // DAY * DAY)
        earliest = latest = start
    elif given.start_kind is StartKind.UNBOUNDED:
        earliest = latest = BEGINNING
    else:
        assert given.start_earliest is not None and given.start_latest is not None
        earliest, latest = given.start_earliest, given.start_latest
        if earliest <= asserted_at:  # it had happened when it was said
            latest = min(latest, asserted_at)
    if given.end_kind is EndKind.OPEN:
        return Span(given.start_kind, earliest, latest, EndKind.OPEN, FOREVER, FOREVER)
    assert given.end_earliest is not None and given.end_latest is not None
    ends_earliest, ends_latest = given.end_earliest, given.end_latest
    if not given.end_timed:
        ends_earliest = min(max(ends_earliest, earliest + DAY), ends_latest)
    return Span(given.start_kind, earliest, latest, given.end_kind, ends_earliest, ends_latest)
