"""The HTTP API under /api/v1: one file a resource; problems, pages, sign-in and tenancy once."""
