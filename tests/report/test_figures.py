"""Figures: what is in them, for hostile labels too, and that the same run draws the same bytes."""

import xml.etree.ElementTree as ElementTree

import pytest
from matplotlib.figure import Figure

from feature_extraction.errors import UserError
from wtal.report.figures import class_figure, clean, map_figure, save, shown_classes, timeline_figure


def test_timeline_draws_truth_scores_and_detections(make_data):
    data = make_data()
    video = data.videos[0]
    figure = timeline_figure(video, data.scores("plain"), data.classes, data.inference)
    names = [axis.get_ylabel() for axis in figure.axes]
    assert names[:2] == ["video", "Ground truth"] and names[-2].startswith("ours")
    assert [name for name in names if "probability" in name] == [
        "CBP after warm-up\nprobability",
        "VLP (frozen CLIP)\nprobability",
        "VLP after the last B step\nprobability",
        "ours\nprobability",
    ]
    shown = shown_classes(video, data.scores("plain"), data.classes, data.inference)
    assert len(figure.axes[2].lines) == len(shown)
    scores = data.scores("plain")["cbp_warmup"]
    line = figure.axes[2].lines[0]
    assert line.get_ydata().tolist() == scores.frame_TC[:, data.classes.index(shown[0])].tolist()
    # the curve's first point is the middle of the first snippet: 4 frames at 12.5 a second
    assert line.get_xdata()[0] == pytest.approx(0.16)
    assert len(figure.axes[1].collections) == len(video.ground_truth)
    # the file's brightness rises with time; pictures lie side by side over all of it
    pictures = figure.axes[0].images
    edges = [picture.get_extent()[:2] for picture in pictures]
    assert edges[0][0] == 0 and edges[-1][1] == pytest.approx(video.duration) and len(pictures) > 3
    assert [left for left, _ in edges[1:]] == pytest.approx([right for _, right in edges[:-1]])
    for (left, right), picture in zip(edges, pictures, strict=True):
        bright = 20 + 200 * (left + right) / 2 / video.duration
        assert picture.get_array().mean() == pytest.approx(bright, abs=8)
    assert len(figure.axes[-1].collections) == len(video.detections)


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
def test_same_figure_same_bytes(make_data, tmp_path, suffix):
    data = make_data()
    first, second = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    for path in (first, second):
        save(timeline_figure(data.videos[1], data.scores("plain"), data.classes, data.inference), path)
    assert first.read_bytes() == second.read_bytes()
    if suffix == "svg":
        assert ElementTree.parse(first).getroot().tag.endswith("svg")


def test_map_figure_has_a_line_a_row(make_data):
    axis = map_figure(make_data()).axes[0]
    assert [line.get_label() for line in axis.lines] == ["CBP after warm-up", "ours"]
    assert axis.lines[0].get_xydata().tolist() == [[0.3, 50.0], [0.5, 25.0]]


def test_class_figure_is_sorted_and_keeps_text(tmp_path):
    labels = ["$x_1$ <b>", "_hidden", "new\nline \u202e", "é" * 100]
    figure = class_figure(labels, [0.5, 0.9, 0.1, 0.3], "AP@0.5, %")
    axis = figure.axes[0]
    assert [bar.get_width() for bar in axis.patches] == [10, 30, 50, 90]
    assert [text.get_text() for text in axis.get_yticklabels()] == [clean(labels[i]) for i in (2, 3, 0, 1)]
    save(figure, tmp_path / "a.svg")


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(UserError, match="use one of .svg, .png, .pdf"):
        save(Figure(), tmp_path / "a.bmp")
    assert not list(tmp_path.iterdir())
