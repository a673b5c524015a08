"""The fixture `premises`: each implementation of the pipeline's store, one after the other.

A test module takes it by `pytest_plugins = ("tests.contract.postgres", "tests.contract.store_fixtures")`.
"""

from __future__ import annotations

import pytest

from cloud.db.database import Database
from tests.contract.memory_premises import MemoryPremises
from tests.contract.stores import PostgresPremises, Premises


@pytest.fixture
def postgres_premises(database: Database) -> Premises:
    return PostgresPremises(database)


@pytest.fixture
def memory_premises() -> Premises:
    return MemoryPremises()


@pytest.fixture(params=["postgres", "memory"])
def premises(request: pytest.FixtureRequest) -> Premises:
    made: Premises = request.getfixturevalue(f"{request.param}_premises")
    return made
