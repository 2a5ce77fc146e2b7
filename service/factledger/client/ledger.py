"""A ledger behind a service, as Python programs use it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import EllipsisType, TracebackType
from typing import Any, Literal, Self, TypedDict, Unpack
from urllib.parse import quote

import orjson

from factledger.client import answers, events
from factledger.client.answers import Change, Explanation, Receipt, State, Timeline, Timelines
from factledger.client.events import Assertion, Attributes, Event, Method, Moment, Reason, Ref, Value, ValueType
from factledger.client.ids import fresh_id
from factledger.client.posting import Postable, Posting
from factledger.client.service import Service, Waiting

EVENTS_PAGE = 1_000
CHANGES_PAGE = 200


class Known(TypedDict, total=False):
    """As of what: everything that is recorded, if nothing is given."""

    known_at: Moment | None
    at_size: int | None
    min_size: int | None


class Reading(Known, total=False):
    """The read coordinates, but for when in the world."""

    asserted_before: Moment | None
    identity_at_size: int | None
    method: Method | None
    when: Literal["definite", "presumed", "possible"] | None


class At(Reading, total=False):
    """The read coordinates."""

    valid_at: Moment | None


class Ledger:
    """A ledger behind a service: what is posted is on disk when a call returns, once, however often it took to send.

    A `with` closes the connections at its end. Not for two threads at once; make a ledger in each.
    """

    def __init__(
        self,
        url: str,
        ledger: str = "main",
        *,
        source: str | None = None,
        key: str | None = None,
        timeout: float = 60.0,
        patience: float = 60.0,
        waiting: Waiting | None = None,
        new_id: Callable[[], str] = fresh_id,
    ) -> None:
        """Name a ledger; nothing is sent yet.

        `source` is what events are posted as that name none; `key` is an API key; `timeout` is how many seconds to
        wait for any part of an answer. A request that fails because the service is busy or away is sent again, for
        `patience` seconds; before each such wait `waiting(error, seconds)` is called. `new_id` makes the ids of
        events that have none.

        Raises:
            InvalidError: `invalid-url`.
        """
        self.name, self.source = ledger, source
        self._new_id = new_id
        self._service = Service(url, key, timeout=timeout, patience=patience, waiting=waiting)
        self._path = f"/v1/ledgers/{quote(ledger, safe='')}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Ledger({self._service.url!r}, {self.name!r}, source={self.source!r})"

    def close(self) -> None:
        """Close the connections."""
        self._service.close()

    # --- posting

    def affirm(self, subject: str, predicate: str, value: Value, **said: Unpack[Assertion]) -> Receipt:
        """Record that somebody said that it is so."""
        return self.record(events.assertion(subject, predicate, value, **said))

    def deny(self, subject: str, predicate: str, value: Value, **said: Unpack[Assertion]) -> Receipt:
        """Record that somebody said that it is not so."""
        return self.record(events.assertion(subject, predicate, value, polarity="denies", **said))

    def correct(
        self, corrected: Ref | list[Ref], subject: str, predicate: str, value: Value, **said: Unpack[Assertion]
    ) -> Receipt:
        """Record what an earlier assertion, or several, should have said; they count no longer."""
        return self.record(events.assertion(subject, predicate, value, corrects=corrected, **said))

    def retract(
        self,
        *targets: Ref,
        reason: Reason,
        where: Mapping[str, str | int] | None = None,
        note: str | None = None,
        **attributes: Unpack[Attributes],
    ) -> Receipt:
        """Take back the events that are named, or every assertion so far that meets all of `where`."""
        return self.record(events.retraction(*targets, reason=reason, where=where, note=note, **attributes))

    def same(
        self, *entities: str, score: float | None = None, note: str | None = None, **attributes: Unpack[Attributes]
    ) -> Receipt:
        """Record the judgement that ids name the same entity."""
        return self.record(events.identity(*entities, judgement="same", score=score, note=note, **attributes))

    def different(
        self, *entities: str, score: float | None = None, note: str | None = None, **attributes: Unpack[Attributes]
    ) -> Receipt:
        """Record the judgement that ids name different entities."""
        return self.record(events.identity(*entities, judgement="different", score=score, note=note, **attributes))

    def unsure(
        self, *entities: str, score: float | None = None, note: str | None = None, **attributes: Unpack[Attributes]
    ) -> Receipt:
        """Record that it is open whether ids name the same entity: it joins nothing and parts nothing."""
        return self.record(events.identity(*entities, judgement="unsure", score=score, note=note, **attributes))

    def declare(
        self,
        predicate: str,
        cardinality: Literal["one", "many"],
        *,
        value_type: ValueType | None = None,
        plausible_values: int | None = None,
        lapse_days: float | None = None,
        unit: str | None = None,
        label: str | None = None,
        description: str | None = None,
        personal: bool | None = None,
        **attributes: Unpack[Attributes],
    ) -> Receipt:
        """Declare a predicate."""
        return self.record(
            events.predicate(
                predicate,
                cardinality,
                value_type=value_type,
                plausible_values=plausible_values,
                lapse_days=lapse_days,
                unit=unit,
                label=label,
                description=description,
                personal=personal,
                **attributes,
            )
        )

    def rate(
        self,
        agent: str,
        *,
        label: str | EllipsisType | None = ...,
        reliability: str | float | EllipsisType | None = ...,
        fidelity: float | EllipsisType | None = ...,
        relays: str | EllipsisType | None = ...,
        note: str | EllipsisType | None = ...,
        **attributes: Unpack[Attributes],
    ) -> Receipt:
        """Rate an agent; what is left out stays as it was, None clears it."""
        return self.record(
            events.agent(
                agent,
                label=label,
                reliability=reliability,
                fidelity=fidelity,
                relays=relays,
                note=note,
                **attributes,
            )
        )

    def adopt(
        self,
        method: Method | None = None,
        *,
        parameters: Mapping[str, Any] | None = None,
        note: str | None = None,
        **attributes: Unpack[Attributes],
    ) -> Receipt:
        """Adopt a policy: how the ledger weighs from here on."""
        return self.record(events.policy(method, parameters=parameters, note=note, **attributes))

    def record(self, event: Mapping[str, Any]) -> Receipt:
        """Record one event, as the makers return it.

        Raises:
            LedgerError: of the type that says what to do, with the `code`, `detail` and `errors` of the refusal.
        """
        return self._append(self._complete(event), "application/cloudevents+json").results[0]

    def record_together(self, together: Iterable[Mapping[str, Any]]) -> answers.Receipts:
        """Record up to 10,000 events, all or none.

        Raises:
            LedgerError: `errors` point into the list, as `/3/data/value`.
        """
        return self._append([self._complete(event) for event in together], "application/cloudevents-batch+json")

    def post(self, events: Iterable[Postable]) -> Posting:
        """Return an iterator that posts events in bounded memory and yields what became of each, in order.

        An event is what a maker returns, or its JSON on one line, as lines of a file are; blank lines are passed
        over. Each is recorded or rejected by itself. Nothing is posted unless it is iterated; `finish()` does.

        Raises:
            RejectedError: after the last event, if any was rejected.
            LedgerError: what concerns all of them, such as `ledger-not-found`, or what `events` itself raises.
                Everything whose result was yielded is recorded. Of what came after it may be unknown; to post the
                same again is safe.
        """
        if isinstance(events, Mapping | bytes | str):
            raise TypeError("post() takes many events; for one, give a list of one")
        return Posting(self._service, f"{self._path}/events", events, self._complete)

    def _append(self, body: object, kind: str) -> answers.Receipts:
        written = orjson.dumps(body)  # once: every attempt sends the same bytes
        sent = self._service.ask("POST", f"{self._path}/events", content=written, headers={"Content-Type": kind})
        return answers.RECEIPTS.read(sent)

    def _complete(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        lacks: Event = {}
        if "specversion" not in event:
            lacks["specversion"] = "1.0"
        if "source" not in event and self.source is not None:
            lacks["source"] = self.source
        if "id" not in event:
            lacks["id"] = self._new_id()
        return {**event, **lacks} if lacks or not isinstance(event, dict) else event

    # --- reading

    def believed(self, entity: str, **at: Unpack[At]) -> State:
        """Return what is believed of an entity: a mapping from predicates to facts.

        Raises:
            NotFoundError: `entity-not-found`, nothing recorded names it.
        """
        return answers.STATE.read(self._service.get(self._of(entity), _query(at)))

    def why(self, entity: str, predicate: str, **at: Unpack[At]) -> Explanation:
        """Return why a predicate of an entity is believed as it is, with all evidence."""
        body = self._service.get(self._of(entity, "/why"), {"predicate": predicate, **_query(at)})
        return answers.EXPLANATION.read(body)

    def timeline(self, entity: str, predicate: str, **at: Unpack[Reading]) -> Timeline:
        """Return what is believed of each span of time in the world."""
        body = self._service.get(self._of(entity, "/timeline"), {"predicate": predicate, **_query(at)})
        return answers.TIMELINE.read(body)

    def timelines(self, entity: str, **at: Unpack[Reading]) -> Timelines:
        """Return the timeline of every predicate: a mapping from predicates to segments."""
        return answers.TIMELINES.read(self._service.get(self._of(entity, "/timeline"), _query(at)))

    def history(
        self, entity: str, predicate: str | None = None, *, from_size: int = 0, **at: Unpack[At]
    ) -> Iterator[Change]:
        """Yield how belief changed, event by event; all pages come from one size of the ledger."""
        query = {"predicate": predicate, "from_size": from_size, "limit": CHANGES_PAGE, **_query(at)}
        page = answers.HISTORY.read(self._service.get(self._of(entity, "/history"), query))
        yield from page.changes
        while page.next is not None:
            page = answers.HISTORY.read(self._service.get(page.next))
            yield from page.changes

    def events(
        self,
        *,
        from_position: int = 0,
        type: str | None = None,  # noqa: A002 - what CloudEvents call it
        subject: str | None = None,
        predicate: str | None = None,
        source: str | None = None,
        outlet: str | None = None,
        document_uri: str | None = None,
        **at: Unpack[Known],
    ) -> Iterator[Event]:
        """Yield the events of the log that meet every criterion given, in order, all as of one size."""
        page: str | None = f"{self._path}/events"
        query: Mapping[str, Any] | None = {
            "from": from_position,
            "limit": EVENTS_PAGE,
            "type": type,
            "subject": subject,
            "predicate": predicate,
            "source": source,
            "outlet": outlet,
            "document_uri": document_uri,
            **_query(at),
        }
        while page is not None:
            found = answers.LOG.read(self._service.get(page, query))
            yield from found.events
            page, query = found.next, None

    def event(self, position: int, **at: Unpack[Known]) -> Event:
        """Return the event at a position.

        Raises:
            NotFoundError: `event-not-found`.
        """
        return answers.EVENT.read(self._service.get(f"{self._path}/events/{position}", _query(at)))

    def size(self) -> int:
        """Return how many events are recorded."""
        return answers.SIZED.read(self._service.get(self._path)).size

    def _of(self, entity: str, view: str = "") -> str:
        return f"{self._path}/entities/{quote(entity, safe=':')}{view}"


def _query(at: Mapping[str, Any]) -> dict[str, Any]:
    return {name: events.moment(given) for name, given in at.items()}
