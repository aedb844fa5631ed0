"""Runs above thresholds and their scores, against plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.inference.proposals import (
    maximum_inside,
    mean_inside,
    outer_inner_contrast,
    propose,
    stretch,
    unique,
    upsample,
)

from . import plain


def triples(found):
    return list(zip(found.class_N.tolist(), found.start_N.tolist(), found.end_N.tolist(), strict=True))


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 30), st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_runs_equal_a_plain_loop(length, classes, count, seed):
    rng = np.random.default_rng(seed)
    signal_TC = rng.integers(0, 5, (length, classes)) / 4  # many values equal to a threshold
    threshold_K = rng.integers(0, 5, count) / 4
    found = propose(signal_TC, threshold_K)
    wanted = [(c, *run) for k in threshold_K for c in range(classes) for run in plain.runs(signal_TC[:, c].tolist(), k)]
    assert triples(found) == wanted
    assert triples(unique(found, length)) == sorted(set(wanted))
    later = [(c, *run) for k in threshold_K for c in range(classes) for run in plain.runs(signal_TC[:, c].tolist(), k)
             if (signal_TC[1:, c] > k).any()]  # fmt: skip
    assert triples(propose(signal_TC, threshold_K, first_alone=False)) == later


def test_lone_first_and_last_snippets_are_proposals():
    signal_TC = np.array([[0.9, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.9]])
    found = propose(signal_TC, np.array([0.5]))
    assert found.class_N.tolist() == [0, 1]
    assert found.start_N.tolist() == [0, 3]
    assert found.end_N.tolist() == [1, 4]


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.2, 0.25, 0.5, 1.7]),
    st.integers(0, 2**32 - 1),
)
def test_scores_equal_plain_loops(length, classes, ratio, seed):
    signal_TC = np.random.default_rng(seed).random((length, classes))
    found = propose(signal_TC, np.array([0.2, 0.5, 0.8]))
    spans = [
        (signal_TC[:, c].tolist(), s, e)
        for c, s, e in zip(found.class_N, found.start_N.tolist(), found.end_N.tolist(), strict=True)
    ]
    np.testing.assert_allclose(maximum_inside(signal_TC, found), [max(x[s:e]) for x, s, e in spans], rtol=0)
    np.testing.assert_allclose(mean_inside(signal_TC, found), [sum(x[s:e]) / (e - s) for x, s, e in spans], rtol=1e-10)
    wanted = [plain.contrast(x, s, e, ratio) for x, s, e in spans]
    np.testing.assert_allclose(outer_inner_contrast(signal_TC, found, ratio), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [1, 2, 5, 24])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_upsampling_is_linear_interpolation_at_centres(length, factor):
    signal_TC = np.random.default_rng(0).random((length, 2))
    fine_TC = upsample(signal_TC, factor)
    centres = (np.arange(length * factor) + 0.5) / factor
    for column in range(2):
        wanted = np.interp(centres, np.arange(length) + 0.5, signal_TC[:, column])
        np.testing.assert_allclose(fine_TC[:, column], wanted, atol=1e-12)


def test_upsampling_at_starts_goes_on_at_the_end():
    signal_TC = np.array([[0.0], [2.0], [3.0]])
    assert upsample(signal_TC, 4, "start")[:, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.25, 2.5, 2.75, 3, 3.25, 3.5, 3.75]
    assert upsample(signal_TC[:1], 2, "start")[:, 0].tolist() == [0, 0]


def test_stretch_reaches_0_and_1_and_leaves_a_flat_class_alone():
    signal_TC = np.array([[0.2, 0.7], [0.4, 0.7], [0.3, 0.7]])
    np.testing.assert_allclose(stretch(signal_TC), [[0, 0.7], [1, 0.7], [0.5, 0.7]])
