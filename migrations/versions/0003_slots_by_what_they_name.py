"""Find slots by predicate, and by the speakers and entities that their assertions name."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

# `inputs` holds the value's key (itself JSON) at 2, the first speaker at 3 and the outlet at 4.
SQLITE = """
    UPDATE assertions SET
      quoted = nullif(json_extract(CAST(inputs AS TEXT), '$[3]'), outlet),
      value_entity = CASE WHEN substr(json_extract(CAST(inputs AS TEXT), '$[2]'), 1, 10) = '{"entity":'
        THEN json_extract(json_extract(CAST(inputs AS TEXT), '$[2]'), '$.entity') END
"""
POSTGRESQL = """
    UPDATE assertions SET
      quoted = nullif(convert_from(inputs, 'UTF8')::jsonb ->> 3, outlet),
      value_entity = CASE WHEN left(convert_from(inputs, 'UTF8')::jsonb ->> 2, 10) = '{"entity":'
        THEN (convert_from(inputs, 'UTF8')::jsonb ->> 2)::jsonb ->> 'entity' END
"""


def upgrade() -> None:
    for name in ("quoted", "value_entity"):
        op.add_column("assertions", sa.Column(name, KEY, nullable=True))
    op.execute(SQLITE if op.get_bind().dialect.name == "sqlite" else POSTGRESQL)
    for name in ("quoted", "value_entity"):
        op.create_index(
            f"ix_assertions_{name}",
            "assertions",
            ["ledger_id", "generation", name, "position"],
            unique=False,
            sqlite_where=sa.text(f"{name} IS NOT NULL"),
            postgresql_where=sa.text(f"{name} IS NOT NULL"),
        )
    op.create_index("ix_slots_predicate", "slots", ["ledger_id", "generation", "predicate", "subject"], unique=False)
