"""Belief over valid time: the maximal segments on which a slot's status and values are the same."""

from __future__ import annotations

from dataclasses import dataclass

from factledger.core.belief import believe
from factledger.core.evidence import POSSIBLE, Slot
from factledger.core.times import BEGINNING, FOREVER

Believed = tuple[tuple[str, str, float, int | None], ...]  # (value, status, probability, strength), best first


@dataclass(frozen=True, slots=True)
class Segment:
    """A half-open span of valid time with one belief; `BEGINNING` and `FOREVER` stand for no bound."""

    begins: int
    ends: int
    status: str
    values: Believed


def segments(slot: Slot, weakest: int = POSSIBLE) -> list[Segment]:
    """Return the whole of valid time in maximal segments, rising."""
    found: list[Segment] = []
    starts = [BEGINNING, *slot.boundaries()]
    for begins, ends in zip(starts, [*starts[1:], FOREVER], strict=True):
        belief = believe(slot, begins, weakest)
        values = tuple((v.value, v.status, v.probability, v.strength) for v in belief.values)
        if found and (found[-1].status, found[-1].values) == (belief.status, values):
            found[-1] = Segment(found[-1].begins, ends, belief.status, values)
        else:
            found.append(Segment(begins, ends, belief.status, values))
    return found
