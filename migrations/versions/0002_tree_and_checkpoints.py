"""The Merkle tree above its leaves, and the last checkpoint."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "subtrees",
        sa.Column("ledger_id", KEY, nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "level", "number", name=op.f("pk_subtrees")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "checkpoints",
        sa.Column("ledger_id", KEY, nullable=False),
        sa.Column("note", sa.LargeBinary(), nullable=False),
        sa.Column("verifier_keys", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", name=op.f("pk_checkpoints")),
        sqlite_with_rowid=False,
    )
