import threading

import pytest

from benchmarks.pictures.live_view import without_fonts
from benchmarks.studies.live_latency import Paced
from benchmarks.studies.pipeline import ratios, textures
from benchmarks.studies.soak import Footprint, growth_code


def test_ratios_are_shares_of_network_and_stages(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    measured = {
        "benchmark_app": {"fps": 100.0},
        "network": {"fps": 99.0, "per_core_s": 50.0},
        "memory": {"fps": 96.0, "per_core_s": 48.0},
        "folder": {"fps": 86.0, "per_core_s": 44.0},
        "video": {"fps": 90.0, "per_core_s": 45.0},
        "folder_stages": {"read": 4.0, "classify": 16.0},
        "video_stages": {"decode": 5.0, "classify": 15.0},
    }
    assert ratios(measured) == {
        "memory": 0.96,
        "folder": 0.86,
        "video": 0.9,
        "memory_core": 0.96,
        "folder_core": 0.88,
        "video_core": 0.9,
        "folder_of_network": 0.86,
    }


def test_textures_are_repeatable_and_have_detail():
    (one,), (again,) = textures(1, 64), textures(1, 64)
    assert one.tobytes() == again.tobytes()
    assert one.getextrema()[0][1] - one.getextrema()[0][0] > 100


@pytest.mark.parametrize(("last", "code"), [((104, 10, 5), 0), ((106, 10, 5), 1), ((100, 11, 5), 1), ((100, 10, 6), 1)])
def test_growth_fails_a_soak(last, code):
    assert growth_code(Footprint(100.0, 10, 5), Footprint(*last)) == code


def test_picture_of_the_live_view_fetches_nothing():
    svg = '<style>\n  @font-face {\n  src: url("https://fonts") }\n  .a { fill: red }</style>'
    assert without_fonts(svg) == "<style>\n  .a { fill: red }</style>"


def test_paced_source_stops_when_told():
    stop = threading.Event()
    frames = Paced(50.0, 60.0).frames(stop)
    assert next(frames).index == 0
    stop.set()
    assert list(frames) == []
