"""The service does what its OpenAPI schema says, whatever it is sent."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

pytestmark = pytest.mark.slow

POSTS = ("/predict", "/predict/batch")
GETS = ("/healthz", "/readyz", "/model", "/metrics")
load_all_checks()
NOT_EVERY_FILE_IS_A_PICTURE = CHECKS.get_by_names(["positive_data_acceptance"])
ANY_PART_MAY_BE_A_FILE = CHECKS.get_by_names(["positive_data_acceptance", "negative_data_rejection"])

CASES = [
    *(("POST", path, mode, 25) for path in POSTS for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)),
    *(("GET", path, GenerationMode.POSITIVE, 2) for path in GETS),
]


@pytest.fixture(scope="module")
def schema(served, whole_detector, face):
    pictures = st.sampled_from([face(size=96), face((-110, 70), size=96)])
    schemathesis.openapi.format("binary", pictures | st.binary(max_size=200))
    with served(whole_detector) as (host, port):
        yield schemathesis.openapi.from_url(f"http://{host}:{port}/openapi.json")


def test_every_operation_is_tested_here(schema):
    found = [(operation.ok().method.upper(), operation.ok().path) for operation in schema.get_all_operations()]
    assert set(found) == {(method, path) for method, path, _, _ in CASES}


@pytest.mark.parametrize(("method", "path", "mode", "examples"), CASES)
def test_operations_answer_as_described(schema, method, path, mode, examples):
    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    def check(case):
        case.call_and_validate(
            excluded_checks=ANY_PART_MAY_BE_A_FILE if "batch" in path else NOT_EVERY_FILE_IS_A_PICTURE
        )

    check()
