"""Outputs that are inputs: refused before anything is written."""

import pytest
from helpers.videos import write_video

from edge_runtime.errors import UsageError
from edge_runtime.sinks.places import check_places
from edge_runtime.sources import SourceOptions, open_sources


@pytest.fixture
def inputs(tmp_path, red, monkeypatch):
    """A folder of inputs, in which the test works."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    red.save("in/a.jpg")
    write_video(tmp_path / "clip.avi", [red] * 2)
    write_video(tmp_path / "seen.1.avi", [red] * 2)
    (tmp_path / "link.avi").symlink_to("clip.avi")
    (tmp_path / "hard.avi").hardlink_to("clip.avi")
    (tmp_path / "in/linked.jpg").symlink_to("../lines.jsonl")
    (tmp_path / "lines.jsonl").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("names", "outputs"),
    [
        (["clip.avi"], ["clip.avi"]),
        (["clip.avi"], ["./in/../clip.avi"]),
        (["clip.avi"], ["link.avi"]),
        (["link.avi"], ["hard.avi"]),
        (["*.avi"], ["clip.avi"]),
        (["clip.avi", "in/a.jpg"], ["in/a.jpg"]),
        (["in"], ["in/a.jpg"]),
        (["in"], ["lines.jsonl"]),
        (["in/*"], ["in/a.jpg"]),
        (["in"], ["in/new/lines.jpg"]),
        (["seen.1.avi"], ["seen.avi"]),
        (["clip.avi"], ["new.jsonl", "in/../new.jsonl"]),
    ],
)
def test_an_output_that_is_an_input_is_refused(inputs, bundle, names, outputs):
    with pytest.raises(UsageError, match="choose another"):
        check_places([inputs / output for output in outputs], [], open_sources(names), bundle)


@pytest.mark.parametrize("output", ["model.json", "int8/model.bin"])
def test_an_output_in_the_bundle_is_refused(inputs, bundle, output):
    with pytest.raises(UsageError, match="choose another"):
        check_places([bundle.path / output], [], open_sources(["clip.avi"]), bundle)


@pytest.mark.parametrize("names", [["in"], ["in/*.jpg"], ["in/a.jpg"], ["."]])
def test_snapshots_among_inputs_are_refused(inputs, bundle, names):
    with pytest.raises(UsageError, match="snapshots"):
        check_places([], [inputs / "in"], open_sources(names, SourceOptions(watch=True)), bundle)


@pytest.mark.parametrize("names", [["in"], ["in/a.jpg", "in"]])
def test_snapshots_below_a_watched_folder_are_refused(inputs, bundle, names):
    with pytest.raises(UsageError, match="snapshots"):
        check_places([], [inputs / "in/new/deep"], open_sources(names, SourceOptions(watch=True)), bundle)


def test_other_outputs_are_allowed(inputs, bundle):
    outputs = [inputs / "in/new.jsonl", inputs / "hard.mp4", inputs / "out.avi"]
    check_places(outputs, [inputs / "kept"], open_sources(["in", "clip.avi"]), bundle)
