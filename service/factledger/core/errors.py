"""One error type for everything the ledger refuses; the edges map categories to their own codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Category(Enum):
    """What kind of refusal it is; HTTP statuses and exit codes are derived from it at the edges."""

    MALFORMED = "malformed"  # not even readable as what it claims to be
    INVALID = "invalid"  # readable, and breaks a rule of the contract
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"  # well-formed, and contradicts what is recorded
    PRECONDITION = "precondition"  # the caller's own condition does not hold
    TOO_LARGE = "too_large"
    UNSUPPORTED_MEDIA = "unsupported_media"
    FORBIDDEN = "forbidden"
    BUSY = "busy"  # come back later: a bounded queue is full
    UNAVAILABLE = "unavailable"  # come back later: the store is not there, or not yet there
    NOT_IMPLEMENTED = "not_implemented"
    CORRUPT = "corrupt"  # stored rows contradict each other


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: a JSON pointer (RFC 6901) into the input, and how to mend it."""

    pointer: str
    detail: str


class LedgerError(Exception):
    """A refusal with a stable code; it never carries any of the refused content."""

    def __init__(
        self,
        category: Category,
        code: str,
        detail: str,
        *,
        errors: Sequence[Fault] = (),
        retry_after: int | None = None,
    ) -> None:
        """Take a category, a stable kebab-case code, a sentence for people, and pointers if there are any."""
        super().__init__(detail)
        self.category = category
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after = retry_after

    def at(self, prefix: str) -> LedgerError:
        """Return the same refusal with every pointer moved below `prefix` (such as `/3` in a batch)."""
        moved = [Fault(prefix + fault.pointer, fault.detail) for fault in self.errors]
        return LedgerError(
            self.category,
            self.code,
            self.detail,
            errors=moved or [Fault(prefix, self.detail)],
            retry_after=self.retry_after,
        )


def invalid(faults: Sequence[Fault]) -> LedgerError:
    """Return the refusal of an event that breaks the contract in the given places."""
    return LedgerError(
        Category.INVALID,
        "invalid-event",
        "The event does not meet the contract; see `errors` for each place and what belongs there.",
        errors=faults,
    )
