"""The only SQL: the log and the projections, on SQLite and PostgreSQL by one code path."""
