"""The service does what its OpenAPI says, whatever it is sent."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from edge_runtime.web.http.problems import ProblemKind

OPERATIONS = [
    ("POST", "/predict"),
    ("POST", "/predict/batch"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/model"),
    ("GET", "/metrics"),
]
load_all_checks()
NOT_EVERY_FILE_IS_A_PICTURE = CHECKS.get_by_names(["positive_data_acceptance"])

POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
CASES = [
    *((*operation, POSITIVE, 25 if operation[0] == "POST" else 2) for operation in OPERATIONS),
    *((*operation, NEGATIVE, 25) for operation in OPERATIONS[:2]),
]


@pytest.fixture(scope="module")
def schema(served, whole_detector, face):
    pictures = st.sampled_from([face(size=96), face((-110, 70), size=96)])
    schemathesis.openapi.format("binary", pictures | st.binary(max_size=200))
    with served(whole_detector) as (host, port):
        yield schemathesis.openapi.from_url(f"http://{host}:{port}/openapi.json")


def test_the_operations_are_those_that_are_tested_here(schema):
    found = [(operation.ok().method.upper(), operation.ok().path) for operation in schema.get_all_operations()]
    assert sorted(found) == sorted(OPERATIONS)


@pytest.mark.parametrize(("method", "path", "mode", "examples"), CASES)
def test_every_operation_answers_as_described(schema, method, path, mode, examples):
    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    def check(case):
        case.call_and_validate(excluded_checks=NOT_EVERY_FILE_IS_A_PICTURE)

    check()


def test_the_examples_are_shown_and_the_problems_described(plain):
    described = plain.get("/openapi.json").json()
    prediction = described["components"]["schemas"]["Prediction"]
    assert prediction["examples"][0]["prediction"] == 1
    responses = described["paths"]["/predict"]["post"]["responses"]
    statuses = {kind.status for kind in ProblemKind} - {404, 405}
    assert statuses <= {int(status) for status in responses}
    assert "ValidationError" not in str(described)
    for status, response in responses.items():
        if status != "200":
            assert list(response["content"]) == ["application/problem+json"]
            assert response["content"]["application/problem+json"]["examples"]
    form = described["paths"]["/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["image"]
