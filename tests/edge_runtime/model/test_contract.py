"""The contract survives storage, and impossible ones are refused."""

import json
import math
from dataclasses import asdict

import pytest

from edge_runtime.errors import ContractError
from edge_runtime.model.contract import (
    FORMAT,
    Calibration,
    Fit,
    Framing,
    ModelContract,
    PixelRecipe,
    QualityGroup,
    Verdict,
)

GROUPS = (
    QualityGroup(sharpness=4.0, blockiness=None, size=None, scale=0.5, shift=-1.0),
    QualityGroup(sharpness=None, blockiness=1.25, size=160.0, scale=2.0, shift=0.0),
)


@pytest.fixture
def contract() -> ModelContract:
    return ModelContract(
        architecture="resnet50",
        version="1.4.0",
        input_size=96,
        framing=Framing.DETECTED,
        margin=0.5,
        pixels=PixelRecipe(resize_to=None, crops=5, filter="lanczos", fit=Fit.STRETCH),
        calibrations={"int8": Calibration(1.5, 0.2, 0.8, 0.45, fitted=True, bias=-0.5, groups=GROUPS)},
        metrics={"int8": {"auc": {"value": 0.9, "low": 0.88, "high": 0.92}}},
        data="0" * 64,
        demo=True,
    )


def test_a_contract_survives_json(contract: ModelContract) -> None:
    assert ModelContract.from_dict(json.loads(json.dumps(contract.to_dict()))) == contract


def test_rt_info_has_the_contract_and_model_apis_keys(contract: ModelContract) -> None:
    info = contract.to_rt_info()
    assert ModelContract.from_dict(json.loads(info["deepfake_edge_contract"])) == contract
    assert info["labels"] == "real fake"
    assert info["mean_values"] == "123.675 116.28 103.53"
    assert info["scale_values"] == "58.395 57.12 57.375"
    assert {info["multilabel"], info["reverse_input_channels"], info["output_raw_scores"]} <= {"True", "False"}
    assert all(isinstance(value, str) for value in info.values())


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"format": FORMAT + 1}, f"format {FORMAT + 1}"),
        ({"format": None}, "format None"),
        ({"labels": ["fake", "real"]}, "fake, real"),
        ({"input_size": 0}, "0 pixels"),
        ({"input_size": "large"}, "large pixels"),
        ({"scale": [1, 1, 0]}, "scale above 0"),
        ({"mean": [10**400, 0, 0]}, "can't be read"),
        ({"margin": -1}, "-1"),
        ({"framing": "guessed"}, "guessed"),
        ({"version": "\x1b[2J1.0"}, "version"),
        ({"architecture": 3}, "architecture"),
        ({"pixels": {"resize_to": 224, "crops": 3, "filter": "bilinear", "fit": "square"}}, "3 crops"),
        ({"pixels": {"resize_to": 224, "crops": 1, "filter": "magic", "fit": "square"}}, "magic"),
        ({"pixels": {"resize_to": 224.5, "crops": 1, "filter": "box", "fit": "square"}}, "224.5"),
        ({"calibrations": {"int8": {"temperature": 0}}}, "temperature is 0"),
        ({"calibrations": {"int8": {"temperature": 10**400}}}, "can't be read"),
        ({"calibrations": {"int8": {"low": 0.9, "high": 0.1}}}, "0.9 and 0.1"),
        ({"calibrations": {"int8": {"bias": float("nan")}}}, "bias is nan"),
        ({"calibrations": {"int8": {"groups": [{**asdict(GROUPS[0]), "scale": 0}]}}}, "by 0 and"),
        ({"calibrations": {"int8": {"groups": [{"sharpness": 3}]}}}, "can't be read"),
        ({"calibrations": []}, "can't be read"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_impossible_contracts_are_refused(contract: ModelContract, change: dict, names: str) -> None:
    with pytest.raises(ContractError, match=names):
        ModelContract.from_dict({**contract.to_dict(), **change})


@pytest.mark.parametrize(
    ("quality", "odds"),
    [((3.9, 2.0, 500.0), 0.5 * 1.5 - 1.0), ((4.0, 1.2, 100.0), 2.0 * 1.5), ((4.0, 1.25, 100.0), 1.5)],
)
def test_the_first_group_of_a_face_rescales_its_score(quality: tuple[float, ...], odds: float) -> None:
    reading = Calibration(temperature=2.0, bias=-0.5, groups=GROUPS)
    score = reading.score(reading.adjusted(4.0, quality))
    assert math.log(score / (1 - score)) == pytest.approx(odds)


@pytest.mark.parametrize("values", [None, [], "contract", 3])
def test_only_mappings_are_contracts(values: object) -> None:
    with pytest.raises(ContractError, match="not a mapping"):
        ModelContract.from_dict(values)  # type: ignore[arg-type]


def test_the_score_is_a_softmax_at_the_temperature() -> None:
    real, fake, temperature = 0.3, 1.7, 2.0
    exponentials = math.exp(real / temperature), math.exp(fake / temperature)
    expected = exponentials[1] / sum(exponentials)
    assert Calibration(temperature=temperature).score(fake - real) == pytest.approx(expected, abs=1e-12)
    assert [Calibration().score(logit) for logit in (1e6, -1e6, 0.0)] == pytest.approx([1.0, 0.0, 0.5])


@pytest.mark.parametrize(
    ("score", "verdict"),
    [(0.2, Verdict.REAL), (0.21, Verdict.UNCERTAIN), (0.79, Verdict.UNCERTAIN), (0.8, Verdict.FAKE)],
)
def test_thresholds_bound_the_uncertain_band(score: float, verdict: Verdict) -> None:
    assert Calibration(low=0.2, high=0.8).verdict(score) is verdict


def test_uncalibrated_precisions_split_at_one_half(contract: ModelContract) -> None:
    assert contract.calibration("fp16") == Calibration(1.0, 0.5, 0.5, 0.5, fitted=False)
    assert contract.calibration("int8").fitted
