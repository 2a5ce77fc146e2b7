"""Time: what an EDTF text covers, against the naive oracle and against the package `edtf` where that is sane."""

from __future__ import annotations

import itertools
import math
import warnings
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from factledger.core import times
from factledger.core.times import (
    BEGINNING,
    DAY,
    FOREVER,
    YEAR_LIMIT,
    EndKind,
    StartKind,
    civil_from_days,
    days_from_civil,
    first_instant,
    format_instant,
    parse_instant,
    parse_moment,
    parse_valid,
    resolve_span,
)
from tests import oracle

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import edtf

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_DAY, LAST_DAY = days_from_civil(-YEAR_LIMIT, 1, 1), days_from_civil(YEAR_LIMIT, 12, 31)


def day(year: int, month: int = 1, of_month: int = 1) -> int:
    """The midnight of a day, by another route than the code under test where there is one."""
    if 1 <= year <= 9999:
        return (datetime(year, month, of_month, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
    return days_from_civil(year, month, of_month) * DAY


# ---- Days ----------------------------------------------------------------------------------------------


@given(st.integers(FIRST_DAY, LAST_DAY))
@example(0)
@example(FIRST_DAY)
@example(LAST_DAY)
def test_days_and_dates_go_round(days: int) -> None:
    year, month, of_month = civil_from_days(days)
    assert abs(year) <= YEAR_LIMIT
    assert 1 <= month <= 12
    assert 1 <= of_month <= 31
    assert days_from_civil(year, month, of_month) == days
    assert civil_from_days(days + 1) > (year, month, of_month)


@given(st.dates())
def test_days_are_those_of_the_calendar(of: date) -> None:
    days = of.toordinal() - date(1970, 1, 1).toordinal()
    assert days_from_civil(of.year, of.month, of.day) == days
    assert civil_from_days(days) == (of.year, of.month, of.day)


@pytest.mark.parametrize("era", [-YEAR_LIMIT, -800, -4, -1, 0, 1, 4, 100, 1900, 2000, 2100, YEAR_LIMIT - 1])
def test_every_day_of_a_year_follows_the_one_before(era: int) -> None:
    leap = era % 4 == 0 and (era % 100 != 0 or era % 400 == 0)
    first = days_from_civil(era, 1, 1)
    dates = [civil_from_days(first + n) for n in range(366 if leap else 365)]
    lengths = [31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    assert dates == [(era, month, n) for month, length in enumerate(lengths, 1) for n in range(1, length + 1)]
    assert civil_from_days(first + len(dates)) == (era + 1, 1, 1)
    assert days_from_civil(era + 400, 1, 1) - first == 146_097


# ---- Instants ------------------------------------------------------------------------------------------

offsets = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59)).map(
    lambda shift: timedelta(minutes=shift // timedelta(minutes=1))
)
INSTANTS_OF_FOUR_DIGITS = st.integers(day(0), day(10_000) - 1)


@given(st.datetimes().filter(lambda local: 1 < local.year < 9999), offsets)
def test_a_date_time_is_the_instant_that_the_standard_library_reads(local: datetime, shift: timedelta) -> None:
    minutes = shift // timedelta(minutes=1)
    sign, (hours, rest) = "-" if minutes < 0 else "+", divmod(abs(minutes), 60)
    expected = (local.replace(tzinfo=UTC) - shift - EPOCH) // timedelta(microseconds=1)
    for letter in "Tt":
        text = local.isoformat(timespec="microseconds").replace("T", letter)
        full = f"{text}{sign}{hours:02d}:{rest:02d}"
        assert parse_instant(full) == parse_moment(full) == expected
        assert parse_instant(f"{text}{sign}{hours:02d}{rest:02d}", offset_required=False) == expected
    if minutes == 0:
        assert parse_instant(local.isoformat(timespec="microseconds") + "Z") == expected
        assert parse_instant(local.isoformat(timespec="microseconds") + "z") == expected
        assert parse_instant(local.isoformat(timespec="microseconds"), offset_required=False) == expected


@pytest.mark.parametrize(
    ("fraction", "micros"), [("", 0), (".1", 100_000), (".000001", 1), (".0000019", 1), (".999999999", 999_999)]
)
@pytest.mark.parametrize("year", ["2021", "1960", "-0001"])
def test_digits_finer_than_a_microsecond_are_cut_off(year: str, fraction: str, micros: int) -> None:
    whole = parse_instant(f"{year}-09-07T10:02:11Z")
    assert parse_instant(f"{year}-09-07T10:02:11{fraction}Z") == whole + micros


@pytest.mark.parametrize(
    "text",
    [
        *("", "2021", "2021-09", "2021-09-07", "2021-09-07T10:02Z", "2021-09-07T10Z", "2021-09-07 10:02:11Z"),
        *("2021-02-29T00:00:00Z", "2021-13-01T00:00:00Z", "2021-00-01T00:00:00Z", "2021-09-31T00:00:00Z"),
        *("2021-09-07T24:00:00Z", "2021-09-07T23:60:00Z", "2021-09-07T23:59:60Z", "2021-09-07T10:02:11.Z"),
        *(
            "2021-09-07T10:02:11+24:00",
            "2021-09-07T10:02:11+02:60",
            "2021-09-07T10:02:11+02",
            "2021-09-07T10:02:11+2",
            "2021-09-07T10:02:11 Z",
        ),
        *("2021-09-07T10:02:11,5Z", "2021-09-07T10:02:11.1234567890Z", "21-09-07T10:02:11Z", "+2021-09-07T10:02:11Z"),
        *(
            "٢٠٢١-09-07T10:02:11Z",
            "2021-09-07T10:02:11Zx",
            "x2021-09-07T10:02:11Z",
            "2021-09-07T10:02:11Z\n",
            "1900-02-29T00:00:00Z",
        ),
    ],
)
def test_what_is_no_date_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must|names|has"):
        parse_instant(text)


def test_an_offset_is_demanded_unless_it_is_not() -> None:
    with pytest.raises(ValueError, match="offset"):
        parse_instant("2021-09-07T10:02:11")
    assert parse_instant("2021-09-07T10:02:11", offset_required=False) == parse_instant("2021-09-07T10:02:11Z")


@given(st.dates())
def test_a_bare_date_is_its_midnight(of: date) -> None:
    assert parse_moment(of.isoformat()) == day(of.year, of.month, of.day) == first_instant(of.isoformat())


@pytest.mark.parametrize(
    "text", ["2021-09", "2021", "2021-9-7", "2021-02-30", "2021-09-07/", "20210907", "", "2021-09-0X"]
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must|names"):
        parse_moment(text)


@given(INSTANTS_OF_FOUR_DIGITS)
@example(day(10_000) - 1)
@example(day(0))
@example(-1)
def test_an_instant_that_is_written_can_be_read(instant: int) -> None:
    written = format_instant(instant)
    assert parse_instant(written) == parse_moment(written) == first_instant(written) == instant
    if day(1) <= instant:
        assert datetime.fromisoformat(written) == EPOCH + timedelta(microseconds=instant)
    assert len(written) == 27


# A permalink pins `valid_at` as it is written here, and must go on answering: also where the question named
# `Y12345` or `-0044-03-15`.
@given(st.integers(FIRST_DAY * DAY, (LAST_DAY + 1) * DAY - 1))
@example(first_instant("-0044-03-15"))
@example(first_instant("Y12345"))
def test_an_instant_of_any_year_that_is_written_can_be_read(instant: int) -> None:
    assert first_instant(format_instant(instant)) == instant


@given(st.lists(st.integers(FIRST_DAY * DAY, (LAST_DAY + 1) * DAY - 1), min_size=2, max_size=2, unique=True))
def test_instants_are_written_apart(instants: list[int]) -> None:
    assert format_instant(instants[0]) != format_instant(instants[1])


# ---- EDTF: single dates --------------------------------------------------------------------------------

SINGLE = {
    # level 0
    "2021-09-06": (day(2021, 9, 6), day(2021, 9, 6)),
    "2021-09": (day(2021, 9, 1), day(2021, 9, 30)),
    "2021": (day(2021, 1, 1), day(2021, 12, 31)),
    "0000": (day(0), day(0, 12, 31)),
    "2020-02": (day(2020, 2, 1), day(2020, 2, 29)),
    "2100-02": (day(2100, 2, 1), day(2100, 2, 28)),
    # level 1
    "Y12345": (day(12345), day(12345, 12, 31)),
    "Y-12345": (day(-12345), day(-12345, 12, 31)),
    "Y200000": (day(200_000), day(200_000, 12, 31)),
    "Y-200000": (day(-200_000), day(-200_000, 12, 31)),
    "-0044-03-15": (day(-44, 3, 15), day(-44, 3, 15)),
    "-0004-02": (day(-4, 2, 1), day(-4, 2, 29)),
    "2021-21": (day(2021, 3, 1), day(2021, 5, 31)),
    "2021-22": (day(2021, 6, 1), day(2021, 8, 31)),
    "2021-23": (day(2021, 9, 1), day(2021, 11, 30)),
    "2021-24": (day(2021, 12, 1), day(2022, 2, 28)),
    "2023-24": (day(2023, 12, 1), day(2024, 2, 29)),
    "2021-09-06?": (day(2021, 9, 6), day(2021, 9, 6)),
    "2021-09~": (day(2021, 9, 1), day(2021, 9, 30)),
    "2021%": (day(2021, 1, 1), day(2021, 12, 31)),
    "202X": (day(2020), day(2029, 12, 31)),
    "20XX": (day(2000), day(2099, 12, 31)),
    "2021-XX": (day(2021), day(2021, 12, 31)),
    "2021-09-XX": (day(2021, 9, 1), day(2021, 9, 30)),
    "2021-XX-XX": (day(2021), day(2021, 12, 31)),
    "-005X": (day(-59), day(-50, 12, 31)),
    # level 2: qualification of parts
    "2021?-09-~06": (day(2021, 9, 6), day(2021, 9, 6)),
    "?2021-%09": (day(2021, 9, 1), day(2021, 9, 30)),
    "2021-09~-06": (day(2021, 9, 6), day(2021, 9, 6)),
    # level 2: digits unspecified anywhere
    "2021-08-2X": (day(2021, 8, 20), day(2021, 8, 29)),
    "2021-08-3X": (day(2021, 8, 30), day(2021, 8, 31)),
    "2021-08-X1": (day(2021, 8, 1), day(2021, 8, 31)),
    "2021-02-3X": None,
    "2021-02-2X": (day(2021, 2, 20), day(2021, 2, 28)),
    "2021-1X": (day(2021, 10, 1), day(2021, 12, 31)),
    "2021-0X": (day(2021, 1, 1), day(2021, 9, 30)),
    "2021-X2-1X": (day(2021, 2, 10), day(2021, 12, 19)),
    "20X1-02-29": None,  # no such year is a leap year
    "20X0-02-29": (day(2000, 2, 29), day(2080, 2, 29)),
    "XXXX-12-25": (day(0, 12, 25), day(9999, 12, 25)),
    "1XXX-12": (day(1000, 12, 1), day(1999, 12, 31)),
    "2X21-XX-31": (day(2021, 1, 31), day(2921, 12, 31)),
    "2021-XX-3X": (day(2021, 1, 30), day(2021, 12, 31)),
    # level 2: sub-year groupings
    "2021-25": (day(2021, 3, 1), day(2021, 5, 31)),
    "2021-28": (day(2021, 12, 1), day(2022, 2, 28)),
    "2021-29": (day(2021, 9, 1), day(2021, 11, 30)),
    "2021-30": (day(2021, 12, 1), day(2022, 2, 28)),
    "2021-31": (day(2021, 3, 1), day(2021, 5, 31)),
    "2021-32": (day(2021, 6, 1), day(2021, 8, 31)),
    "2021-33": (day(2021, 1, 1), day(2021, 3, 31)),
    "2021-36": (day(2021, 10, 1), day(2021, 12, 31)),
    "2021-37": (day(2021, 1, 1), day(2021, 4, 30)),
    "2021-39": (day(2021, 9, 1), day(2021, 12, 31)),
    "2021-40": (day(2021, 1, 1), day(2021, 6, 30)),
    "2021-41": (day(2021, 7, 1), day(2021, 12, 31)),
    "202X-33": (day(2020, 1, 1), day(2029, 3, 31)),
    "-005X-21": (day(-59, 3, 1), day(-50, 5, 31)),
    # the calendar ends where the year does
    "Y200001": None,
    "Y-200001": None,
}


@pytest.mark.parametrize("text", SINGLE)
def test_a_date_covers_its_days(text: str) -> None:
    bounds = SINGLE[text]
    if bounds is None:
        with pytest.raises(ValueError, match="names a"):
            parse_valid(text)
        return
    first, last = bounds
    kind = StartKind.EXACT if first == last else StartKind.VAGUE
    expected = times.Valid(kind, first, last, EndKind.OBSERVED, first + DAY, last + DAY, False)
    assert parse_valid(text) == expected
    assert first_instant(text) == first
    assert BEGINNING < first <= last < FOREVER - DAY


def test_an_instant_covers_its_microsecond() -> None:
    for text, at in {
        "2021-09-06T12:00:00Z": day(2021, 9, 6) + DAY // 2,
        "2021-09-06T12:00:00": day(2021, 9, 6) + DAY // 2,
        "2021-09-06T12:00:00.25+02:00": day(2021, 9, 6) + DAY * 10 // 24 + 250_000,
        "-0001-12-31T23:59:59Z": day(0) - 1_000_000,
    }.items():
        assert parse_valid(text) == times.Valid(StartKind.EXACT, at, at, EndKind.OBSERVED, at + 1, at + 1, True)


# ---- EDTF: the package as a second opinion -------------------------------------------------------------

years = st.integers(1000, 2999).map(str)
months = st.integers(1, 12).map("{:02d}".format)
month_days = st.integers(1, 28).map("{:02d}".format)
marks = st.sampled_from("?~%")
PLAIN = st.one_of(
    years, st.builds("{}-{}".format, years, months), st.builds("{}-{}-{}".format, years, months, month_days)
)
SANE = st.one_of(
    # What it reads as ISO 8601-2 has it: it knows no winter that ends in the next year, no leap February behind
    # a mask, and no masks within a part.
    PLAIN,
    st.builds("{}{}".format, years, marks),
    st.builds("{}-{}{}".format, years, months, marks),
    st.builds("{}-{}-{}{}".format, years, months, month_days, marks),
    st.builds("{}{}-{}-{}".format, years, marks, months, month_days),
    years.map(lambda year: year[:3] + "X"),
    years.map(lambda year: year[:2] + "XX"),
    years.map(lambda year: year + "-XX"),
    years.map(lambda year: year + "-XX-XX"),
    st.builds("{}-{}-XX".format, years, months.filter(lambda month: month != "02")),
    st.builds("{}-{}".format, years, st.sampled_from([21, 22, 23, 25, 26, 27, 29, 31, 32, *range(33, 42)])),
    st.integers(10_000, 199_999).map("Y{}".format),
    st.integers(-199_999, -10_000).map("Y{}".format),
    st.integers(1, 9999).map("-{:04d}".format),
)


def midnight(of: Any) -> int:
    return days_from_civil(*of[:3]) * DAY


@settings(max_examples=150)
@given(SANE)
def test_dates_mean_what_the_package_says(text: str) -> None:
    parsed, ours = edtf.parse_edtf(text), parse_valid(text)
    assert (ours.start_earliest, ours.start_latest) == (
        midnight(parsed.lower_strict()),
        midnight(parsed.upper_strict()),
    )


@settings(max_examples=60)
@given(st.tuples(PLAIN, PLAIN))
def test_intervals_mean_what_the_package_says(ends: tuple[str, str]) -> None:
    text = "/".join(sorted(ends, key=first_instant))
    parsed, ours = edtf.parse_edtf(text), parse_valid(text)
    assert ours.start_earliest == midnight(parsed.lower_strict())
    assert ours.end_latest == midnight(parsed.upper_strict()) + DAY


# ---- EDTF: intervals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        (
            "2021-09-01/2021-09-05",
            (StartKind.EXACT, day(2021, 9, 1), day(2021, 9, 1)),
            (day(2021, 9, 6), day(2021, 9, 6)),
        ),
        ("2021-09/2021-10", (StartKind.VAGUE, day(2021, 9, 1), day(2021, 9, 30)), (day(2021, 10, 2), day(2021, 11, 1))),
        (
            "2021-09-06/2021-09-06",
            (StartKind.EXACT, day(2021, 9, 6), day(2021, 9, 6)),
            (day(2021, 9, 7), day(2021, 9, 7)),
        ),
        (
            "2021-09-15/2021-09",
            (StartKind.EXACT, day(2021, 9, 15), day(2021, 9, 15)),
            (day(2021, 9, 2), day(2021, 10, 1)),
        ),
        ("../2021-09-05", (StartKind.UNBOUNDED, None, None), (day(2021, 9, 6), day(2021, 9, 6))),
        ("/2021", (StartKind.UNKNOWN, None, None), (day(2021, 1, 2), day(2022, 1, 1))),
        ("2021-09-01/..", (StartKind.EXACT, day(2021, 9, 1), day(2021, 9, 1)), None),
        ("2021-08-2X/", (StartKind.VAGUE, day(2021, 8, 20), day(2021, 8, 29)), None),
        ("../..", (StartKind.UNBOUNDED, None, None), None),
        ("/..", (StartKind.UNKNOWN, None, None), None),
        ("../", (StartKind.UNBOUNDED, None, None), None),
        ("/", (StartKind.UNKNOWN, None, None), None),
        ("2021~/2021-24?", (StartKind.VAGUE, day(2021), day(2021, 12, 31)), (day(2021, 12, 2), day(2022, 3, 1))),
    ],
)
def test_an_interval_has_bounds_on_both_ends(text: str, start: Any, end: Any) -> None:
    kind, (earliest, latest) = (EndKind.OPEN, (None, None)) if end is None else (EndKind.KNOWN, end)
    start_kind, start_earliest, start_latest = start
    assert parse_valid(text) == times.Valid(start_kind, start_earliest, start_latest, kind, earliest, latest, False)


