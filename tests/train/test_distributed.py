from types import SimpleNamespace

import pytest

from edge_runtime.errors import UsageError
from train.distributed import lost_peers_reported


def test_the_cause_of_a_lost_process_is_kept(monkeypatch):
    """`--debug` prints it."""
    cause = RuntimeError("shapes (3,) and (4,) differ")
    with pytest.raises(RuntimeError, match="differ"), lost_peers_reported():
        raise cause
    monkeypatch.setattr("train.distributed.PartialState", lambda: SimpleNamespace(num_processes=2, process_index=1))
    with pytest.raises(UsageError, match="process 1 of 2") as found, lost_peers_reported():
        raise cause
    assert found.value.__cause__ is cause
