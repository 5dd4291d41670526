"""What the service answers, as OpenAPI describes it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edge_runtime.model.contract import Verdict

EXAMPLE_FACE = {
    "box": [412, 120, 655, 421],
    "detection": 0.93,
    "score": 0.9992,
    "verdict": "fake",
    "reason": None,
    "heat": None,
}
EXAMPLE: Any = {
    "prediction": 1,
    "verdict": "fake",
    "score": 0.9992,
    "reason": None,
    "faces": [EXAMPLE_FACE],
    "unjudged": 0,
    "left_out": 0,
    "width": 1280,
    "height": 720,
    "latency_ms": 18.4,
    "device": "CPU",
    "precision": "int8",
    "model": "1.4.0",
    "notice": None,
}

Box = tuple[int, int, int, int]


class Heat(BaseModel):
    """Where the model looked at a face."""

    region: Box = Field(description="What it was shown: left, top, right, bottom in pixels of the upright picture")
    rows: list[list[float]] = Field(
        description="From top to bottom; above 0 speaks for fake, below 0 for real, 1 is the strongest place"
    )


class Face(BaseModel):
    """One face of a picture."""

    box: Box = Field(description="Left, top, right, bottom in pixels of the upright picture")
    detection: float | None = Field(description="How sure the face stage is, 0 to 1; null where no face stage looked")
    score: float | None = Field(description="Calibrated probability of fake, 0 to 1; null where it can't be judged")
    verdict: Verdict
    reason: str | None = Field(description="Why the verdict is uncertain")
    heat: Heat | None = Field(default=None, description="Only where it was asked for")


class Prediction(BaseModel):
    """What is said of a picture."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    prediction: Literal[0, 1] | None = Field(
        description="1 fake, 0 real, by the face of the highest score; null where that is uncertain or there is no face"
    )
    verdict: Verdict | None = Field(description="The same as a word; null where there is no face")
    score: float | None = Field(description="The highest score of its faces, the calibrated probability of fake")
    reason: str | None = Field(description="Why `prediction` is null")
    faces: list[Face]
    unjudged: int = Field(description="Faces that show too little to be judged; they do not count for `prediction`")
    left_out: int = Field(description="Faces beyond the service's limit, which were not looked at")
    width: int = Field(description="Pixels of the upright picture")
    height: int
    latency_ms: float = Field(description="From the picture's last byte to its verdict")
    device: str
    precision: str
    model: str = Field(description="The model's version")
    notice: str | None = Field(description="What must be said with every verdict of this model")


class ProblemDetails(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="An address under this service that names the kind of problem")
    title: str
    status: int
    detail: str


class BatchItem(BaseModel):
    """One picture of a batch: what is said of it, or why it could not be judged."""

    name: str = Field(description="The file's name as it was sent")
    result: Prediction | None
    problem: ProblemDetails | None


class Batch(BaseModel):
    """Pictures in the order in which they were sent."""

    results: list[BatchItem]


class Health(BaseModel):
    """The service lives, or is ready to judge."""

    status: Literal["ok"]


class ModelCard(BaseModel):
    """What judges: the bundle's contract, the SHA-256 of its files, what was measured, and the device in use."""

    name: str
    created: str
    contract: dict[str, Any]
    files: dict[str, str] = Field(description="SHA-256 of each file of the bundle")
    tools: dict[str, str]
    parity: dict[str, Any]
    precisions: list[str]
    device: str
    precision: str
    faces: bool = Field(description="Whether a face stage looks for faces; else a picture is taken for one face")
