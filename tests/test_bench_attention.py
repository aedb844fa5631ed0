"""How the tool of docs/attentional_pooling.md counts what lies inside a box, and the boxes that it teaches."""

import math

import numpy as np
import pytest

from feature_extraction.files import write_json
from wtal.config.sandbox import SandboxSettings
from wtal.config.strict import plain
from wtal.datasets.boxes import read_boxes

from . import places


@pytest.fixture(scope="module")
def tool():
    return places.tool("bench_attention")


def test_share_is_a_mean_over_snippets_that_show_something(tool):
    covered_TP = np.array([[1.0, 0.5], [0.0, 1.0], [1.0, 1.0]])
    assert tool.inside(np.array([[1.0, 3.0], [2.0, 2.0], [0.0, 0.0]]), covered_TP) == pytest.approx((0.625 + 0.5) / 2)
    assert math.isnan(tool.inside(np.zeros((3, 2)), covered_TP))


def test_boxes_of_the_renderer_are_a_table_that_training_reads(tool, tmp_path):
    write_json(tmp_path / "world.json", plain(SandboxSettings(training_videos=2, test_videos=1)))
    made = tool.figures(tmp_path, "training")
    tool.write_boxes(tmp_path / "boxes.csv", made)
    found = read_boxes(tmp_path / "boxes.csv")
    assert found.keys() == made.keys() == {"training_000", "training_001"}
    for video_id, box_R6 in found.items():
        assert len(box_R6) > 250
        np.testing.assert_allclose(box_R6[0], made[video_id][0], atol=1e-4)
