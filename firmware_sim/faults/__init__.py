"""Faults that are done to the running system from outside."""
