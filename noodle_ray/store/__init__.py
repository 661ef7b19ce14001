"""Where promises are kept: SQLite by default, PostgreSQL by URL."""
