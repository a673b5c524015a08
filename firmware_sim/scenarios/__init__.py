"""Scenarios: what goes wrong on a site, and when, as a timeline in TOML that is run against any gateway."""
