"""A whole run in a store, as fixtures."""

import pytest
from small_run import RECIPE, Run, facts

from raysberta.publishing.gather import Told


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Every node of RECIPE but the release."""
    return Run(RECIPE, tmp_path_factory.mktemp("runs")).fill(facts())


@pytest.fixture(scope="module")
def told(small_run: Run) -> Told:
    return small_run.told()
