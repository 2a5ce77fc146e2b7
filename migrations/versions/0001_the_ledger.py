"""The log, its projections and the memo."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

# Events are append-only at the database too. Erasure will come through a narrow door of its own.
SQLITE_TRIGGERS = (
    """
    CREATE TRIGGER events_no_update BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END
    """,
    """
    CREATE TRIGGER events_no_delete BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END
    """,
    # INSERT OR REPLACE deletes what is in its way without firing the trigger on DELETE.
    """
    CREATE TRIGGER events_no_replace BEFORE INSERT ON events
    WHEN EXISTS (SELECT 1 FROM events WHERE ledger_id = NEW.ledger_id AND position = NEW.position)
      OR EXISTS (SELECT 1 FROM events WHERE ledger_id = NEW.ledger_id AND source = NEW.source AND id = NEW.id)
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END
    """,
)
POSTGRESQL_TRIGGERS = (
    """
    CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'events are append-only'; END $$
    """,
    """
    CREATE TRIGGER events_no_change BEFORE UPDATE OR DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION refuse_change()
    """,
    """
    CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """,
)


def upgrade() -> None:
    create_tables()
    sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in SQLITE_TRIGGERS if sqlite else POSTGRESQL_TRIGGERS:
        op.execute(statement)


def create_tables() -> None:
    op.create_table(
        "assertions",
        sa.Column("ledger_id", KEY, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("subject", KEY, nullable=False),
        sa.Column("predicate", KEY, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("source", KEY, nullable=False),
        sa.Column("outlet", KEY, nullable=False),
        sa.Column("document_uri", KEY, nullable=True),
        sa.Column("run", KEY, nullable=True),
        sa.Column("inputs", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(
            "ledger_id", "generation", "subject", "predicate", "position", name=op.f("pk_assertions")
        ),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_assertions_document_uri",
        "assertions",
        ["ledger_id", "generation", "document_uri", "position"],
        unique=False,
        sqlite_where=sa.text("document_uri IS NOT NULL"),
        postgresql_where=sa.text("document_uri IS NOT NULL"),
    )
    op.create_index(
        "ix_assertions_outlet",
        "assertions",
        ["ledger_id", "generation", "outlet", "position"],
        unique=False,
        sqlite_where=None,
        postgresql_where=None,
    )
    op.create_index(
        "ix_assertions_run",
        "assertions",
        ["ledger_id", "generation", "run", "position"],
        unique=False,
        sqlite_where=sa.text("run IS NOT NULL"),
        postgresql_where=sa.text("run IS NOT NULL"),
    )
    op.create_index(
        "ix_assertions_source",
        "assertions",
        ["ledger_id", "generation", "source", "position"],
        unique=False,
        sqlite_where=None,
        postgresql_where=None,
    )
    op.create_table(
        "beliefs",
        sa.Column("ledger_id", KEY, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("entity", KEY, nullable=False),
        sa.Column("predicate", KEY, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("from_us", sa.BigInteger(), nullable=False),
        sa.Column("to_us", sa.BigInteger(), nullable=False),
        sa.Column("basis", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(
            "ledger_id", "generation", "entity", "predicate", "size", "from_us", name=op.f("pk_beliefs")
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "context",
        sa.Column("ledger_id", KEY, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("type", KEY, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("targets", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "generation", "position", name=op.f("pk_context")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "events",
        sa.Column("ledger_id", KEY, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("source", KEY, nullable=False),
        sa.Column("id", KEY, nullable=False),
        sa.Column("type", KEY, nullable=False),
        sa.Column("recorded_at_us", sa.BigInteger(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=True),
        sa.Column("salt", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("ledger_id", "position", name=op.f("pk_events")),
        sa.UniqueConstraint("ledger_id", "source", "id", name=op.f("uq_events_ledger_id_source_id")),
    )
    op.create_index(
        "ix_events_type",
        "events",
        ["ledger_id", "type", "position"],
        unique=False,
        sqlite_where=sa.text("type != 'factledger.assertion.v1'"),
        postgresql_where=sa.text("type != 'factledger.assertion.v1'"),
    )
    op.create_table(
        "ledgers",
        sa.Column("ledger_id", KEY, nullable=False),
        sa.Column("strict", sa.Boolean(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at_us", sa.BigInteger(), nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.Column("projected_size", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", name=op.f("pk_ledgers")),
    )
    op.create_table(
        "names",
        sa.Column("ledger_id", KEY, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("entity", KEY, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "generation", "entity", name=op.f("pk_names")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "retractions",
        sa.Column("ledger_id", KEY, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("target", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("target_subject", KEY, nullable=True),
        sa.Column("target_predicate", KEY, nullable=True),
        sa.Column("by_subject", KEY, nullable=True),
        sa.Column("by_predicate", KEY, nullable=True),
        sa.PrimaryKeyConstraint("ledger_id", "generation", "target", "position", name=op.f("pk_retractions")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "slots",
        sa.Column("ledger_id", KEY, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("subject", KEY, nullable=False),
        sa.Column("predicate", KEY, nullable=False),
        sa.Column("first_position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "generation", "subject", "predicate", name=op.f("pk_slots")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "touches",
        sa.Column("ledger_id", KEY, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("subject", KEY, nullable=False),
        sa.Column("predicate", KEY, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "generation", "subject", "predicate", "position", name=op.f("pk_touches")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_touches_position", "touches", ["ledger_id", "generation", "position"], unique=False)
