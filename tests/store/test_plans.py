"""Look-ups find their rows by an index: nothing that is read grows with the log, whatever SQLite would prefer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event

from factledger.store.lookups import Lookups
from factledger.wiring import open_ledgers
from tests.checking import record
from tests.store.test_store import claim

BY_SUBJECT = "(ledger_id=? AND generation=? AND subject=?"
PLANS: dict[str, tuple[Callable[[Lookups], Any], str]] = {
    "slots": (lambda found: found.slots(["e:1", "e:2"], 9), f"slots USING PRIMARY KEY {BY_SUBJECT})"),
    "known": (lambda found: found.known_subjects(["e:1", "e:2"], 9), f"slots USING PRIMARY KEY {BY_SUBJECT})"),
    "subjects": (lambda found: found.subjects("e:0", 9, 5), "slots USING PRIMARY KEY"),
    "slots after": (lambda found: found.slots_after(("e:0", "p"), 9, 5), "slots USING PRIMARY KEY"),
    "slot": (lambda found: found.assertions("e:1", "place", 0, 9), f"{BY_SUBJECT} AND predicate=? AND position>?"),
    "several": (
        lambda found: found.assertions_in({("e:1", "place"), ("e:2", "place")}, 9),
        f"assertions USING PRIMARY KEY {BY_SUBJECT} AND predicate=?",
    ),
    "predicate": (lambda found: found.slots_of_predicate("place", 5), "ix_slots_predicate"),
    "reached": (lambda found: found.slots_reached(3, 9, 5), "ix_touches_position"),
    "touched by": (lambda found: found.touched_by([1, 2]), "ix_touches_position"),
    **{
        role: (lambda found, role=role: found.slots_naming({"a:1", "a:2"}, [role], 9, 5), f"ix_assertions_{role}")  # type: ignore[misc]
        for role in ("source", "outlet", "quoted", "value_entity")
    },
    **{
        name: (lambda found, name=name: found.slots_matching({name: "x"}, 9, 5), f"ix_assertions_{name}")  # type: ignore[misc]
        for name in ("source", "outlet", "document_uri", "run")
    },
}


@pytest.mark.parametrize("what", PLANS)
def test_it_is_looked_up_by_an_index(sqlite_url: str, what: str) -> None:
    ledgers = open_ledgers(sqlite_url)
    record(ledgers.get("main"), [claim(n, subject=f"e:{n % 5}") for n in range(50)])
    run, expected = PLANS[what]
    asked: list[tuple[str, Any]] = []
    with ledgers.database.reading() as connection:
        event.listen(connection, "before_cursor_execute", lambda _c, _u, sql, values, *_: asked.append((sql, values)))
        run(Lookups(connection, "main", 1))
        plans = [
            "\n".join(row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values))
            for sql, values in list(asked)
            if sql.startswith("SELECT")
        ]
    ledgers.close()
    assert plans
    assert expected in plans[0], plans[0]
    for plan in plans:
        assert "SCAN" not in plan.replace("SCAN anon_1", ""), plan  # what an inner query has found
