"""Each original evaluator, ported on its own, on 1,000 cases full of ties and doubled ground truth; and no order of
videos or keys that changes a digit."""

import json
import random

import pytest

from wtal.datasets.annotations import AnnotationSet, Detection, Instance, VideoAnnotation
from wtal.evaluation.bootstrap import BootstrapSettings, bootstrap_map, compare
from wtal.evaluation.classification import video_map
from wtal.evaluation.detection.protocols import PROTOCOLS, detection_map
from wtal.evaluation.diagnosis.diagnose import diagnose
from wtal.evaluation.frame_miou import detection_frame_miou
from wtal.evaluation.proposals import average_recall

from .. import originals
from ..cases import tie_heavy_case, typed

TIOU = (0.1, 1 / 3, 0.5, 0.75)


def by_the_original(protocol, videos, predictions, label):
    truth = {name: instances for name, (instances, _) in videos.items()}
    ambiguous = {name: unsure for name, (_, unsure) in videos.items()}
    if protocol == "activitynet":
        return originals.activitynet_evaluator(truth, predictions, label, TIOU)
    if protocol == "thumos-snippet":
        return originals.snippet_evaluator(truth, predictions, ambiguous, label, TIOU)
    return [originals.thumos_evaluator(truth, predictions, ambiguous, label, threshold) for threshold in TIOU]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_thousand_cases_of_ties(protocol):
    for seed in range(1000):
        videos, predictions = tie_heavy_case(seed)
        result = detection_map(*typed(videos, predictions), protocol, TIOU)
        for c, label in enumerate(result.classes):
            expected = by_the_original(protocol, videos, predictions, label)
            assert result.ap_KC[:, c].tolist() == pytest.approx(expected, abs=1e-12), (seed, label)


def test_the_cases_are_such_that_the_rules_matter():
    """The first of equal overlaps, or the order of the file, would give other values in many of them."""
    first_of_equal = by_file = 0
    for seed in range(200):
        videos, predictions = tie_heavy_case(seed)
        ours = detection_map(*typed(videos, predictions), "activitynet", TIOU).mAP
        turned = {name: (instances[::-1], unsure) for name, (instances, unsure) in videos.items()}
        first_of_equal += detection_map(*typed(turned, predictions), "activitynet", TIOU).mAP != ours
        renamed = {name: f"{place:02d}" for place, name in enumerate(predictions)}
        others = {renamed.get(name, name): video for name, video in videos.items()}
        found = {renamed[name]: rows for name, rows in predictions.items()}
        by_file += detection_map(*typed(others, found), "activitynet", TIOU).mAP != ours
    assert first_of_equal > 10 and by_file > 50


def everything(truth, found):
    """Every measure's digits, as one text."""
    settings = BootstrapSettings(20)
    parts = [
        [detection_map(truth, found, protocol, TIOU).as_dict() for protocol in PROTOCOLS],
        [bootstrap_map(truth, found, protocol, TIOU, settings).as_dict() for protocol in PROTOCOLS],
        compare(truth, found, dict(list(found.items())[:0]), "activitynet", TIOU, settings).as_dict(),
        diagnose(truth, found, (0.5, 0.75)).as_dict(),
        average_recall(truth, found).as_dict(),
        detection_frame_miou(truth, found).as_dict(),
        video_map(truth, found).as_dict(),
    ]
    return json.dumps(parts, sort_keys=True)


def test_no_order_of_videos_changes_a_digit():
    for seed in range(40):
        truth, found = typed(*tie_heavy_case(seed))
        expected = everything(truth, found)
        rng = random.Random(seed)
        for _ in range(2):
            videos, predictions = list(truth.videos.items()), list(found.items())
            rng.shuffle(videos)
            rng.shuffle(predictions)
            assert everything(AnnotationSet(truth.classes, dict(videos)), dict(predictions)) == expected, seed


def dives(found):
    """Two neighbouring dives, each annotated as CliffDiving and as Diving, and the second Diving twice."""
    spans = ((0, 16, "CliffDiving"), (0, 16, "Diving"), (16, 32, "CliffDiving"), (16, 32, "Diving"), (16, 32, "Diving"))
    instances = tuple(Instance(s, e, label) for s, e, label in spans)
    video = VideoAnnotation("v", "test", ("CliffDiving", "Diving"), instances)
    detections = [Detection(s, e, label, score) for s, e, label, score in found]
    return AnnotationSet(("CliffDiving", "Diving"), {"v": video}), {"v": detections}


@pytest.mark.parametrize("protocol", ["activitynet", "thumos-snippet"])
def test_doubled_ground_truth_takes_the_last_of_equals(protocol):
    """The first detection overlaps both dives equally. It takes the later, which leaves the earlier to the second
    detection; were it to take the earlier, the second, which overlaps nothing else, would be wrong."""
    truth, found = dives([(8, 24, "CliffDiving", 0.9), (0, 14, "CliffDiving", 0.8)])
    result = detection_map(truth, found, protocol, (0.3,))
    assert result.ap_KC[0].tolist() == [1.0, 0.0]
    # of three equal ones the two last go first: the third detection still finds the first dive
    truth, found = dives([(8, 24, "Diving", 0.9), (8, 24, "Diving", 0.8), (0, 14, "Diving", 0.7)])
    assert detection_map(truth, found, protocol, (0.3,)).ap_KC[0].tolist() == [0.0, 1.0]


def test_the_challenge_takes_the_surer_of_equal_detections():
    """There the ground truth chooses: of equal overlaps the detection of higher score, then the earlier one."""
    truth, found = dives([(0, 8, "CliffDiving", 0.2), (8, 16, "CliffDiving", 0.9), (0, 8, "CliffDiving", 0.9)])
    result = detection_map(truth, found, "thumos-official", (0.4,))
    assert result.ap_KC[0, 0] == pytest.approx(1 / 2)