def test_a_timed_end_is_that_instant() -> None:
    noon = day(2021, 9, 6) + DAY // 2
    found = parse_valid("2021-09-06/2021-09-06T12:00:00Z")
    assert (found.end_kind, found.end_earliest, found.end_latest, found.end_timed) == (EndKind.KNOWN, noon, noon, True)
    found = parse_valid("2021-09-06T12:00:00Z/2021-09-06")
    assert (found.start_earliest, found.end_latest, found.end_timed) == (noon, day(2021, 9, 7), False)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "x",
            "21",
            "202",
            "20211",
            "Y123",
            "Y1234",
            "Y+12345",
            "YXXXXX",
            "+2021",
            "2021-9",
            "2021-09-6",
            "2021-00",
        ),
        *(
            "2021-13",
            "2021-20",
            "2021-42",
            "2021-99",
            "2021-09-00",
            "2021-09-31",
            "2021-02-29",
            "2021-21-01",
            "2021-33-XX",
        ),
        *(
            "2021-XX-32",
            "2021-02-30",
            "2021-X0-31-",
            "2021-3X",
            "2021-09-4X",
            "20 21",
            "2021-09-06Z",
            "2021/09/06",
            "21-09-06",
        ),
        *("2021-09-06T12:00Z", "2021-09-06T25:00:00Z", "2021-09-06t12:00:00z", "2021-09-06T12:00:00Z?", "T12:00:00Z"),
        *(
            "2021-09-05/2021-09-04",
            "2021-10/2021-09",
            "2021-09-06T12:00:00Z/2021-09-06T12:00:00Z",
            "2021//",
            "2021/2022/2023",
        ),
        *(
            "[2021,2022]",
            "{2021..2022}",
            "2021..2022",
            "..",
            "...",
            "./2021",
            "1950S2",
            "Y17E7",
            "２０２１",
            "2021-0９",
        ),
        *(
            "2021-09-06\n",
            "\n2021",
            "2021\x00",
            "?",
            "~",
            "/?",
            "2021??",
            "20?21",
            "2021-??",
            "unknown",
            "open",
            "unknown/open",
        ),
    ],
)
def test_what_is_no_edtf_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_valid(text)


