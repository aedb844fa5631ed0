"""Which snippets are drawn."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.training.data import SAMPLINGS, consecutive, random_perturb, uniform

from ..parity import cases


@settings(deadline=None)
@given(st.sampled_from(sorted(SAMPLINGS)), st.integers(1, 60), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_every_sampling_stays_inside_and_in_order(name, length, size, seed):
    index = SAMPLINGS[name](length, size, np.random.default_rng(seed))
    assert index.min() >= 0 and index.max() < length
    assert (np.diff(index) >= 0).all()
    assert len(index) == (size if name == "random_perturb" else min(size, length))
    again = SAMPLINGS[name](length, size, np.random.default_rng(seed))
    assert (index == again).all()


def test_consecutive_reaches_every_place_and_leaves_no_gap():
    rng = np.random.default_rng(0)
    starts = set()
    for _ in range(200):
        index = consecutive(6, 4, rng)
        assert (np.diff(index) == 1).all()
        starts.add(int(index[0]))
    assert starts == {0, 1, 2}


def test_random_perturb_draws_one_of_each_bin():
    rng = np.random.default_rng(0)
    drawn = np.array([random_perturb(12, 4, rng) for _ in range(300)])
    for bin_number in range(4):
        # both ends of a bin belong to it, so that neighbours share a snippet
        assert set(drawn[:, bin_number]) == set(range(3 * bin_number, min(3 * bin_number + 4, 12)))
    assert random_perturb(6, 6, rng).tolist() == [0, 1, 2, 3, 4, 5]


def test_uniform_is_ums_formula():
    assert uniform(3, 5).tolist() == [0, 1, 2]
    assert uniform(1001, 750).tolist() == np.floor(np.arange(750) * 1001 / 750).astype(int).tolist()


@pytest.mark.parametrize("path", cases("sampling.json"))
def test_sampling_is_that_of_the_published_codes(path):
    known = json.loads(path.read_text(encoding="utf-8"))
    rng = np.random.default_rng(0)
    for case in known["random_perturb_and_uniform"]:
        length, size = case["length"], case["num_segments"]
        low, high = np.array(case["random_min"]), np.array(case["random_max"])
        drawn = np.stack([random_perturb(length, size, rng) for _ in range(100 + 40 * int((high - low).max()))])
        assert (drawn >= low).all() and (drawn <= high).all()
        few = high - low <= 4
        assert (drawn.min(0)[few] == low[few]).all() and (drawn.max(0)[few] == high[few]).all()
        assert uniform(length, size).tolist() == case["uniform_um"]
    for case in known["um_test_crop"]:
        assert uniform(case["length"], 750).tolist() == case["index"]
