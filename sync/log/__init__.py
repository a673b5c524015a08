"""The gateway's durable log: append, read, accept, trim."""
