"""A table of boxes, and what they cover of a grid."""

import numpy as np
import pytest

from feature_extraction.errors import UserError
from feature_extraction.store.grid import TimeGrid
from wtal.datasets.boxes import coverage, read_boxes

HEADER = "video,start,end,left,top,right,bottom\n"


def test_rows_are_read_by_video(tmp_path):
    (tmp_path / "b.csv").write_text(HEADER + "x,0,1,0,0,0.5,1\ny,0,2,0,0,1,1\nx,1,2,0.5,0,1,1\n")
    found = read_boxes(tmp_path / "b.csv")
    assert sorted(found) == ["x", "y"]
    np.testing.assert_array_equal(found["x"], [[0, 1, 0, 0, 0.5, 1], [1, 2, 0.5, 0, 1, 1]])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("x,0,1,0,0,half,1", "right is 'half', no number"),
        ("x,0,1,0,0,nan,1", "right is 'nan', no number"),
        ("x,1,1,0,0,1,1", "need 0 <= start < end"),
        ("x,0,1,0,0,64,64", "in shares of the picture"),
        ("x,0,1,0.5,0,0.5,1", "0 <= left < right <= 1"),
    ],
)
def test_what_is_no_box_is_named_by_its_line(tmp_path, row, said):
    (tmp_path / "b.csv").write_text(HEADER + "x,0,1,0,0,1,1\n" + row + "\n")
    with pytest.raises(UserError, match=f"line 3: .*{said}"):
        read_boxes(tmp_path / "b.csv")


def test_coverage_counts_the_points_of_a_place_that_lie_in_the_box():
    rng = np.random.default_rng(0)
    box_F4 = np.sort(rng.uniform(0, 1, (6, 2, 2)), axis=1).reshape(6, 4)
    start_F1 = np.arange(6)[:, None] / 10
    rows_R6 = np.concatenate([start_F1, start_F1 + 0.1, box_F4], axis=1)
    covered_TP = coverage(rows_R6, TimeGrid(10.0, 4, 3), 2, 3)
    point = (np.arange(300) + 0.5) / 300
    for t, frames in enumerate(([0, 1, 2, 3], [3, 4, 5])):  # the seventh frame has no box
        counted = []
        for left, top, right, bottom in box_F4[frames]:
            inside = ((point >= top) & (point < bottom))[:, None] & ((point >= left) & (point < right))
            counted.append(inside.reshape(3, 100, 3, 100).mean((1, 3)).ravel())
        np.testing.assert_allclose(covered_TP[t], np.mean(counted, axis=0), atol=0.02)


def test_several_boxes_are_taken_together_and_times_without_one_are_not_known():
    rows_R6 = np.array([[0.0, 0.4, 0.0, 0.0, 0.5, 1.0], [0.0, 0.4, 0.25, 0.0, 1.0, 1.0]])
    covered_TP = coverage(rows_R6, TimeGrid(10.0, 4, 4), 3, 2)
    np.testing.assert_allclose(covered_TP[0], 1.0)  # left: 1 and 0.5, right: 0 and 1
    assert np.isnan(covered_TP[1:]).all()
