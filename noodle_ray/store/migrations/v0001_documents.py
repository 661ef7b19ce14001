"""Seven tables of keyed JSON documents: the layout of databases from before versions were noted, too."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# As they were then: later steps change them, and `tables.py` has them as they are now.
TABLES = ("allocations", "nodes", "modules", "loads", "states", "services", "sessions")


def upgrade() -> None:
    for name in TABLES:
        op.create_table(
            name,
            sa.Column("key", sa.String(300), primary_key=True),
            sa.Column("document", sa.JSON, nullable=False),
            sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.func.now()),
            if_not_exists=True,
        )