@given(st.text("0123456789-/.XY?~%T:Z+", max_size=24))
@example("/" * 129)
@example("2021-09-06/" + " " * 200)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse_valid(text)
    except ValueError:
        return
    bounds = [found.start_earliest, found.start_latest, found.end_earliest, found.end_latest]
    assert all(bound is None or BEGINNING < bound < FOREVER for bound in bounds)
    if found.start_earliest is not None and found.start_latest is not None:
        assert found.start_earliest <= found.start_latest
        assert (found.start_earliest == found.start_latest) == (found.start_kind is StartKind.EXACT)
    if found.end_earliest is not None and found.end_latest is not None:
        assert found.end_earliest <= found.end_latest
        assert found.start_earliest is None or found.start_earliest < found.end_latest


def test_a_text_longer_than_any_date_is_refused() -> None:
    with pytest.raises(ValueError, match="longer"):
        parse_valid("2021-09-06T12:00:00Z/2021-09-07T12:00:00Z" + "0" * 100)


@pytest.mark.parametrize("text", ["2021/2022", "2021/", "../2021", "/"])
def test_valid_at_is_one_date(text: str) -> None:
    with pytest.raises(ValueError, match="not an interval"):
        first_instant(text)


# ---- Spans ---------------------------------------------------------------------------------------------

