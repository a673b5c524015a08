"""The gateway's status: an HTTP API for this machine, and a page of one file."""
