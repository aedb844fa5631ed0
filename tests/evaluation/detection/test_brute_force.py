"""Every protocol against an evaluator written straight from its definition, on 1,000 small cases each."""

import numpy as np
import pytest

from wtal.evaluation.detection import matching
from wtal.evaluation.detection import protocols as detection
from wtal.evaluation.detection.protocols import PROTOCOLS, detection_map

from .. import brute_force
from ..cases import random_case, typed

TIOU = (0.1, 0.25, 0.5, 0.75, 1.0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_thousand_random_cases(protocol):
    for seed in range(1000):
        videos, predictions = random_case(seed)
        result = detection_map(*typed(videos, predictions), protocol, TIOU)
        for k, threshold in enumerate(TIOU):
            ap, mean = brute_force.mean_ap(videos, predictions, protocol, threshold)
            assert set(result.classes) == set(ap)
            found = {name: result.ap_KC[k, c] for c, name in enumerate(result.classes)}
            assert found == pytest.approx(ap, abs=1e-12), (seed, threshold)
            assert result.mAP[k] == pytest.approx(mean, abs=1e-12)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_small_blocks_change_nothing(protocol, monkeypatch):
    """The block size bounds memory; what was taken in one block must stay taken in the next."""
    expected = [detection_map(*typed(*random_case(seed)), protocol, TIOU).ap_KC for seed in range(100)]
    for block_pairs in (1, 7):

        def in_small_blocks(*sides, block_pairs=block_pairs, **options):
            return matching.greedy_match(*sides, **options, block_pairs=block_pairs)

        monkeypatch.setattr(detection, "greedy_match", in_small_blocks)
        for seed, ap_KC in enumerate(expected):
            found = detection_map(*typed(*random_case(seed)), protocol, TIOU).ap_KC
            np.testing.assert_array_equal(found, ap_KC)


def test_the_cases_hold_what_they_should():
    """Ties, duplicates, silent classes and zero-length segments occur, else the test above is hollow."""
    ties = duplicates = silent = points = unsure = unknown = 0
    for seed in range(1000):
        videos, predictions = random_case(seed)
        found = [(name, d) for name, ds in predictions.items() for d in ds]
        scores = [d[3] for _, d in found]
        ties += len(set(scores)) < len(scores)
        duplicates += len(set(found)) < len(found)
        present = {t[2] for instances, _ in videos.values() for t in instances}
        silent += bool(present - {d[2] for _, d in found})
        points += any(d[0] == d[1] for _, d in found)
        unsure += any(ambiguous for _, ambiguous in videos.values())
        unknown += "nowhere" in predictions
    assert min(ties, duplicates, silent, points, unsure, unknown) > 200
