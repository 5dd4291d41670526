"""The answers of the API, as described in its OpenAPI schema."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edge_runtime.model.contract import Verdict

JUDGED = {"score": 0.9992, "verdict": "fake", "reason": None}
EXAMPLE: Any = {
    "prediction": 1,
    **JUDGED,
    "faces": [{"box": [412, 120, 655, 421], "detection": 0.93, **JUDGED, "heat": None}],
    "unjudged": 0,
    "left_out": 0,
    "width": 1280,
    "height": 720,
    "latency_ms": 18.4,
    "device": "CPU",
    "precision": "int8",
    "model": "1.4.0",
    "notice": None,
    "drift": None,
    "provenance": None,
}

PixelBox = tuple[int, int, int, int]


class HeatAnswer(BaseModel):
    """Where the model looked at a face."""

    region: PixelBox = Field(description="Part of the upright picture that the map covers, in pixels")
    rows: list[list[float]] = Field(
        description="From top to bottom, measured from the threshold of the verdict. "
        "Above 0 speaks for fake, below 0 for real; 1 is the strongest place"
    )


class FaceAnswer(BaseModel):
    """One face in a picture."""

    box: PixelBox = Field(description="Left, top, right, bottom in pixels of the upright picture")
    detection: float | None = Field(description="Confidence of the face detector, 0 to 1; null if none ran")
    score: float | None = Field(description="Calibrated probability of fake, 0 to 1; null if it can't be judged")
    verdict: Verdict
    reason: str | None = Field(description="Why the verdict is uncertain")
    heat: HeatAnswer | None = Field(default=None, description="Only on request")


class CredentialsAnswer(BaseModel):
    """A file's C2PA manifest."""

    present: Literal[True]
    intact: bool | None = Field(description="Signed, and belongs to this file; null if it can't be checked here")
    trusted: bool | None = Field(description="Its signer is trusted here; null if there is no list of authorities")
    says_ai: bool = Field(description="It says that AI made the picture or a part of it")
    signer: str = Field(description="Who signed, in the certificate's own words")


class ProvenanceAnswer(BaseModel):
    """What a file says about its origin."""

    kind: str | None = Field(description="Where in the file it says that AI made it; null if it does not")
    text: str | None = Field(description="What it says there, at most 80 characters")
    c2pa: CredentialsAnswer | None = Field(description="Its Content Credentials; null if it has none")


class DriftAnswer(BaseModel):
    """Whether the latest faces are like those that the model was measured on."""

    state: str = Field(description="unknown, ok, watch or drift")
    reason: str = Field(description="In words")


class Prediction(BaseModel):
    """The result for one picture."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    prediction: Literal[0, 1] | None = Field(
        description="1 fake, 0 real, by the face with the highest score; null if that is uncertain or there is no face"
    )
    verdict: Verdict | None = Field(description="The same as a word; null if there is no face")
    score: float | None = Field(description="Highest score of its faces, the calibrated probability of fake")
    reason: str | None = Field(description="Why `prediction` is null")
    faces: list[FaceAnswer]
    unjudged: int = Field(description="Faces too small, dark or blurred to judge; they don't count for `prediction`")
    left_out: int = Field(description="Faces beyond the service's limit, which were not judged")
    width: int = Field(description="Of the upright picture, in pixels")
    height: int
    latency_ms: float = Field(description="From the picture's last byte to the result")
    device: str
    precision: str
    model: str = Field(description="Version of the model")
    notice: str | None = Field(description="A notice to show with every result of this model")
    drift: DriftAnswer | None = Field(description="Whether faces drift; null if nothing is monitored")
    provenance: ProvenanceAnswer | None = Field(
        description="What the file says about its origin. Anyone can write or remove that: no score depends on it"
    )


class ProblemDetails(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="Path of the page that explains this kind of problem")
    title: str
    status: int
    detail: str


class BatchItem(BaseModel):
    """One picture of a batch: its result, or why it could not be judged."""

    name: str = Field(description="File name as sent")
    result: Prediction | None
    problem: ProblemDetails | None


class Batch(BaseModel):
    """Results in the order of the pictures."""

    results: list[BatchItem]


class Health(BaseModel):
    """The service is running, or ready to judge."""

    status: Literal["ok"]


class ModelAnswer(BaseModel):
    """The model: the bundle's contract, the SHA-256 of its files, its metrics, and the device in use."""

    name: str
    shipped: bool = Field(description="Whether it came with the package")
    trained_on: dict[str, list[str]] = Field(description="Names of its training data's sources and generators")
    created: str
    contract: dict[str, Any]
    files: dict[str, str] = Field(description="SHA-256 of each file of the bundle")
    tools: dict[str, str]
    parity: dict[str, Any]
    precisions: list[str]
    device: str
    precision: str
    faces: bool = Field(description="Whether faces are detected; otherwise the whole picture is taken as one face")
