import dataclasses
import json
from datetime import datetime, timedelta, timezone

from edge_runtime.judging.rate import RollingRate
from edge_runtime.judging.results import FaceResult, FrameResult, iso_time
from edge_runtime.model.contract import DEMO_NOTICE, Verdict

FACE = FaceResult(
    box=(412, 120, 655, 421), detection=0.93, track=3, score=0.9992, verdict=Verdict.FAKE, track_score=0.98
)
FRAME = FrameResult(
    source="door.mp4",
    frame=12,
    time=datetime(2026, 11, 22, 10, 0, 0, 400_000, timezone.utc),
    width=1280,
    height=720,
    latency_ms=9.8,
    age_ms=12.1,
    device="CPU",
    precision="int8",
    model="1.4.0",
    faces=(FACE,),
)


def test_a_json_line_is_as_documented():
    assert FRAME.to_json() == (
        '{"source": "door.mp4", "frame": 12, "time": "2026-11-22T10:00:00.400Z", "state": "ok", "width": 1280, '
        '"height": 720, "latency_ms": 9.8, "age_ms": 12.1, "dropped": 0, "device": "CPU", "precision": "int8", '
        '"model": "1.4.0", "faces": [{"box": [412, 120, 655, 421], "detection": 0.93, "track": 3, "score": 0.9992, '
        '"verdict": "fake", "reason": null}], "error": null}'
    )


def test_a_demonstration_model_is_named_in_every_line():
    assert json.loads(dataclasses.replace(FRAME, notice=DEMO_NOTICE).to_json())["notice"] == DEMO_NOTICE


def test_names_that_are_not_unicode_are_escaped():
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    line = dataclasses.replace(FRAME, source=name).to_json()
    assert json.loads(line)["source"].startswith("caf")
    assert "\n" not in line


def test_times_are_in_utc():
    berlin = timezone(timedelta(hours=1))
    assert iso_time(datetime(2026, 11, 22, 11, 0, tzinfo=berlin)) == "2026-11-22T10:00:00.000Z"


def test_a_rate_needs_half_a_second_and_forgets():
    now = 0.0
    rate = RollingRate(5.0, lambda: now)
    for step in range(11):
        now = step / 10
        rate.add()
        assert (rate.per_second > 0) == (now >= 0.5)
    assert rate.per_second == 10.0
    now = 100.0
    assert rate.per_second == 0.0
