"""Detections of CO2-Net, DELU and UM against those of their authors' code, from the same signals of whole videos."""

import numpy as np
import pytest

from feature_extraction.store.grid import TimeGrid
from wtal.config.inference import preset
from wtal.inference.detect import detect_arrays
from wtal.inference.scores import VideoScores

from ..parity import below, cases, read


def scores_of(own, name):
    """The signals of a video as our scores, and the snippets that it has beyond the rows."""
    if name == "um":
        probability_TC = np.exp(own["class_score"] - own["class_score"].max(1, keepdims=True))
        probability_TC /= probability_TC.sum(1, keepdims=True)
        attention_T = own["scaled_magnitude"]
        raw_TC = probability_TC * attention_T[:, None]
    else:
        attention_T = own["attention"]
        raw_TC = own["cas"][:, :-1] * attention_T[:, None]
    grid = TimeGrid(25.0 * len(raw_TC) / own["length"].item())
    return VideoScores(np.zeros_like(raw_TC), own["video_score"], grid, 0.0, attention_T, raw_TC)


@pytest.mark.parametrize("path", cases("co2net_inference.npz", "delu_inference.npz", "um_inference.npz"))
def test_detections_are_those_of_the_published_code(path):
    arrays, name = read(path), path.name.partition("_")[0]
    for video in sorted({key.partition("/")[0] for key in arrays}):
        own = below(arrays, video)
        expected = own["detections"]
        if not np.isfinite(own["video_score"]).all():
            assert not len(expected)  # UM divides by T // 9, which is 0 there; ours takes one snippet
            continue
        found = detect_arrays(scores_of(own, name), preset(name))
        got = np.stack([found.class_N, found.start_N, found.end_N, found.score_N], axis=1)
        got, expected = (rows[np.lexsort((rows[:, 2], rows[:, 1], -rows[:, 3].round(7), rows[:, 0]))]
                         for rows in (got, expected))  # fmt: skip
        assert len(got) == len(expected), video
        assert (got[:, 0] == expected[:, 0]).all(), video
        np.testing.assert_allclose(got[:, 3], expected[:, 3], atol=1e-5, rtol=0, err_msg=video)
        np.testing.assert_allclose(got[:, 1:3], expected[:, 1:3], atol=1e-6, rtol=0, err_msg=video)
