import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from benchmarks.results import plots
from benchmarks.results.answer import answers
from benchmarks.results.plots import fps_bars, over_time, pareto, pareto_front
from benchmarks.results.report import sections, write
from benchmarks.results.schema import LeftOut, Report, Sustained
from edge_runtime.errors import DataError


@pytest.fixture(scope="module")
def full(make_report):
    """A report with everything in it."""
    report = make_report(bundles=("resnet50", "shufflenet_v2_x1_0"), isas=("native", "sse42"))
    series = tuple(
        {"second": s, "end_to_end_fps": 90.0, "clock_mhz": 2900 - s, "temperature_c": 50 + s} for s in range(9)
    )
    rows = (replace(report.rows[0], rounds=(), facts={}, failed="the process died of SIGILL"), *report.rows[1:])
    more = {
        "rows": rows,
        "sustained": (Sustained(report.rows[1].case, {"threads": 2}, series),),
        "left_out": (LeftOut("resnet50 by ONNX Runtime", "onnxruntime is not installed"),),
    }
    return replace(report, **more, answer=answers(report))


@pytest.fixture(scope="module")
def out(full, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "out"
    write(full, folder)
    return folder


@pytest.fixture(scope="module")
def page(out):
    return (out / "report.html").read_text()


def test_a_report_is_one_page_that_needs_nothing_from_anywhere(page):
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert page.count("data:image/png;base64,") >= 7


def test_json_markdown_and_plots_lie_beside_the_page(full, out):
    names = {path.name for path in out.iterdir()}
    plots = {f"{kind}-{isa}.png" for kind in ("speed", "pareto", "latency") for isa in ("native", "sse42")}
    assert names == {"report.html", "report.md", "report.json", "sustained.png"} | plots
    assert Report.read(out).to_json() == full.to_json()


def test_the_answer_comes_first_in_words(out):
    lines = (out / "report.md").read_text().split("\n\n")
    assert lines[1] == "## The answer"
    assert lines[2].startswith("resnet50: take INT8 on CPU:")


def test_the_answer_and_the_table_under_it_recommend_the_same(make_report):
    report = make_report(auc={"fp32": 0.95, "fp16": 0.95, "int8": 0.90})
    tolerant = replace(report, settings={**report.settings, "max_auc_loss": 0.1})
    for found, precision in ((report, "FP"), (tolerant, "INT8")):
        section = next(sections(replace(found, answer=answers(found))))
        *words, table = section.blocks
        assert f"take {precision}" in words[0]
        assert table.rows[0][1].startswith(precision)
    assert "At most 0.1 of AUC" in table.caption


def test_heat_clock_and_throttling_are_shown_and_warned_of(make_report):
    report = make_report()
    felt = {"temperature_c": 91.0, "clock_mhz": 1900.0, "throttled": 3.0}
    hot = replace(report.rows[0], rounds=tuple({**figures, **felt} for figures in report.rows[0].rounds))
    report = replace(report, rows=(hot, *report.rows[1:]))
    speed = next(section for section in sections(report) if section.title.startswith("Speed")).blocks[-1]
    assert speed.head[-1] == "°C / MHz / times throttled"
    assert [cells[-1] for cells in speed.rows[:2]] == ["91.0 / 1900 / 15", "– / – / –"]
    assert answers(report)[0].startswith("The machine was throttled for its heat in 1 of 7 cases")
    assert "throttled" not in "".join(answers(make_report()))


def test_figures_stand_with_their_circumstances(page, full):
    for word in (full.circumstances.processor, full.circumstances.kernel, full.circumstances.commit, "jit_avx512_I8"):
        assert word in page
    assert "threads 2, streams 2" in page


def test_what_failed_and_what_was_left_out_is_told_with_its_reason(page):
    assert "failed: the process died of SIGILL" in page
    assert "onnxruntime is not installed" in page


def test_a_capped_figure_is_never_the_boards(page):
    assert "workstation, capped to SSE4.2" in page
    assert "AIxBoard" not in page


def test_under_the_emulator_every_place_says_that_times_mean_nothing(full, circumstances):
    twin = replace(full, circumstances=replace(circumstances, emulator="qemu-x86_64 -cpu Snowridge"))
    titles = [section.title for section in sections(replace(twin, answer=answers(twin)))]
    assert "Speed (under qemu-x86_64, times mean nothing)" in titles


def test_a_name_that_looks_like_markup_stays_text(full, tmp_path):
    odd = replace(full, rows=(), circumstances=replace(full.circumstances, command="edge-benchmark --data '<script>'"))
    assert "<script>" not in write(odd, tmp_path).read_text()


@pytest.mark.parametrize("draw", ["fps_bars", "pareto", "latencies"])
def test_every_plot_names_its_axes_with_units_and_cuts_nothing_off(full, draw):
    figure = getattr(plots, draw)(full, "native")
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    assert re.search(r"frames|ms", axes.get_xlabel())
    assert draw == "fps_bars" or re.search(r"%", axes.get_ylabel())
    assert all(_inside(part.get_window_extent(), figure.bbox) for part in figure.legends)
    assert _inside(axes.get_tightbbox(), figure.bbox)


def _inside(box, whole):
    return box.x0 >= whole.x0 and box.x1 <= whole.x1 + 1 and box.y0 >= whole.y0 and box.y1 <= whole.y1 + 1


def test_a_plot_is_a_picture_that_fits_a_page(out):
    with Image.open(out / "speed-native.png") as picture:
        assert 500 < picture.width < 1000
        assert np.asarray(picture.convert("L")).std() > 10


def test_over_time_shows_only_what_could_be_read(full):
    run = full.sustained[0]
    assert len(over_time(run).axes) == 3
    fps_only = replace(run, series=tuple({"second": 1.0, "end_to_end_fps": 9.0} for _ in range(3)))
    assert len(over_time(fps_only).axes) == 1
    assert over_time(replace(run, series=())) is None


def test_nothing_is_drawn_of_nothing(make_report):
    empty = make_report(rows=())
    assert fps_bars(empty, "native") is None
    assert pareto(empty, "native") is None


def test_the_front_holds_what_nothing_beats_in_both():
    points = [(10, 0.9), (20, 0.8), (15, 0.7), (20, 0.7), (5, 0.9)]
    assert pareto_front(points) == [(10, 0.9), (20, 0.8)]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 99}', '{"format": 1}', "\x00"])
def test_what_is_no_report_is_told_in_one_line(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"a\.json") as caught:
        Report.read(path)
    assert "\n" not in str(caught.value)


def test_a_missing_report_is_told_with_what_to_give(tmp_path):
    with pytest.raises(DataError, match=r"give a report\.json"):
        Report.read(tmp_path / "none.json")
