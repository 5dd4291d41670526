"""A bundle with reference statistics that a monitor compares faces with."""

import pytest
from helpers.monitored import write_monitored_bundle

from edge_runtime.model.bundle import Bundle


@pytest.fixture(scope="session")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose network has features."""
    return write_monitored_bundle(tmp_path_factory.mktemp("monitored") / "detector")
