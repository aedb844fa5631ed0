"""Suppression against a plain loop, for every method."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.inference.nms import suppress

from . import plain


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["hard", "gaussian", "linear"]),
    st.integers(0, 25),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.1, 0.3, 0.9]),
    st.sampled_from([0.0, 0.4, 0.7]),
    st.sampled_from([0.0, 0.64, 1.0]),
    st.booleans(),
)
def test_equals_a_plain_loop(method, count, seed, sigma, threshold, added, negative):
    rng = np.random.default_rng(seed)
    class_N = np.sort(rng.integers(0, 3, count))
    start_N = rng.integers(0, 12, count) * 0.64
    end_N = start_N + rng.integers(0, 6, count) * 0.64  # zero-length ones too
    score_N = rng.integers(-2, 9, count) / 8  # ties, and scores that are not positive
    more = {"added": added, "decay_negative": negative}
    kept, scores = suppress(class_N, start_N, end_N, score_N, method, sigma, threshold, **more)
    place = 0
    for label in range(3):
        rows = np.flatnonzero(class_N == label)
        items = [(start_N[i], end_N[i], score_N[i]) for i in rows]
        wanted = plain.suppress(items, method, sigma, threshold, added, negative)
        got = kept[place : place + len(wanted)]
        np.testing.assert_array_equal(start_N[got], [item[0] for item in wanted])
        np.testing.assert_array_equal(end_N[got], [item[1] for item in wanted])
        np.testing.assert_allclose(scores[place : place + len(wanted)], [item[2] for item in wanted], rtol=1e-12)
        place += len(wanted)
    assert place == len(kept)


def test_known_values():
    start_N, end_N = np.array([0.0, 1.0, 10.0]), np.array([2.0, 3.0, 11.0])  # tIoU 1/3, 0
    score_N = np.array([0.8, 0.6, 0.7])
    kept, scores = suppress(np.zeros(3, int), start_N, end_N, score_N, "gaussian", sigma=0.5)
    assert kept.tolist() == [0, 2, 1]
    np.testing.assert_allclose(scores, [0.8, 0.7, 0.6 * np.exp(-(1 / 9) / 0.5)])
    _, scores = suppress(np.zeros(3, int), start_N, end_N, score_N, "linear", tiou=0.3)
    np.testing.assert_allclose(scores, [0.8, 0.7, 0.6 * 2 / 3])
    kept, _ = suppress(np.zeros(3, int), start_N, end_N, score_N, "hard", tiou=0.3)
    assert kept.tolist() == [0, 2]


def test_touching_segments_do_not_suppress_each_other():
    _, scores = suppress(np.zeros(2, int), np.array([0.0, 1.0]), np.array([1.0, 2.0]), np.array([0.9, 0.8]), "gaussian")
    assert scores.tolist() == [0.9, 0.8]


def test_floor_and_limit_are_per_class():
    class_N, start_N = np.array([0, 0, 0, 1, 1]), np.arange(5.0)
    score_N = np.array([0.9, 0.5, 0.1, 0.2, 0.05])
    kept, _ = suppress(class_N, start_N, start_N + 1, score_N, "gaussian", floor=0.1)
    assert kept.tolist() == [0, 1, 2, 3]
    kept, _ = suppress(class_N, start_N, start_N + 1, score_N, "gaussian", limit=1)
    assert kept.tolist() == [0, 3]


def test_input_is_not_changed_and_must_be_sorted():
    score_N = np.array([0.9, 0.8])
    suppress(np.zeros(2, int), np.zeros(2), np.ones(2), score_N, "gaussian")
    assert score_N.tolist() == [0.9, 0.8]
    with pytest.raises(ValueError, match="sorted"):
        suppress(np.array([1, 0]), np.zeros(2), np.ones(2), score_N, "hard")
