"""Faces kept for review."""

from datetime import datetime, timedelta, timezone
from pathlib import Path

from PIL import Image

from edge_runtime.judging.results import FaceResult, FrameResult, Reason
from edge_runtime.model.contract import Verdict
from edge_runtime.pipeline import Judged
from edge_runtime.sinks.review import ReviewSink
from train.sample_faces import draw_face


def keep(
    folder: Path, keys: list[str], seeds: range, *, source: str = "door", age_days: float = 0.0, size: int = 160
) -> None:
    """Keep drawn faces as a board does."""
    box = tuple(edge * size // 16 for edge in (4, 5, 11, 12))
    with ReviewSink(
        folder,
        purpose="new generators",
        public_keys=keys,
        days=14.0,
        per_hour=999,
        per_day=999,
        sample=0.0,
    ) as sink:
        for seed in seeds:
            face = FaceResult(
                box, 0.9, None, 0.5, Verdict.UNCERTAIN, reason_code=Reason.UNLIKE, frame_verdict=Verdict.UNCERTAIN
            )
            taken = datetime.now(timezone.utc) - timedelta(days=age_days)
            result = FrameResult(source, seed, taken, width=size, height=size, faces=(face,))
            sink.write(Judged(result, Image.fromarray(draw_face(seed, size))))
