"""HTTP ingest: the REST server."""