digits = "{:04d}-{:02d}-{:02d}".format
plain = st.builds(digits, st.integers(2020, 2022), st.integers(1, 12), st.integers(1, 28))
masks = st.sampled_from([(4, 10), (7, 10), (9, 10), (8, 9), (6, 7), (5, 7), (3, 4), (5, 10)])


@st.composite
def coarse(draw: st.DrawFn) -> str:
    """A date, whole, cut off, masked, qualified, as a season or with a time of day."""
    text = draw(plain)
    form = draw(st.integers(0, 6))
    if form == 1:
        return text[: draw(st.sampled_from([4, 7]))]
    if form == 2:
        low, high = draw(masks)
        return text[:low] + "".join("-" if c == "-" else "X" for c in text[low:high]) + text[high:]
    if form == 3:
        return text + draw(marks)
    if form == 4:
        return f"{text[:4]}-{draw(st.integers(21, 24))}"
    if form == 5:
        return f"{text}T{draw(st.integers(0, 23)):02d}:30:00{draw(st.sampled_from(['', 'Z', '+04:30']))}"
    return text


valids = st.one_of(
    st.none(),
    coarse(),
    st.builds(
        "{}/{}".format,
        st.one_of(coarse(), st.sampled_from(["", ".."])),
        st.one_of(coarse(), st.sampled_from(["", ".."])),
    ),
)
said = st.integers(day(2019, 12, 1), day(2023, 2, 1))


