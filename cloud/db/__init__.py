"""All SQL: the schema and every statement. Nothing outside of this package speaks to PostgreSQL."""
