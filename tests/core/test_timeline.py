"""The swept timeline against belief at each instant."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from factledger.core import evidence, times
from factledger.core.belief import believe
from factledger.core.errors import LedgerError
from factledger.core.timeline import segments
from factledger.ledger import Ledgers
from factledger.reading import Question
from tests import strategies
from tests.core.test_belief import MANY, START, Clock, clock, draw_log, ledgers, names

__all__ = ["clock", "ledgers"]


@MANY
@given(data=st.data())
def test_a_timeline_is_belief_at_every_instant(data: st.DataObject, ledgers: Ledgers, clock: Clock) -> None:
    """Every segment has the belief of its first, last and boundary instants, and no two neighbours are alike."""
    clock.now = START
    name = next(names)
    ledgers.create(name)
    ledger = ledgers.get(name)
    draw_log(data, ledger, 16)
    for predicate in strategies.PREDICATES:
        method = data.draw(st.sampled_from([None, "weighed", "latest", "majority"]))
        when = data.draw(st.sampled_from(["possible", "possible", "possible", "presumed", "definite"]))
        with ledger.snapshot(Question(method=method, when=when)) as snapshot:
            try:
                _, _, found = snapshot.believe("e:1", predicate)
            except LedgerError as refusal:
                assert refusal.code == "entity-not-found"
                return
        weakest = evidence.STRENGTHS.index(when)
        line = segments(found.slot, weakest)
        assert line[0].begins == times.BEGINNING
        assert line[-1].ends == times.FOREVER
        for left, right in pairwise(line):
            assert left.ends == right.begins
            assert (left.status, left.values) != (right.status, right.values)
        cuts = {times.BEGINNING, *found.slot.boundaries(), *(s.begins for s in line)}
        for instant in sorted(cuts | {cut - 1 for cut in cuts if cut > times.BEGINNING}):
            believed = believe(found.slot, instant, weakest)
            segment = next(s for s in line if s.begins <= instant < s.ends)
            assert segment.status == believed.status
            assert segment.values == tuple((v.value, v.status, v.probability, v.strength) for v in believed.values)
