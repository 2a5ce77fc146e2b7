"""Questions: what a path and a query may say, read strictly into the ledger's own terms.

A parameter that is unknown, or given twice, is refused rather than passed over: a mistyped coordinate would
otherwise be answered as if it had not been given.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from fastapi import Path
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from starlette.datastructures import QueryParams

from factledger.core import events, facts, times
from factledger.core.encoding import MAX_INTEGER
from factledger.core.errors import Fault, LedgerError
from factledger.http import problems
from factledger.reading import Question

DEFAULT_LIMIT, MAX_LIMIT = 100, 1000

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_HTTP_DATE = re.compile(
    r"(?a:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\d\d) (" + "|".join(_MONTHS) + r") (\d{4}) (\d\d:\d\d:\d\d) GMT)"
)


def http_date(text: str) -> int:
    """Return the instant of an HTTP date in its one current form.

    Raises:
        ValueError: it is none. Source: RFC 9110, section 5.6.7 (IMF-fixdate).
    """
    match = _HTTP_DATE.fullmatch(text)
    if match is None:
        raise ValueError("must be an HTTP date such as Tue, 07 Sep 2021 10:02:11 GMT")
    day, month, year, clock = match.groups()
    return times.parse_instant(f"{year}-{_MONTHS.index(month) + 1:02d}-{day}T{clock}Z")


def _instant(parse: Callable[[str], int]) -> Callable[[Any], int]:
    # A query decodes + as a space, and no time has a space: so an offset need not be escaped.
    return lambda text: parse(str(text).replace(" ", "+"))


def _whole(text: Any) -> int:
    if not re.fullmatch(r"[0-9]{1,16}", str(text)) or int(text) > MAX_INTEGER:
        raise ValueError(f"must be a whole number from 0 to {MAX_INTEGER}")
    return int(text)


def _fitting(fits: Callable[[str], bool], rule: str) -> AfterValidator:
    def check(text: str) -> str:
        if not fits(text):
            raise ValueError(f"must be {rule}")
        return text

    return AfterValidator(check)


def _is_uri(text: str) -> bool:
    return 0 < len(text.encode()) <= events.MAX_URI_BYTES and text.isprintable()


_ID = _fitting(facts.is_id, "an id of 1 to 256 characters without white space or control characters")


def _unescaped(segment: str) -> str:
    try:
        return unquote(segment, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("must be UTF-8, percent-encoded") from None


Moment = Annotated[
    int,
    BeforeValidator(_instant(times.parse_moment)),
    WithJsonSchema({"type": "string", "examples": ["2021-09-07T10:02:11Z", "2021-09-07"]}),
]
ValidInstant = Annotated[
    int,
    BeforeValidator(_instant(times.first_instant)),
    WithJsonSchema({"type": "string", "examples": ["2021-09-07", "2021-09", "2021-09-07T10:02:11Z"]}),
]
Count = Annotated[
    int,
    BeforeValidator(_whole),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MAX_INTEGER}),
]
Limit = Annotated[Count, Field(ge=1, le=MAX_LIMIT)]
Id = Annotated[str, _ID]
Predicate = Annotated[str, _fitting(facts.is_predicate, "of the form [a-z][a-z0-9_]{0,63}")]

# The path keeps its escapes until here (see app.py), so that an id may hold a slash.
LedgerName = Annotated[str, Path(description="The ledger's name; `main` is always there.", examples=["main"])]
EntityId = Annotated[
    str,
    Path(description="The entity's id, percent-encoded: a slash in it is %2F.", examples=["person:amrullah-saleh"]),
    AfterValidator(_unescaped),
    _ID,
]
Position = Annotated[Count, Path(description="The event's position: the first one's is 0.")]


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LedgersQuery(_Query):
    """Which page of the list of ledgers."""

    limit: Limit = DEFAULT_LIMIT
    after: str | None = Field(None, max_length=64, description="From a `next` link.")


class PreviewQuery(_Query):
    """Which page of what an append would change."""

    limit: Limit = DEFAULT_LIMIT
    after: str | None = Field(None, max_length=1024, description="From a `next` link.")


class KnownQuery(_Query):
    """What the ledger knew: up to a size or an instant; everything, if neither is given."""

    known_at: Moment | None = Field(
        None, description="Only what was recorded at or before this RFC 3339 date-time, or the midnight of a date."
    )
    at_size: Count | None = Field(None, description="Only the first so many events.")
    min_size: Count | None = Field(
        None, description="Wait up to 5 seconds until so many events are covered, else answer 503."
    )

    def question(self, _headers: Mapping[str, str]) -> Question:
        """Return the coordinates as a ledger takes them.

        Raises:
            LedgerError: `invalid-request` if two of them contradict each other.
        """
        if self.known_at is not None and self.at_size is not None:
            raise problems.invalid_request(Fault("/query/at_size", "cannot be given together with known_at"))
        return Question(known_at=self.known_at, at_size=self.at_size)


class EventsQuery(KnownQuery):
    """Which events: all given criteria must match."""

    from_: Count = Field(0, alias="from", description="The first position to look at.")
    limit: Limit | None = Field(
        None, description=f"At most so many events: by default {DEFAULT_LIMIT}, and without limit when streamed."
    )
    type: (
        Literal[
            "factledger.assertion.v1",
            "factledger.retraction.v1",
            "factledger.identity.v1",
            "factledger.predicate.v1",
            "factledger.agent.v1",
            "factledger.policy.v1",
            "factledger.erasure.v1",
        ]
        | None
    ) = None
    subject: Id | None = Field(None, description="The subject of assertions.")
    predicate: Predicate | None = Field(None, description="The predicate of assertions.")
    source: Id | None = Field(None, description="Who posted the event.")
    outlet: Id | None = Field(None, description="The outlet of assertions.")
    document_uri: Annotated[str, _fitting(_is_uri, f"a URI of at most {events.MAX_URI_BYTES} bytes")] | None = Field(
        None, description="The document of assertions."
    )

    def criteria(self) -> dict[str, str]:
        """Return what events must match, by field."""
        return self.model_dump(
            include={"type", "subject", "predicate", "source", "outlet", "document_uri"}, exclude_none=True
        )


class WeighingQuery(_Query):
    """The read coordinates but for what the ledger knew."""

    valid_at: ValidInstant | None = Field(
        None, description="When it holds in the world: an EDTF date, meaning its first instant, or RFC 3339. Now."
    )
    asserted_before: Moment | None = Field(None, description="Only what had been said before this instant.")
    identity_at_size: Count | None = Field(
        None, description="Identity judgements of the first so many events, instead of those of `at_size`."
    )
    method: Literal["weighed", "latest", "majority"] | None = Field(
        None, description="How to weigh, instead of the ledger's own policy."
    )
    when: Literal["possible", "presumed", "definite"] = Field(
        "possible", description="How surely a value must hold at the instant to count."
    )


class BeliefQuery(KnownQuery, WeighingQuery):
    """The read coordinates: of the world, of the ledger, of what had been said, and of how it is weighed."""

    def question(self, headers: Mapping[str, str]) -> Question:
        """Return the coordinates as a ledger takes them; `Accept-Datetime` is a `known_at`.

        Raises:
            LedgerError: `invalid-request`, `malformed-request`.
        """
        known = super().question(headers)
        return Question(
            valid_at=self.valid_at,
            known_at=accepted_datetime(self, headers) if known.known_at is None else known.known_at,
            at_size=self.at_size,
            asserted_before=self.asserted_before,
            identity_at_size=self.identity_at_size,
            method=self.method,
            when=self.when,
        )


def accepted_datetime(query: KnownQuery, headers: Mapping[str, str]) -> int | None:
    """Return the instant that `Accept-Datetime` asks for; a query that says what was known goes before it.

    Raises:
        LedgerError: `malformed-request`. Source: RFC 7089, section 4.5.3.
    """
    asked = headers.get("accept-datetime")
    if asked is None or query.known_at is not None or query.at_size is not None:
        return None
    try:
        return http_date(asked)
    except ValueError as wrong:
        raise problems.malformed_request("/headers/accept-datetime", str(wrong)) from None


class SlotsQuery(BeliefQuery):
    """The read coordinates, and which predicate; all if none is given."""

    predicate: Predicate | None = None


class SlotQuery(BeliefQuery):
    """The read coordinates, and which predicate."""

    predicate: Predicate


class ReceiptQuery(SlotQuery):
    """The read coordinates, and which predicate of which entity."""

    entity: Id = Field(description="The entity's id.", examples=["person:amrullah-saleh"])


class HistoryQuery(SlotsQuery):
    """The read coordinates, which predicate, and which page of the changes."""

    from_size: Count = Field(0, description="Leave out changes that the first so many events made.")
    limit: Annotated[Limit, Field(le=MAX_LIMIT)] = 50


class InclusionQuery(_Query):
    """Which event, in the log of which size."""

    position: Count = Field(description="The event's position.")
    size: Count | None = Field(None, description="How many events the log has: by default as many as now.")


class ConsistencyQuery(_Query):
    """Which two sizes of the log."""

    from_: Count = Field(alias="from", description="The smaller size.")
    to: Count | None = Field(None, description="The larger size: by default the present one.")


class DiffQuery(WeighingQuery):
    """Which two states of the ledger are compared, how, and which page of their difference."""

    from_size: Count | None = Field(None, description="The earlier state: the first so many events.")
    from_known_at: Moment | None = Field(None, description="Instead: what was recorded at or before this instant.")
    to_size: Count | None = Field(None, description="The later state; everything, if neither is given.")
    to_known_at: Moment | None = Field(None, description="Instead: what was recorded at or before this instant.")
    min_size: Count | None = Field(
        None, description="Wait up to 5 seconds until so many events are covered, else answer 503."
    )
    limit: Limit = DEFAULT_LIMIT
    after: str | None = Field(None, max_length=1024, description="From a `next` link.")

    def question(self, _headers: Mapping[str, str]) -> Question:
        """Return the coordinates that both states are read at.

        Raises:
            LedgerError: `invalid-request` if it is not clear which states are meant.
        """
        for name in ("from", "to"):
            if getattr(self, f"{name}_size") is not None and getattr(self, f"{name}_known_at") is not None:
                fault = Fault(f"/query/{name}_size", f"cannot be given together with {name}_known_at")
                raise problems.invalid_request(fault)
        if self.from_size is None and self.from_known_at is None:
            raise problems.invalid_request(Fault("/query/from_size", "is required, or from_known_at"))
        return Question(
            valid_at=self.valid_at,
            asserted_before=self.asserted_before,
            identity_at_size=self.identity_at_size,
            method=self.method,
            when=self.when,
        )


def given_twice(query: bytes) -> LedgerError | None:
    """Return the refusal of a query that gives a parameter more than once, since only one could be heeded."""
    names = Counter(name for name, _ in QueryParams(query).multi_items())
    twice = sorted(name for name, count in names.items() if count > 1)[:50]
    if not twice:
        return None
    return problems.invalid_request(
        *(Fault(f"/query/{facts.escape(name)}", "is given more than once") for name in twice)
    )
