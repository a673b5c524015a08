"""Listeners of a gateway that runs: each is flooded, while a well-behaved device goes on sending beside it."""
