import json
from datetime import datetime, timedelta, timezone

from edge_runtime.judging.results import FaceResult, FrameResult, iso_time
from edge_runtime.model.contract import DEMO_NOTICE, Verdict

FACE = FaceResult((412, 120, 655, 421), 0.93, 3, 0.9992, Verdict.FAKE, None, 0.98)
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


def test_a_line_of_json_is_as_documented():
    assert FRAME.to_json() == (
        '{"source": "door.mp4", "frame": 12, "time": "2026-11-22T10:00:00.400Z", "state": "ok", "width": 1280, '
        '"height": 720, "latency_ms": 9.8, "age_ms": 12.1, "dropped": 0, "device": "CPU", "precision": "int8", '
        '"model": "1.4.0", "faces": [{"box": [412, 120, 655, 421], "detection": 0.93, "track": 3, "score": 0.9992, '
        '"verdict": "fake", "reason": null}], "error": null}'
    )


def test_a_demonstration_model_says_so_in_every_line():
    import dataclasses

    line = json.loads(dataclasses.replace(FRAME, notice=DEMO_NOTICE).to_json())
    assert line["notice"] == DEMO_NOTICE


def test_a_name_that_is_no_unicode_still_makes_a_line_of_json():
    import dataclasses

    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    line = dataclasses.replace(FRAME, source=name).to_json()
    assert json.loads(line)["source"].startswith("caf")
    assert "\n" not in line


def test_times_are_told_in_utc():
    berlin = timezone(timedelta(hours=1))
    assert iso_time(datetime(2026, 11, 22, 11, 0, tzinfo=berlin)) == "2026-11-22T10:00:00.000Z"
