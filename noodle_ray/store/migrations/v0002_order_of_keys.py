"""PostgreSQL orders keys by their characters' numbers, as SQLite does, whatever language its system is set to.

A primary key that is ordered by a language is also damaged where the system's rules for that language change.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

TABLES = ("allocations", "nodes", "modules", "loads", "states", "services", "sessions")


def upgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        for name in TABLES:
            op.execute(f'ALTER TABLE {name} ALTER COLUMN key TYPE VARCHAR(300) COLLATE "C"')
