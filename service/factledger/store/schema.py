"""Tables and constraints. Every primary and unique key starts with the ledger, which is what is sharded on.

Instants are integer microseconds since 1970, UTC. Stored bytes are what is hashed; nothing is kept as JSON that
a database could render in another way. The tables after `checkpoints` are projections: they can be dropped and
rebuilt from the log. Their rows belong to a generation, so that a rebuild can fill the next one beside the old.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

# Text that is compared and ordered by its bytes, on both databases.
Key = Text().with_variant(Text(collation="C"), "postgresql")

metadata = MetaData(naming_convention={"pk": "pk_%(table_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s"})

# One row a ledger, locked by every append: it hands out positions, instants and the Merkle frontier.
ledgers = Table(
    "ledgers",
    metadata,
    Column("ledger_id", Key, nullable=False),
    Column("strict", Boolean, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("recorded_at_us", BigInteger, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
    Column("projected_size", BigInteger, nullable=False),
    Column("generation", Integer, nullable=False),
    PrimaryKeyConstraint("ledger_id"),
)

# The log. Append-only: triggers refuse UPDATE, DELETE and TRUNCATE.
events = Table(
    "events",
    metadata,
    Column("ledger_id", Key, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("source", Key, nullable=False),
    Column("id", Key, nullable=False),
    Column("type", Key, nullable=False),
    Column("recorded_at_us", BigInteger, nullable=False),
    Column("envelope", LargeBinary, nullable=False),  # RFC 8785 bytes of all but data, datasalt and inforce
    Column("data", LargeBinary),  # RFC 8785 bytes; gone, with the salt, once erased
    Column("salt", LargeBinary),
    PrimaryKeyConstraint("ledger_id", "position"),
    UniqueConstraint("ledger_id", "source", "id"),
)
Index(
    "ix_events_type",
    events.c.ledger_id,
    events.c.type,
    events.c.position,
    sqlite_where=events.c.type != "factledger.assertion.v1",
    postgresql_where=events.c.type != text("'factledger.assertion.v1'"),
)

# The Merkle tree above its leaves: the roots of full subtrees of 256**level events, from level 1 on. Derived from the
# log by whoever signs it, never by whoever appends; the leaves are hashed from the events whenever they are asked for.
subtrees = Table(
    "subtrees",
    metadata,
    Column("ledger_id", Key, nullable=False),
    Column("level", Integer, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    PrimaryKeyConstraint("ledger_id", "level", "number"),
    sqlite_with_rowid=False,
)

# The last checkpoint that was signed, for those who have no access to the files of the signer.
checkpoints = Table(
    "checkpoints",
    metadata,
    Column("ledger_id", Key, nullable=False),
    Column("note", LargeBinary, nullable=False),  # a C2SP signed note
    Column("verifier_keys", LargeBinary, nullable=False),  # C2SP vkeys, one a line, the current one first
    PrimaryKeyConstraint("ledger_id"),
    sqlite_with_rowid=False,
)

# Assertions by slot, as posted: no rating, surety or canonical id is baked in. `inputs` is all that belief needs,
# as one JSON list (core.evidence.Assertion): a slot of thousands is decoded in one go.
assertions = Table(
    "assertions",
    metadata,
    Column("ledger_id", Key, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("subject", Key, nullable=False),
    Column("predicate", Key, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("source", Key, nullable=False),
    Column("outlet", Key, nullable=False),
    Column("document_uri", Key),
    Column("run", Key),
    Column("inputs", LargeBinary, nullable=False),
    Column("quoted", Key),  # the first speaker, unless it is the outlet
    Column("value_entity", Key),  # the entity that the value is, if it is one
    PrimaryKeyConstraint("ledger_id", "generation", "subject", "predicate", "position"),
    sqlite_with_rowid=False,
)
for _column in ("source", "outlet", "document_uri", "run", "quoted", "value_entity"):
    Index(
        f"ix_assertions_{_column}",
        assertions.c.ledger_id,
        assertions.c.generation,
        assertions.c[_column],
        assertions.c.position,
        sqlite_where=assertions.c[_column].is_not(None) if assertions.c[_column].nullable else None,
        postgresql_where=assertions.c[_column].is_not(None) if assertions.c[_column].nullable else None,
    )

# Which slots there are: written once, with the slot's first assertion.
slots = Table(
    "slots",
    metadata,
    Column("ledger_id", Key, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("subject", Key, nullable=False),
    Column("predicate", Key, nullable=False),
    Column("first_position", BigInteger, nullable=False),
    PrimaryKeyConstraint("ledger_id", "generation", "subject", "predicate"),
    sqlite_with_rowid=False,
)

Index("ix_slots_predicate", slots.c.ledger_id, slots.c.generation, slots.c.predicate, slots.c.subject)

# When the log first named an id, in any role: what makes a member of a cluster canonical.
names = Table(
    "names",
    metadata,
    Column("ledger_id", Key, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("entity", Key, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("ordinal", Integer, nullable=False),
    PrimaryKeyConstraint("ledger_id", "generation", "entity"),
    sqlite_with_rowid=False,
)

# Who says that an event no longer counts: a retraction with targets, or an assertion that corrects.
retractions = Table(
    "retractions",
    metadata,
    Column("ledger_id", Key, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("target", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("target_subject", Key),  # the slot of a target that is an assertion
    Column("target_predicate", Key),
    Column("by_subject", Key),  # the slot of a correction; null for a retraction
    Column("by_predicate", Key),
    PrimaryKeyConstraint("ledger_id", "generation", "target", "position"),
    sqlite_with_rowid=False,
)
# Which slots a retraction or correction reaches, directly or by restoring what its target had removed.
touches = Table(
    "touches",
    metadata,
    Column("ledger_id", Key, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("subject", Key, nullable=False),
    Column("predicate", Key, nullable=False),
    Column("position", BigInteger, nullable=False),
    PrimaryKeyConstraint("ledger_id", "generation", "subject", "predicate", "position"),
    sqlite_with_rowid=False,
)

Index("ix_touches_position", touches.c.ledger_id, touches.c.generation, touches.c.position)

# Identity, vocabulary, agents, policy, and the retractions that are not of single assertions: small, and kept
# in memory while the service runs.
context = Table(
    "context",
    metadata,
    Column("ledger_id", Key, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("type", Key, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("targets", LargeBinary, nullable=False),  # JSON list of the positions of targets other than assertions
    PrimaryKeyConstraint("ledger_id", "generation", "position"),
    sqlite_with_rowid=False,
)

# The memo: belief in a slot over a piece of valid time, as of a size. Never changed; may be dropped any time.
beliefs = Table(
    "beliefs",
    metadata,
    Column("ledger_id", Key, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("entity", Key, nullable=False),
    Column("predicate", Key, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("from_us", BigInteger, nullable=False),
    Column("to_us", BigInteger, nullable=False),
    Column("basis", LargeBinary, nullable=False),  # what in the context the belief rests on
    Column("body", LargeBinary, nullable=False),
    PrimaryKeyConstraint("ledger_id", "generation", "entity", "predicate", "size", "from_us"),
    sqlite_with_rowid=False,
)

PROJECTIONS = (
    assertions,
    slots,
    names,
    retractions,
    touches,
    context,
)  # compared by digest; `beliefs` is a memo