@settings(max_examples=1500)
@given(valids, said, st.integers(0, 3))
@example("2021-09", day(2021, 9, 10), 0)
@example("2021-09", day(2021, 9, 1) - 1, 0)
@example("2021-09", day(2021, 9, 1), 0)
@example("2021-09", day(2021, 9, 1) + 1, 0)
@example("2021-09", day(2021, 9, 30), 0)
@example("2021-09-05/..", day(2021, 9, 5), 0)
@example("2021-09-05/2021-09", day(2021, 9, 1), 0)
@example("/2021-09-05", day(2021, 9, 6), 0)
@example("/2021-09-05T06:00:00Z", day(2021, 9, 5) + DAY // 2, 0)
@example("/2021-09-05T00:00:00Z", day(2021, 9, 5), 0)
def test_a_span_is_what_the_oracle_makes_of_it(valid: str | None, asserted_at: int, grain: int) -> None:
    asserted_at -= asserted_at % (1, DAY, DAY // 2, 1_000_000)[grain]
    written = format_instant(asserted_at)
    data: dict[str, Any] = {"provenance": {"outlet": "o"}, "asserted_at": written}
    if valid is not None:
        data["valid"] = valid
    try:
        found = resolve_span(valid, asserted_at)
    except ValueError:
        with pytest.raises(ValueError, match=r"ends before|no such day|does not exist"):
            _refuse_like_the_oracle({"data": data, "recordedat": "2030-01-01T00:00:00Z"})
        return
    theirs = oracle.span({"data": data, "recordedat": "2030-01-01T00:00:00Z"})
    limits = {BEGINNING: -math.inf, FOREVER: math.inf}
    ours = (found.starts_earliest, found.starts_latest, found.ends_earliest, found.ends_latest)
    assert tuple(limits.get(bound, bound) for bound in ours) == (
        theirs.start_earliest,
        theirs.start_latest,
        theirs.end_earliest,
        theirs.end_latest,
    )
    assert (found.start_kind >= StartKind.EXACT) == theirs.start_known
    assert (found.start_kind is StartKind.VAGUE) == theirs.start_vague
    assert (found.end_kind is EndKind.KNOWN) == theirs.end_known
    assert found.starts_earliest <= found.starts_latest
    assert found.ends_earliest <= found.ends_latest
    assert found.starts_earliest < found.ends_latest


def _refuse_like_the_oracle(event: dict[str, Any]) -> None:
    """Raise if the oracle knows no such day, or if what it makes of the text ends before it starts."""
    theirs = oracle.span(event)
    if theirs.end_latest <= theirs.start_earliest:
        raise ValueError("ends before it starts")


def test_an_absent_valid_is_an_unknown_start_and_an_open_end() -> None:
    for asserted_at, half in itertools.product(range(day(2021, 9, 1), day(2021, 9, 4), DAY), (0, DAY // 2, DAY - 1)):
        found = resolve_span(None, asserted_at + half)
        assert found == resolve_span("/..", asserted_at + half) == resolve_span("/", asserted_at + half)
        assert (found.starts_earliest, found.starts_latest) == (asserted_at, asserted_at)
        assert (found.end_kind, found.ends_latest) == (EndKind.OPEN, FOREVER)
