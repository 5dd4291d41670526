import json
import random
import re
from dataclasses import replace

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from benchmarks.measure.cases import Case, Mode
from benchmarks.results import plots
from benchmarks.results.answer import answers
from benchmarks.results.compare import compare, lines
from benchmarks.results.plots import fps_bars, over_time, pareto, pareto_front
from benchmarks.results.report import sections, write
from benchmarks.results.schema import GoldenState, LeftOut, Report, Row, Sustained
from edge_runtime.errors import DataError, EdgeError


@pytest.fixture(scope="module")
def full(make_report):
    """A report with everything in it."""
    report = make_report(bundles=("resnet50", "shufflenet_v2_x1_0"), isas=("native", "sse42"))
    series = tuple(
        {"second": float(s), "end_to_end_fps": 90.0, "clock_mhz": 2900.0 - s, "temperature_c": 50.0 + s}
        for s in range(9)
    )
    rows = (replace(report.rows[0], rounds=(), facts={}, failed="killed by SIGILL"), *report.rows[1:])
    report = replace(
        report,
        rows=rows,
        sustained=(Sustained(report.rows[1].case, {"threads": 2}, series),),
        left_out=(LeftOut("resnet50 by ONNX Runtime", "onnxruntime is not installed"),),
    )
    return replace(report, answer=answers(report))


@pytest.fixture(scope="module")
def out(full, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "out"
    write(full, folder)
    return folder


@pytest.fixture(scope="module")
def page(out):
    return (out / "report.html").read_text()


def test_page_needs_no_other_file(page):
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert page.count("data:image/png;base64,") >= 7


def test_json_markdown_and_plots_are_written(full, out):
    plots = {f"{kind}-{isa}.png" for kind in ("speed", "pareto", "latency") for isa in ("native", "sse42")}
    assert {path.name for path in out.iterdir()} == {"report.html", "report.md", "report.json", "sustained.png"} | plots
    assert Report.read(out).to_json() == full.to_json()
    with Image.open(out / "speed-native.png") as picture:
        assert 500 < picture.width < 1000


def test_answer_and_summary_recommend_the_same(make_report):
    report = make_report(auc={"fp32": 0.95, "fp16": 0.95, "int8": 0.90})
    tolerant = replace(report, settings=replace(report.settings, max_auc_loss=0.1))
    for found, precision in ((report, "FP"), (tolerant, "INT8")):
        *words, table = next(sections(replace(found, answer=answers(found)))).blocks
        assert f"take {precision}" in words[0]
        assert table.rows[0][1].startswith(precision)


def test_heat_is_in_the_speed_table(make_report):
    report = make_report()
    felt = {"temperature_c": 91.0, "clock_mhz": 1900.0, "throttled": 3.0}
    hot = replace(report.rows[0], rounds=tuple({**figures, **felt} for figures in report.rows[0].rounds))
    report = replace(report, rows=(hot, *report.rows[1:]))
    speed = next(section for section in sections(report) if section.title.startswith("Speed")).blocks[-1]
    assert [cells[-1] for cells in speed.rows[:2]] == ["91.0 / 1900 / 15", "– / – / –"]


def test_page_shows_circumstances_and_failures(page, full):
    around = full.circumstances
    for text in (around.processor, around.kernel, around.commit, "jit_avx512_I8", "threads 2, streams 2"):
        assert text in page
    for text in ("failed: killed by SIGILL", "onnxruntime is not installed", "workstation, capped to SSE4.2"):
        assert text in page
    assert "AIxBoard" not in page


def test_emulated_sections_say_that_times_mean_nothing(make_report, circumstances):
    twin = make_report(circumstances=replace(circumstances, emulator="qemu-x86_64 -cpu Snowridge"))
    assert "Speed (under qemu-x86_64, times mean nothing)" in [section.title for section in sections(twin)]


def test_markup_in_names_stays_text(full, tmp_path):
    odd = replace(full, rows=(), circumstances=replace(full.circumstances, command="edge-benchmark --data '<script>'"))
    assert "<script>" not in write(odd, tmp_path).read_text()


@pytest.mark.parametrize("isa", ["native", "sse42"])
@pytest.mark.parametrize("draw", ["fps_bars", "pareto", "latencies"])
def test_plots_have_units_and_fit_their_page(full, draw, isa):
    def is_inside(box):
        whole = figure.bbox
        return box.x0 >= whole.x0 and box.x1 <= whole.x1 + 1 and box.y0 >= whole.y0 and box.y1 <= whole.y1 + 1

    figure = getattr(plots, draw)(full, isa)
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    assert re.search(r"frames/s|ms", axes.get_xlabel())
    assert draw == "fps_bars" or "%" in axes.get_ylabel()
    assert all(is_inside(part.get_window_extent()) for part in figure.legends)
    assert is_inside(axes.get_tightbbox())


def test_plots_show_only_what_was_measured(full, make_report):
    run = full.sustained[0]
    assert len(over_time(run).axes) == 3
    fps_only = replace(run, series=({"second": 1.0, "end_to_end_fps": 9.0},) * 3)
    assert len(over_time(fps_only).axes) == 1
    assert over_time(replace(run, series=())) is None
    empty = make_report(rows=())
    assert fps_bars(empty, "native") is pareto(empty, "native") is None


def test_pareto_front_holds_what_nothing_beats():
    points = [(10, 0.9), (20, 0.8), (15, 0.7), (20, 0.7), (5, 0.9)]
    assert pareto_front(points) == [(10, 0.9), (20, 0.8)]


def test_figures_without_facts_are_refused():
    case = Case("tiny", "fp32", Mode.LATENCY)
    with pytest.raises(DataError, match="facts"):
        Row(case, ({"model_fps": 1.0},), {})


def test_golden_state_of_older_reports_is_read(make_report):
    values = json.loads(make_report().to_json())
    values["accuracies"][0]["golden"] = "wrong (logits within 3, allowed 0.01)"
    values["accuracies"][1]["golden"] = "none in the bundle"
    found = Report.from_json(json.dumps(values)).accuracies
    assert [accuracy.golden for accuracy in found[:2]] == [GoldenState.WRONG, GoldenState.NONE]


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"1", b'{"format": 99}', b'{"format": 1}', b"[" * 100_000, b"9" * 5000, b"\xff\xfe", None],
)
def test_other_files_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json") as caught:
        Report.read(path)
    assert "\n" not in str(caught.value)


def test_damaged_reports_never_crash(make_report):
    """Replace values at random places; the report is then read and compared, or refused in one line."""
    whole, generator = make_report(), random.Random(1)
    text = whole.to_json()
    values = (None, True, -1, 0, 1e308, 10**400, float("nan"), "", "wrong", "\ud800", [], {}, [[]], {"value": 1})
    outcomes = set()
    for _ in range(200):
        damaged = json.loads(text)
        place = damaged
        while True:
            key = generator.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if not isinstance(place[key], (dict, list)) or not place[key] or generator.random() < 0.1:
                break
            place = place[key]
        place[key] = generator.choice(values)
        try:
            list(lines(compare(whole, Report.from_json(json.dumps(damaged)))))
            outcomes.add("compared")
        except EdgeError:
            outcomes.add("refused")
    assert outcomes == {"compared", "refused"}
