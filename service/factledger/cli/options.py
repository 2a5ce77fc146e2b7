"""Options that commands share: where the ledger is, and as of when it is asked.

A command takes a dataclass of options as one parameter; `spread` shows each of its fields as an option.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from factledger.core import times
from factledger.core.errors import Category, Fault, LedgerError

if TYPE_CHECKING:
    from factledger.ledger import State
    from factledger.reading import Question

Command = Callable[..., int | None]

_COORDINATES = "As of"


def unfit(option: str, detail: str) -> LedgerError:
    """Return the refusal of an option's value."""
    return LedgerError(Category.INVALID, "invalid-option", f"{option} {detail}.", errors=[Fault(option, detail)])


@dataclass(frozen=True, slots=True)
class Output:
    """How a command speaks."""

    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False


@dataclass(frozen=True, slots=True)
class Local(Output):
    """A ledger in a database."""

    database: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The database: sqlite:///FILE or postgresql://USER@HOST/NAME; without it that of the settings.",
        ),
    ] = None
    ledger: Annotated[str, typer.Option(metavar="NAME", help="The ledger.")] = "main"


@dataclass(frozen=True, slots=True)
class Where(Local):
    """A ledger in a database, or behind a server."""

    server: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Ask this server instead, such as http://127.0.0.1:8000."),
    ] = None


Edtf = Annotated[
    str | None,
    typer.Option(
        metavar="DATE",
        rich_help_panel=_COORDINATES,
        help="The instant in the world (EDTF or RFC 3339): by default now, and for a history any.",
    ),
]
Size = Annotated[
    int | None,
    typer.Option(metavar="SIZE", rich_help_panel=_COORDINATES, help="What the first SIZE events say."),
]
Said = Annotated[
    str | None,
    typer.Option(metavar="DATE", rich_help_panel=_COORDINATES, help="Leave out what was said at DATE or later."),
]
Judged = Annotated[
    int | None,
    typer.Option(metavar="SIZE", rich_help_panel=_COORDINATES, help="Who is who by the first SIZE events instead."),
]
Method = Annotated[
    Literal["weighed", "latest", "majority"] | None,
    typer.Option(rich_help_panel=_COORDINATES, help="How to weigh; the ledger's own method if left out."),
]
When = Annotated[
    Literal["definite", "presumed", "possible"] | None,
    typer.Option(rich_help_panel=_COORDINATES, help="Leave out what covers the instant less surely than this."),
]


@dataclass(frozen=True, slots=True)
class Weighing:
    """The read coordinates but for what was known: as given, None where the default is meant."""

    valid_at: Edtf = None
    asserted_before: Said = None
    identity_at_size: Judged = None
    method: Method = None
    when: When = None


@dataclass(frozen=True, slots=True)
class At(Weighing):
    """The read coordinates."""

    known_at: Annotated[
        str | None,
        typer.Option(
            metavar="DATE",
            rich_help_panel=_COORDINATES,
            help="What was recorded by DATE (RFC 3339, or a date: its midnight UTC).",
        ),
    ] = None
    at_size: Size = None

    def question(self) -> Question:
        """Return the coordinates as the ledger takes them.

        Raises:
            LedgerError: `invalid-option`.
        """
        from factledger.reading import Question  # here, since it loads the database's library

        self._check()
        return Question(
            valid_at=_read("--valid-at", self.valid_at, times.first_instant),
            known_at=_read("--known-at", self.known_at, times.parse_moment),
            at_size=self.at_size,
            asserted_before=_read("--asserted-before", self.asserted_before, times.parse_moment),
            identity_at_size=self.identity_at_size,
            method=self.method,
            when=self.when or "possible",
        )

    def query(self) -> dict[str, str]:
        """Return the coordinates as a server takes them.

        Raises:
            LedgerError: `invalid-option`.
        """
        self._check()
        _read("--valid-at", self.valid_at, times.first_instant)
        known_at = _read("--known-at", self.known_at, times.parse_moment)
        before = _read("--asserted-before", self.asserted_before, times.parse_moment)
        given = {
            "valid_at": self.valid_at,
            "known_at": None if known_at is None else times.format_instant(known_at),
            "at_size": self.at_size,
            "asserted_before": None if before is None else times.format_instant(before),
            "identity_at_size": self.identity_at_size,
            "method": self.method,
            "when": self.when,
        }
        return {name: str(value) for name, value in given.items() if value is not None}

    def _check(self) -> None:
        if self.known_at is not None and self.at_size is not None:
            raise unfit("--known-at", "and --at-size exclude each other")


_STATES = "Between"
Since = Annotated[
    int | None, typer.Option(metavar="SIZE", min=0, rich_help_panel=_STATES, help="The first SIZE events.")
]
Then = Annotated[
    str | None,
    typer.Option(metavar="DATE", rich_help_panel=_STATES, help="What was recorded by DATE instead."),
]


@dataclass(frozen=True, slots=True)
class Between:
    """Two states of the ledger; the later one is the latest unless told otherwise."""

    from_size: Since = None
    from_known_at: Then = None
    to_size: Since = None
    to_known_at: Then = None

    def states(self) -> tuple[State, State]:
        """Return the states as the ledger takes them.

        Raises:
            LedgerError: `invalid-option`.
        """
        from factledger.ledger import State  # here, since it loads the database's library

        known = self._check()
        return State(self.from_size, known["from"]), State(self.to_size, known["to"])

    def query(self) -> dict[str, str]:
        """Return the states as a server takes them.

        Raises:
            LedgerError: `invalid-option`.
        """
        sizes = {"from_size": self.from_size, "to_size": self.to_size}
        known = self._check()
        return {
            **{name: str(size) for name, size in sizes.items() if size is not None},
            **{f"{name}_known_at": times.format_instant(at) for name, at in known.items() if at is not None},
        }

    def _check(self) -> dict[str, int | None]:
        if self.from_size is not None and self.from_known_at is not None:
            raise unfit("--from-size", "and --from-known-at exclude each other")
        if self.to_size is not None and self.to_known_at is not None:
            raise unfit("--to-size", "and --to-known-at exclude each other")
        if self.from_size is None and self.from_known_at is None:
            raise unfit("--from-size", "is required, or --from-known-at")
        return {
            "from": _read("--from-known-at", self.from_known_at, times.parse_moment),
            "to": _read("--to-known-at", self.to_known_at, times.parse_moment),
        }


def _read(option: str, text: str | None, parse: Callable[[str], int]) -> int | None:
    if text is None:
        return None
    try:
        return parse(text)
    except ValueError as problem:
        raise unfit(option, str(problem)) from None


def spread(command: Command) -> Command:
    """Return the command with every dataclass among its parameters spread into the fields' options."""
    groups: dict[str, type[Any]] = {}
    parameters: list[inspect.Parameter] = []
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        kind = hints[name]
        if is_dataclass(kind) and isinstance(kind, type):
            groups[name] = kind
            of_fields = get_type_hints(kind, include_extras=True)
            parameters += [
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=field.default,
                    annotation=of_fields[field.name],
                )
                for field in fields(kind)
            ]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name]))

    def run(**given: Any) -> int | None:
        made = {
            name: kind(**{field.name: given.pop(field.name) for field in fields(kind)}) for name, kind in groups.items()
        }
        return command(**given, **made)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__dict__["__signature__"] = inspect.Signature(parameters)
    return run
