"""Moves batches reliably: the same code at the gateway and in the cloud."""
